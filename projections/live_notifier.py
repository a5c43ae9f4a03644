"""Tell who waits that there is something new. Only a hint: whoever misses it looks for himself a second later."""

import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from application.services import CHANNEL
from projections.engine.batches import BatchResult

log = structlog.get_logger()

RETRY_DELAY_SECONDS = 5.0  # seconds without a try after one failed


class LiveNotifier:
    """`publish(channel, message)` may fail: then nothing is told for a while, and nothing else happens."""

    def __init__(self, publish: Callable[[str, bytes], Awaitable[object]]) -> None:
        self._publish = publish
        self._quiet_until = 0.0

    async def tell(self, applied: BatchResult) -> None:
        if time.monotonic() < self._quiet_until:
            return
        try:
            await self._publish(CHANNEL, message(applied))
        except Exception as error:
            self._quiet_until = time.monotonic() + RETRY_DELAY_SECONDS
            log.warning("cannot notify", error=type(error).__name__)


def message(applied: BatchResult) -> bytes:
    return msgspec.json.encode(
        {"position": applied.position, "datasets": sorted(map(str, applied.datasets)), "users": sorted(map(str, applied.users))}
    )
