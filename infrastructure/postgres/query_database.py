"""The read models, read: a pool of connections that give up in time, and one that hears how far the projector is."""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
import psycopg
import structlog
from psycopg_pool import PoolTimeout

from application.cancellation import cancel_and_wait
from application.poll_interval import PollInterval
from domain.errors import Invalid
from infrastructure.postgres.connections import LivenessLimits, ServerUnresponsive
from infrastructure.postgres.errors import database_unavailable
from infrastructure.postgres.notifications import reconnect_always
from infrastructure.postgres.profiles import LIVENESS, QUERIES, READ_POSITION
from infrastructure.postgres.wake_ups import PROJECTED

log = structlog.get_logger()
T = TypeVar("T")

POLL_INTERVAL_SECONDS = 1.0  # seconds after which the position is read while somebody waits, should a wake-up have been lost
AS_JSON = "select coalesce(json_agg(found), '[]')::text from ({}) found"


DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def _decoder(into: type[T]) -> msgspec.json.Decoder[list[T]]:
    if into not in DECODERS:
        DECODERS[into] = msgspec.json.Decoder(list[into])  # type: ignore[valid-type]
    return DECODERS[into]


@cache
def _as_json(query: str) -> bytes:
    return AS_JSON.format(query).encode()


class PostgresQueryDatabase:
    """`projections.reading.Reads` on Postgres. Rows come as one JSON text, which is decoded straight into Structs."""

    def __init__(self, url: str, *, size: int = 8, liveness: LivenessLimits = LIVENESS) -> None:
        self._pool = QUERIES.async_pool(url, min_size=1, max_size=size, liveness=liveness)

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def rows(self, query: str, parameters: Mapping[str, object], *, into: type[T]) -> list[T]:
        """Each row of `query` as `into`, in its order. Raises Unavailable, and Invalid for a value that Postgres cannot hold."""
        try:
            return _decoder(into).decode(await self._text(_as_json(query), parameters))
        except psycopg.DataError as error:
            log.info("a value that Postgres refuses", error=type(error).__name__)
            raise Invalid("A value in the query is out of range, or holds a NUL character") from None

    async def _text(self, query: bytes, parameters: Mapping[str, object]) -> str:
        """Once more when the connection was lost while it lay idle: to look at each before it is used would cost more than most queries."""
        for again in (True, False):
            try:
                async with self._pool.connection() as connection:
                    row = await (await connection.execute(query, parameters)).fetchone()
            except PoolTimeout:
                break
            except ServerUnresponsive:
                await self._pool.drain()  # its like are silent too, and to ask each would take as long again
                break
            except psycopg.OperationalError:
                if not (again and connection.closed):
                    break
                await self._pool.check()
            else:
                assert row is not None
                return str(row[0])
        raise database_unavailable()


class PositionWaiter:
    """How far the read models are, as the projector tells it; whoever waits for a position is woken.

    One connection listens, and is made again when it is lost.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()
        self._interval = PollInterval(POLL_INTERVAL_SECONDS)
        self._next_look: asyncio.Timeout | None = None
        self.position = 0

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen_always(), name="visible")

    async def stop(self) -> None:
        await cancel_and_wait(self._task)

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109 - the answer says whether it was reached
        """Whether the read models have reached `position` within `timeout` seconds."""
        if self.position >= position:
            return True
        self._look_soon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(lambda: self.position >= position)
        return self.position >= position

    async def _listen_always(self) -> None:
        await reconnect_always(self._listen, warning="cannot hear the projector")

    async def _listen(self) -> None:
        async with await READ_POSITION.connect_async(self._url) as connection:
            await connection.execute(f"listen {PROJECTED}".encode())
            while True:
                cursor = await connection.execute("select position from checkpoint where projection = 'main'")
                row = await cursor.fetchone()
                await self._reached(row[0] if row else 0)
                await self._hear(connection)

    async def _hear(self, connection: psycopg.AsyncConnection) -> None:
        """Until it is time to look."""
        seconds = self._interval.take()
        try:
            async with asyncio.timeout(seconds) as self._next_look:
                async for heard in connection.notifies(timeout=seconds):
                    await self._reached(int(heard.payload))
        except TimeoutError:
            pass
        finally:
            self._next_look = None

    def _look_soon(self) -> None:
        """Somebody waits: look within LOOK_AGAIN seconds, though nothing happened for long."""
        self._interval.shorten()
        soon = asyncio.get_running_loop().time() + POLL_INTERVAL_SECONDS
        look = self._next_look
        if look is not None and not look.expired() and (look.when() or soon) > soon:
            look.reschedule(soon)

    async def _reached(self, position: int) -> None:
        if position > self.position:
            self._interval.shorten()
            async with self._moved:
                self.position = position
                self._moved.notify_all()
