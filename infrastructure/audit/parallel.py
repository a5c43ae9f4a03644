"""Calls in several processes that can be interrupted at any time."""

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import TypeVar

from domain.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def results_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, processes: int, initializer: Callable[[], object]
) -> Iterator[Iterator[Result]]:
    """The results of `function` for each item, in order, computed as they are requested or ahead of that. `initializer` runs first in each
    process.

    When the block ends, also with an error or KeyboardInterrupt, the processes are killed: no call in progress is waited for. Raises what
    `function` raises, and Unavailable where a process has died.
    """
    others = set(active_children())
    executor = ProcessPoolExecutor(processes, get_context("spawn"), initializer=initializer)
    try:
        with _interrupts_blocked():
            results = executor.map(function, items)
        yield _unless_broken(results)
    finally:
        for process in set(active_children()) - others:
            process.kill()
        executor.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C, which a terminal sends to all: this process ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unless_broken(results: Iterator[Result]) -> Iterator[Result]:
    try:
        yield from results
    except BrokenProcessPool:
        raise Unavailable("A process of the verification has died, perhaps for lack of memory; try again") from None
