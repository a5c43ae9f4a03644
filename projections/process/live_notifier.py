"""Live notifications, which tell the API that there are new events. They are hints: subscribers also poll every second."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from application.services import CHANNEL
from projections.engine.batches import BatchResult

log = structlog.get_logger()

RETRY_DELAY_SECONDS: Final = 5.0  # pause after a failure


class LiveNotifier:
    """Publishes notifications with `publish(channel, message)`. After a failure it pauses; failures have no other effect."""

    def __init__(
        self,
        publish: Callable[[str, bytes], Awaitable[object]],
        *,
        retry_delay_seconds: float = RETRY_DELAY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publish, self._retry_delay_seconds, self._clock = publish, retry_delay_seconds, clock
        self._paused_until = 0.0

    async def notify(self, result: BatchResult) -> None:
        if self._clock() < self._paused_until:
            return
        try:
            await self._publish(CHANNEL, notification(result))
        except Exception as error:
            self._paused_until = self._clock() + self._retry_delay_seconds
            log.warning("live notification not sent", error=type(error).__name__)


def notification(result: BatchResult) -> bytes:
    return msgspec.json.encode(
        {"position": result.position, "datasets": sorted(map(str, result.datasets)), "users": sorted(map(str, result.users))}
    )
