"""Limits requests that wait for a change of the read models, in time and number. A disconnect or a shutdown ends the wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

from application.cancellation import REPEAT_INTERVAL_SECONDS, run_until_first_ends
from application.services import ReadPosition

T = TypeVar("T")
Receive = Callable[..., Awaitable[Any]]
FIRST_RETRY_DELAY_SECONDS: Final = 0.01  # between two reads; doubled each time, so that a busy log costs few reads


class WaitSlots:
    """At most `slots` requests wait at the same time, each for at most `seconds`. A request that finds no free slot does not wait.

    A waiting request holds no thread and no database connection. `idle` is entered while it waits, so that admission control does not
    count it.
    """

    def __init__(self, read_position: ReadPosition, idle: AbstractContextManager[None], *, slots: int, seconds: float) -> None:
        self._read_position, self._idle, self._seconds = read_position, idle, seconds
        self._free = slots
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End all waits and start no new ones, because the server is stopping."""
        self._closed.set()

    async def read_until(self, done: Callable[[T], bool], read: Callable[[], Awaitable[T]], receive: Receive) -> T:
        """Call `read`, and repeat it after each change of the read models until its result is `done`. Return the last result.

        The last result is not done if the time is over, no slot is free, `receive` reports a disconnect, or the server stops.
        Raises what `read` raises.
        """
        position = self._read_position.position
        result = await read()
        if done(result) or self._is_full() or not await _body_is_complete(receive) or self._is_full():
            return result
        self._free -= 1
        try:
            async with self._interruption(receive) as interruption:
                return await self._read_again(position, done, read, interruption)
        finally:
            self._free += 1

    def _is_full(self) -> bool:
        return self._free <= 0

    async def _read_again(
        self, position: int, done: Callable[[T], bool], read: Callable[[], Awaitable[T]], interruption: "asyncio.Task[None]"
    ) -> T:
        clock = asyncio.get_running_loop().time
        deadline, pause = clock() + self._seconds, FIRST_RETRY_DELAY_SECONDS
        while True:
            with self._idle:
                await _run_until_first_ends(self._read_position.wait(position + 1, deadline - clock()), asyncio.wait([interruption]))
            is_last = interruption.done() or clock() >= deadline
            position = self._read_position.position
            result = await read()
            if is_last or done(result):
                return result
            with self._idle:
                await asyncio.wait([interruption], timeout=min(pause, deadline - clock()))
            pause *= 2

    @asynccontextmanager
    async def _interruption(self, receive: Receive) -> AsyncIterator["asyncio.Task[None]"]:
        """Yield a task that ends when the client disconnects or the server stops."""
        task = asyncio.create_task(_run_until_first_ends(_disconnect(receive), self._closed.wait()))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


_run_until_first_ends = partial(run_until_first_ends, grace_seconds=REPEAT_INTERVAL_SECONDS)


async def _body_is_complete(receive: Receive) -> bool:
    """Read the body to its end, under its own timeout. Return False if the client disconnects before."""
    message = await receive()
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()
    return bool(message["type"] == "http.request")


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
