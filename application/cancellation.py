"""Cancel asyncio tasks and wait until they have ended."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

REPEAT_INTERVAL_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 2.0
"""Time for a cancelled task to end before it is cancelled again."""


async def cancel_and_wait(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task repeatedly until it ends, since a cancellation is lost if the awaited result arrives at the same time."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=REPEAT_INTERVAL_SECONDS)


async def run_until_first_ends(*works: Awaitable[Any], grace_seconds: float = GRACE_SECONDS) -> None:
    """Run all `works` until one ends; then cancel the others, and raise the error of the first one.

    Work that has not ended `grace_seconds` after its cancellation is cancelled again.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel_all(tasks, grace_seconds)
    for task in done:
        task.result()


async def _cancel_all(tasks: "Sequence[asyncio.Future[Any]]", grace_seconds: float) -> None:
    """As `cancel_and_wait`, with `grace_seconds` before the first repetition."""
    pending = {task for task in tasks if not task.done()}
    pause = grace_seconds
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=pause)
        pause = REPEAT_INTERVAL_SECONDS
    await asyncio.gather(*tasks, return_exceptions=True)
