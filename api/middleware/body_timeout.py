"""Timeouts for the body of a request."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

from api.options import BodyTimeouts
from api.problems import TooSlow

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class BodyTimeout:
    """Receives one body: each piece within the idle timeout, and the whole at a minimum rate. Only a disconnect can follow it.

    One timer serves all pieces, because a timeout for each would cost more than reading it. `waiting` is entered while waiting for a
    piece.
    """

    def __init__(self, receive: Receive, waiting: AbstractContextManager[None], timeouts: BodyTimeouts) -> None:
        self._receive, self._waiting, self._timeouts = receive, waiting, timeouts
        self._loop = asyncio.get_running_loop()
        self._started = self._piece_started = self._loop.time()
        self._size = 0
        self._reader: asyncio.Task[Any] | None = None  # the task that waits for a piece
        self._timer: asyncio.TimerHandle | None = None
        self._is_complete = self._is_expired = False

    async def receive(self) -> Message:
        """The next piece. Raises TooSlow."""
        if self._is_complete:
            return await self._receive()
        message = await self._receive_piece()
        self._size += len(message.get("body", b""))
        self._is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        elapsed = self._loop.time() - self._started
        if self._is_complete:
            self.stop()
        elif elapsed > self._timeouts.idle_seconds and self._size < self._timeouts.min_bytes_per_second * elapsed:
            raise _too_slow()
        return message

    def stop(self) -> None:
        """Cancel the timer; nothing more is read."""
        if self._timer is not None:
            self._timer.cancel()

    async def _receive_piece(self) -> Message:
        reader = self._reader = asyncio.current_task()
        self._piece_started = self._loop.time()
        self._timer = self._timer or self._loop.call_later(self._timeouts.idle_seconds, self._check)
        try:
            with self._waiting:
                return await self._receive()
        except asyncio.CancelledError:
            if not self._is_expired or reader is None:
                raise
            self._is_expired = False
            reader.uncancel()
            raise _too_slow() from None
        finally:
            self._reader = None

    def _check(self) -> None:
        """Cancel a wait that has lasted too long; otherwise check again when it could have."""
        idle = self._timeouts.idle_seconds
        remaining = idle - (self._loop.time() - self._piece_started) if self._reader is not None else idle
        if self._reader is not None and remaining <= 0:
            self._timer, self._is_expired = None, True
            self._reader.cancel()
        else:
            self._timer = self._loop.call_later(remaining, self._check)


def _too_slow() -> TooSlow:
    return TooSlow("The body did not arrive in time; send it again")


def expire(timeout: asyncio.Timeout) -> None:
    """Let a timeout expire at once."""
    if not timeout.expired():
        timeout.reschedule(asyncio.get_running_loop().time())
