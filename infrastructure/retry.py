"""Retry with backoff and jitter; restart long-running work after errors."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Final, NoReturn, ParamSpec, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from domain.errors import Unavailable, UpgradePending

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")

RETRY_DELAYS_SECONDS: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
"""Delays between attempts, each varied randomly by up to 50 %."""


class Retry:
    """Runs blocking calls in `threads` (None: those of the event loop), and repeats them with delays while they raise Unavailable.

    A call raises Unavailable after the last attempt. It raises UpgradePending at once, since an upgrade takes longer than all delays.
    `jitter` draws a number between two others.
    """

    def __init__(
        self,
        threads: Executor | None,
        *,
        delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._threads, self._delays, self._jitter = threads, delays_seconds, jitter

    async def __call__(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async def attempt() -> T:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))

        return await AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception(_is_temporary),
            stop=stop_after_attempt(len(self._delays) + 1),
            wait=self._delay,
            before_sleep=_log_failure,
            reraise=True,
        )(attempt)

    def _delay(self, state: RetryCallState) -> float:
        after = min(state.attempt_number, len(self._delays))  # tenacity also calls this after the last attempt
        return self._delays[after - 1] * self._jitter(0.5, 1.5)


async def repeat_always(
    work: Callable[[], Awaitable[object]], *, warning: str, errors: tuple[type[Exception], ...], delay_seconds: float
) -> NoReturn:
    """Run `work` again and again, with a delay; log `warning` if it raises one of `errors`. `work` opens its own connection."""
    while True:
        try:
            await work()
        except errors as error:
            log.warning(warning, error=type(error).__name__)  # the text may contain hosts and users
        await asyncio.sleep(delay_seconds)


def _is_temporary(error: BaseException) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, UpgradePending)


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("retrying", reason=str(error), seconds=round(state.next_action.sleep, 1) if state.next_action else 0.0)
