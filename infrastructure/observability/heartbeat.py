"""The heartbeat of this process's event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

INTERVAL_SECONDS: Final = 2.0
STALE_AFTER_SECONDS: Final = 30.0


class Heartbeat:
    """Set by the event loop, read from any thread. A hanging event loop stops it; an unavailable server does not."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    async def beat_always(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(INTERVAL_SECONDS)

    def beat(self) -> None:
        self._last = self._clock()

    def is_alive(self) -> bool:
        """Whether the last beat is recent. False before the first one."""
        return self._last is not None and self._clock() - self._last <= STALE_AFTER_SECONDS


HEARTBEAT: Final = Heartbeat()
