"""Cancel tasks and wait for their end."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

REPEAT_INTERVAL_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 2.0
"""How long a cancelled task may take to finish what it does, before it is cancelled again."""


async def cancel_and_wait(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task until it ends: a cancellation is lost where the awaited result arrives at the same moment."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=REPEAT_INTERVAL_SECONDS)


async def run_until_first_ends(*works: Awaitable[Any], grace_seconds: float = GRACE_SECONDS) -> None:
    """Run them together until one ends; then cancel the others, and raise what the first one raised.

    A cancelled one that has not ended after `grace_seconds` is cancelled again.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel_all(tasks, grace_seconds)
    for task in done:
        task.result()


async def _cancel_all(tasks: "Sequence[asyncio.Future[Any]]", grace_seconds: float) -> None:
    """As `cancel_and_wait`, with time for each task to finish first."""
    pending = {task for task in tasks if not task.done()}
    pause = grace_seconds
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=pause)
        pause = REPEAT_INTERVAL_SECONDS
    await asyncio.gather(*tasks, return_exceptions=True)
