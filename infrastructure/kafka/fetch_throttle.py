"""Delays fetches until a hint arrives, because the embedded broker does not end a waiting fetch when records arrive."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from application.poll_interval import PollInterval

IDLE_FETCH_INTERVAL_SECONDS: Final = 0.25  # before a fetch without a hint; longer while there are no records


class FetchThrottle:
    """Allows the first fetch, then one for each hint, and one after each idle interval."""

    def __init__(self, *, idle_interval_seconds: float = IDLE_FETCH_INTERVAL_SECONDS) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinted = asyncio.Event()
        self._interval = PollInterval(idle_interval_seconds)

    def wake(self) -> None:
        """Allow one fetch now. Thread-safe."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._hinted.set)

    async def fetch(self, fetch: Callable[[], Awaitable[bool]], *, of_all: bool) -> bool:
        """Run `fetch` when a hint or the idle interval allows it; return whether it got records.

        `of_all`: it requests all assigned partitions. The next fetch runs at once if this one got records, since there may be more, or if
        it did not request all partitions.
        """
        await self._wait_for_hint()
        got_records = await fetch()
        if got_records or not of_all:
            self._interval.shorten()
            self._hinted.set()
        return got_records

    async def _wait_for_hint(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval.take()):
                await self._hinted.wait()
        self._hinted.clear()
