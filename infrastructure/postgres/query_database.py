"""Queries of the read models, and the position that they have reached."""

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

POLL_INTERVAL_SECONDS = 1.0
"""Interval at which the position is polled while a caller waits, since a wake-up may be lost."""
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
    """Implements `QueryDatabase`. Postgres returns the rows as one JSON text, which is decoded directly into Structs."""

    def __init__(self, url: str, *, size: int = 8, liveness: LivenessLimits = LIVENESS) -> None:
        self._pool = QUERIES.async_pool(url, min_size=1, max_size=size, liveness=liveness)

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def rows(self, query: str, parameters: Mapping[str, object], *, into: type[T]) -> list[T]:
        """The rows of `query`, in order, as `into`. Raises Unavailable, and Invalid for a parameter that Postgres cannot represent."""
        try:
            return _decoder(into).decode(await self._text(_as_json(query), parameters))
        except psycopg.DataError as error:
            log.info("query parameter refused by Postgres", error=type(error).__name__)
            raise Invalid("A value in the query is out of range or contains a NUL character") from None

    async def _text(self, query: bytes, parameters: Mapping[str, object]) -> str:
        """Run the query; retry once after a lost idle connection. Checking each connection before use would cost more than most queries."""
        for may_retry in (True, False):
            try:
                async with self._pool.connection() as connection:
                    row = await (await connection.execute(query, parameters)).fetchone()
            except PoolTimeout:
                break
            except ServerUnresponsive:
                await self._pool.drain()  # the other connections are probably lost too, and probing each would take as long
                break
            except psycopg.OperationalError:
                if not (may_retry and connection.closed):
                    break
                await self._pool.check()
            else:
                assert row is not None
                return str(row[0])
        raise database_unavailable()


class PositionWaiter:
    """Implements `ReadPosition`. One connection listens for the projector's notifications, and polls."""

    def __init__(self, url: str, *, poll_seconds: float = POLL_INTERVAL_SECONDS, interval: PollInterval | None = None) -> None:
        self._url, self._poll_seconds = url, poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._advanced = asyncio.Condition()
        self._interval = interval or PollInterval(poll_seconds)
        self._poll_timeout: asyncio.Timeout | None = None
        self.position = 0

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen_always(), name="visible")

    async def stop(self) -> None:
        await cancel_and_wait(self._task)

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109 - the answer says whether it was reached
        """Wait until the read models have reached `position`. False after `timeout` seconds."""
        if self.position >= position:
            return True
        self._poll_soon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._advanced:
                await self._advanced.wait_for(lambda: self.position >= position)
        return self.position >= position

    async def _listen_always(self) -> None:
        await reconnect_always(self._listen, warning="lost the projector's notifications")

    async def _listen(self) -> None:
        async with await READ_POSITION.connect_async(self._url) as connection:
            await connection.execute(f"listen {PROJECTED}".encode())
            while True:
                cursor = await connection.execute("select position from checkpoint where projection = 'main'")
                row = await cursor.fetchone()
                await self._advance_to(row[0] if row else 0)
                await self._wait_for_notifications(connection)

    async def _wait_for_notifications(self, connection: psycopg.AsyncConnection) -> None:
        """Handle notifications until the next poll is due."""
        seconds = self._interval.take()
        try:
            async with asyncio.timeout(seconds) as self._poll_timeout:
                async for notification in connection.notifies(timeout=seconds):
                    await self._advance_to(int(notification.payload))
        except TimeoutError:
            pass
        finally:
            self._poll_timeout = None

    def _poll_soon(self) -> None:
        """Shorten the poll interval, because a caller waits."""
        self._interval.shorten()
        soon = asyncio.get_running_loop().time() + self._poll_seconds
        poll = self._poll_timeout
        if poll is not None and not poll.expired() and (poll.when() or soon) > soon:
            poll.reschedule(soon)

    async def _advance_to(self, position: int) -> None:
        if position > self.position:
            self._interval.shorten()
            async with self._advanced:
                self.position = position
                self._advanced.notify_all()
