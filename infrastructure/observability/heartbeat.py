"""Whether the event loop of this process still runs."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

INTERVAL_SECONDS: Final = 2.0
STALE_AFTER_SECONDS: Final = 30.0


class Heartbeat:
    """Set by the event loop, read from any thread. A server that is away does not stop it; an event loop that hangs does."""

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
        """Not before the first beat."""
        return self._last is not None and self._clock() - self._last <= STALE_AFTER_SECONDS


HEARTBEAT: Final = Heartbeat()  # of this process
