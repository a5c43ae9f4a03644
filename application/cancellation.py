"""Cancel asyncio tasks and wait until they have ended."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final

import structlog

log = structlog.get_logger()

REPEAT_INTERVAL_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 2.0
"""Time for a cancelled task to end before it is cancelled again."""


async def cancel_and_wait(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task repeatedly until it ends, since a cancellation is lost if the awaited result arrives at the same time."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=REPEAT_INTERVAL_SECONDS)


async def run_until_first_ends(*works: Awaitable[Any], grace_seconds: float = GRACE_SECONDS) -> None:
    """Run all `works` until one ends; then cancel the others, and return when all have ended.

    Raises the error of the work that ended first; if several ended together, that of the first in the order of `works` that failed. Other
    errors are logged, including those of cancelled work. Work that has not ended `grace_seconds` after its cancellation is cancelled again.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    cancellation: asyncio.CancelledError | None = None
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError as error:
        cancellation = error
    ended = [task for task in tasks if task.done()]
    cancellation = await _cancel_all(tasks, grace_seconds) or cancellation
    failed = None if cancellation else next((task for task in ended if task.cancelled() or task.exception()), None)
    _log_errors(task for task in tasks if task is not failed)
    if cancellation is not None:
        raise cancellation
    if failed is not None:
        failed.result()


async def _cancel_all(tasks: "Sequence[asyncio.Future[Any]]", grace_seconds: float) -> asyncio.CancelledError | None:
    """As `cancel_and_wait`, with `grace_seconds` before the first repetition. Returns a cancellation of the caller in the meantime."""
    pending = [task for task in tasks if not task.done()]
    pause = grace_seconds
    cancellation: asyncio.CancelledError | None = None
    while pending:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=pause)
        except asyncio.CancelledError as error:
            cancellation = error
        pending = [task for task in pending if not task.done()]
        pause = REPEAT_INTERVAL_SECONDS
    return cancellation


def _log_errors(tasks: "Iterable[asyncio.Future[Any]]") -> None:
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("another task failed meanwhile", error=type(error).__name__)
