"""Waiting for what is away: a while, ever longer, and never in step with others. And for what is told to end."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, ParamSpec, TypeVar

import structlog

from domain.errors import Unavailable, UpgradePending

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")

TELL_AGAIN: Final = 0.1  # seconds
PAUSES: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)  # seconds, each made shorter or longer by up to a half


async def patiently(threads: Executor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call on one of `threads`; again after a pause while it raises Unavailable.

    Raises Unavailable after all pauses, and UpgradePending at once: that takes as long as an upgrade.
    """
    loop = asyncio.get_running_loop()
    for pause in PAUSES:
        try:
            return await loop.run_in_executor(threads, lambda: call(*args, **kwargs))
        except UpgradePending:
            raise
        except Unavailable as away:
            log.warning("waiting", reason=away.detail, seconds=pause)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
    return await loop.run_in_executor(threads, lambda: call(*args, **kwargs))


async def ended(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task, and wait for its end. Told again until it does: where an answer comes at the same moment, a cancellation is lost."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=TELL_AGAIN)
