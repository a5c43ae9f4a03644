"""How quickly the body of a request must come."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

from api.problems import TooSlow

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

MAX_IDLE_SECONDS = 30.0  # seconds between two pieces of a body
MIN_BYTES_PER_SECOND = 1024  # bytes a second on the average, once it has been under way for as long


class BodyTimeout:
    """The pieces of one body: while it is under way each has its time, and the whole a pace; after that only a disconnect can come.

    One timer watches all pieces: a timeout for each would cost more than to read it. `waiting` is entered for each piece awaited.
    """

    def __init__(self, receive: Receive, waiting: AbstractContextManager[None]) -> None:
        self._receive, self._waiting = receive, waiting
        self._loop = asyncio.get_running_loop()
        self._began = self._asked = self._loop.time()
        self._size = 0
        self._reader: asyncio.Task[Any] | None = None  # who waits for a piece
        self._timer: asyncio.TimerHandle | None = None
        self._complete = self._late = False

    async def received(self) -> Message:
        """The next piece. Raises TooSlow."""
        if self._complete:
            return await self._receive()
        message = await self._piece()
        self._size += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        passed = self._loop.time() - self._began
        if self._complete:
            self.end()
        elif passed > MAX_IDLE_SECONDS and self._size < MIN_BYTES_PER_SECOND * passed:
            raise _too_slow()
        return message

    def end(self) -> None:
        """Nobody reads any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def _piece(self) -> Message:
        reader = self._reader = asyncio.current_task()
        self._asked = self._loop.time()
        self._timer = self._timer or self._loop.call_later(MAX_IDLE_SECONDS, self._look)
        try:
            with self._waiting:
                return await self._receive()
        except asyncio.CancelledError:
            if not self._late or reader is None:
                raise
            self._late = False
            reader.uncancel()
            raise _too_slow() from None
        finally:
            self._reader = None

    def _look(self) -> None:
        """End the wait for a piece that has lasted too long; else look again when it may have."""
        left = MAX_IDLE_SECONDS - (self._loop.time() - self._asked) if self._reader is not None else MAX_IDLE_SECONDS
        if self._reader is not None and left <= 0:
            self._timer, self._late = None, True
            self._reader.cancel()
        else:
            self._timer = self._loop.call_later(left, self._look)


def _too_slow() -> TooSlow:
    return TooSlow("The body did not arrive in time; send it again")


def expire(limit: asyncio.Timeout) -> None:
    """End what it limits at once."""
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())
