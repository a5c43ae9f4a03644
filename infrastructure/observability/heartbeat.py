"""Whether the event loop of this process still runs."""

import asyncio
import time
from typing import Final

INTERVAL_SECONDS: Final = 2.0
STALE_AFTER_SECONDS: Final = 30.0


class Heartbeat:
    """Beaten by the event loop, looked at from any thread. A server that is away stops no heartbeat; a loop that hangs does."""

    def __init__(self) -> None:
        self._last: float | None = None

    async def beat_always(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(INTERVAL_SECONDS)

    def beat(self) -> None:
        self._last = time.monotonic()

    def is_alive(self, *, now: float | None = None) -> bool:
        """Not before the first beat. `now` is a reading of the monotonic clock, in seconds."""
        at = time.monotonic() if now is None else now
        return self._last is not None and at - self._last <= STALE_AFTER_SECONDS


HEARTBEAT: Final = Heartbeat()  # of this process
