"""Connections that notice silence: of a server that hangs, or of a line that died and nobody was told. Others would wait for ever."""

import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final, Self

import psycopg
from psycopg import AsyncConnection, Connection, Notify, generators
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn

SILENCE_TIMEOUT_SECONDS: Final = 7.0  # seconds; more than a statement may take on the server
CHECK_AFTER_SECONDS: Final = 2.0  # seconds after which a connection is asked for a sign of life, before what is wanted of it
CHECK_TIMEOUT_SECONDS: Final = 1.5  # seconds that the sign may take
LISTEN_CHECK_INTERVAL_SECONDS: Final = 3.0  # seconds after which a listening connection asks whether anybody is there
POOL_RECONNECT_SECONDS: Final = (
    2.0  # seconds that a pool tries a connection by itself: later tries come ever seldomer, and who needs one tries at once
)
KEEPALIVE_OPTIONS: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 7000,
}
MISSED: Final = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"  # the server ends what we left without a word
)
UNACKNOWLEDGED_TIMEOUT_MS: Final = (
    "-c idle_session_timeout=8s"  # for what holds a lock and asks every few seconds: the server ends it when it does not
)


class ServerUnresponsive(psycopg.OperationalError):
    """The server said nothing for too long; the connection is closed."""


class MonitoredConnection(Connection[Any]):
    """Raises Silent where another would wait for ever: after `silent` seconds, or sooner when it lay idle."""

    silent: ClassVar[float] = SILENCE_TIMEOUT_SECONDS
    heard: float = 0.0  # when something came last, on the monotonic clock; 0: nothing was asked yet

    @classmethod
    def connect(cls, conninfo: str = "", **given: Any) -> Self:
        return super().connect(conninfo, **_with_keepalive(given))

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is None and _is_idle(self.pgconn, self.heard):
            self._answer(_check_liveness(self.pgconn), interval, CHECK_TIMEOUT_SECONDS)
        return self._answer(gen, interval, self.silent) if timeout is None else super().wait(gen, interval, timeout)

    def _answer(self, gen: Any, interval: float, within: float) -> Any:
        try:
            answer = super().wait(gen, interval, within)
        except _WaitTimeout:
            self.close()
            raise _unresponsive() from None
        self.heard = time.monotonic()
        return answer


class MonitoredAsyncConnection(AsyncConnection[Any]):
    """The same for coroutines."""

    silent: ClassVar[float] = SILENCE_TIMEOUT_SECONDS
    heard: float = 0.0

    @classmethod
    async def connect(cls, conninfo: str = "", **given: Any) -> Self:
        return await super().connect(conninfo, **_with_keepalive(given))

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's
        if timeout is None and _is_idle(self.pgconn, self.heard):
            await self._answer(_check_liveness(self.pgconn), interval, CHECK_TIMEOUT_SECONDS)
        return await (self._answer(gen, interval, self.silent) if timeout is None else super().wait(gen, max(interval, timeout), timeout))

    async def _answer(self, gen: Any, interval: float, within: float) -> Any:
        try:
            answer = await super().wait(gen, interval, within)
        except _WaitTimeout:
            await self.close()
            raise _unresponsive() from None
        self.heard = time.monotonic()
        return answer


async def notifications(connection: AsyncConnection[Any]) -> AsyncIterator[Notify]:
    """For ever. After a quiet while the server is asked for a sign of life; raises Silent when there is none."""
    while True:
        async for notification in connection.notifies(timeout=LISTEN_CHECK_INTERVAL_SECONDS):
            yield notification
        await connection.execute("select 1")


def _is_idle(pgconn: PGconn, heard: float) -> bool:
    """Whether nothing was heard for a while, and nothing is under way."""
    return (
        0.0 < heard < time.monotonic() - CHECK_AFTER_SECONDS
        and pgconn.transaction_status == TransactionStatus.IDLE
        and pgconn.pipeline_status == PipelineStatus.OFF
    )


def _check_liveness(pgconn: PGconn) -> PQGen[Any]:
    pgconn.send_query(b"select 1")
    return (yield from generators.execute(pgconn))


def _with_keepalive(given: dict[str, Any]) -> dict[str, Any]:
    return KEEPALIVE_OPTIONS | given | {"options": f"{given.get('options', '')} {MISSED}"}


def _unresponsive() -> ServerUnresponsive:
    return ServerUnresponsive("the database says nothing any more")
