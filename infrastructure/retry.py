"""Waiting for what is away: a while, ever longer, and never in step with others. And for what is told to end."""

import asyncio
import logging
import os
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final, ParamSpec, TypeVar

import structlog

from domain.errors import Unavailable, UpgradePending

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")

CANCEL_AGAIN_SECONDS: Final = 0.1  # seconds
CANCEL_TIMEOUT_SECONDS: Final = 2.0  # seconds that a cancelled task may take to end what is under way
RETRY_DELAYS_SECONDS: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)  # seconds, each made shorter or longer by up to a half


async def retry_while_unavailable(threads: Executor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call on one of `threads`; again after a pause while it raises Unavailable.

    Raises Unavailable after all pauses, and UpgradePending at once: that takes as long as an upgrade.
    """
    loop = asyncio.get_running_loop()
    for pause in RETRY_DELAYS_SECONDS:
        try:
            return await loop.run_in_executor(threads, lambda: call(*args, **kwargs))
        except UpgradePending:
            raise
        except Unavailable as away:
            log.warning("waiting", reason=away.detail, seconds=pause)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
    return await loop.run_in_executor(threads, lambda: call(*args, **kwargs))


async def cancel_and_wait(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task, and wait for its end. Told again until it does: where an answer comes at the same moment, a cancellation is lost."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS)


async def first_of(*works: Awaitable[Any]) -> None:
    """Run them together until one ends; then end the others, and raise what that one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _all_ended(tasks)
    for task in done:
        task.result()


async def _all_ended(tasks: "Sequence[asyncio.Future[Any]]") -> None:
    """As `ended`, with time for each to finish first."""
    left = {task for task in tasks if not task.done()}
    pause = CANCEL_TIMEOUT_SECONDS
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=pause)
        pause = CANCEL_AGAIN_SECONDS
    await asyncio.gather(*tasks, return_exceptions=True)


def leave_within(seconds: float) -> None:
    """End this process by then at the latest, whatever hangs. For what loses nothing when it is killed."""
    last = threading.Timer(seconds, _leave, (seconds,))
    last.daemon = True
    last.start()


def _leave(seconds: float) -> None:
    log.error("did not end by itself", seconds=seconds)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
