"""Structured concurrency for tasks whose cancellation may be lost."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

CANCEL_RETRY_SECONDS: Final = 0.1


async def run_until_first_ends(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run all until one ends; raise what it raised.

    The others are cancelled repeatedly until they end: a cancellation that arrives together with a result is lost.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in tasks if task.done())
    finally:
        while running := [task for task in tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCEL_RETRY_SECONDS)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # retrieved, or asyncio logs it
    first.result()
