"""Connections that detect a hanging server or a lost network, where plain connections would wait forever."""

import time
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple, Self

import psycopg
from psycopg import AsyncConnection, Connection, Notify, generators
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn

KEEPALIVE_OPTIONS: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 7000,
}
SERVER_KEEPALIVE: Final = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
"""Makes the server end sessions of vanished clients."""


class LivenessLimits(NamedTuple):
    """The time limits after which a server counts as unresponsive.

    A statement must be answered within `answer_seconds`, which is longer than the server's own limits. A connection that was idle for
    `idle_seconds` is probed before use, and a listening one every `listen_seconds`. A probe must be answered within `probe_seconds`.
    """

    answer_seconds: float = 7.0
    idle_seconds: float = 2.0
    probe_seconds: float = 1.5
    listen_seconds: float = 3.0


DEFAULT_LIMITS: Final = LivenessLimits()


class ServerUnresponsive(psycopg.OperationalError):
    """The server did not answer in time; the connection is closed."""


class MonitoredConnection(Connection[Any]):
    """A connection that raises ServerUnresponsive instead of waiting forever."""

    liveness = DEFAULT_LIMITS
    answered_at: float = 0.0
    """Time of the server's last answer (monotonic clock); 0 before the first statement."""

    @classmethod
    def connect(cls, conninfo: str = "", **arguments: Any) -> Self:
        """Connect with psycopg's arguments and `liveness`, the LivenessLimits."""
        liveness = arguments.pop("liveness", DEFAULT_LIMITS)
        connection = super().connect(conninfo, **_with_keepalive(arguments))
        connection.liveness = liveness
        return connection

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is None and self._is_idle():
            self._wait_for_answer(_probe(self.pgconn), interval, self.liveness.probe_seconds)
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        return self._wait_for_answer(gen, interval, self.liveness.answer_seconds)

    def _wait_for_answer(self, gen: Any, interval: float, within: float) -> Any:
        try:
            answer = super().wait(gen, interval, within)
        except _WaitTimeout:
            self.close()
            raise _unresponsive() from None
        self.answered_at = time.monotonic()
        return answer

    def _is_idle(self) -> bool:
        return _is_idle(self.pgconn, self.answered_at, self.liveness)


class MonitoredAsyncConnection(AsyncConnection[Any]):
    """As MonitoredConnection, for coroutines."""

    liveness = DEFAULT_LIMITS
    answered_at: float = 0.0

    @classmethod
    async def connect(cls, conninfo: str = "", **arguments: Any) -> Self:
        """Connect with psycopg's arguments and `liveness`, the LivenessLimits."""
        liveness = arguments.pop("liveness", DEFAULT_LIMITS)
        connection = await super().connect(conninfo, **_with_keepalive(arguments))
        connection.liveness = liveness
        return connection

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's
        if timeout is None and self._is_idle():
            await self._wait_for_answer(_probe(self.pgconn), interval, self.liveness.probe_seconds)
        if timeout is not None:
            return await super().wait(gen, max(interval, timeout), timeout)
        return await self._wait_for_answer(gen, interval, self.liveness.answer_seconds)

    async def _wait_for_answer(self, gen: Any, interval: float, within: float) -> Any:
        try:
            answer = await super().wait(gen, interval, within)
        except _WaitTimeout:
            await self.close()
            raise _unresponsive() from None
        self.answered_at = time.monotonic()
        return answer

    def _is_idle(self) -> bool:
        return _is_idle(self.pgconn, self.answered_at, self.liveness)


async def notifications(connection: MonitoredAsyncConnection) -> AsyncIterator[Notify]:
    """Yield notifications without end. Probes the server when there are none, and raises ServerUnresponsive if it does not answer."""
    while True:
        async for notification in connection.notifies(timeout=connection.liveness.listen_seconds):
            yield notification
        await connection.execute("select 1")


def _is_idle(pgconn: PGconn, answered_at: float, limits: LivenessLimits) -> bool:
    """Whether nothing is in progress, and the server's last answer is older than `idle_seconds`."""
    return (
        0.0 < answered_at < time.monotonic() - limits.idle_seconds
        and pgconn.transaction_status == TransactionStatus.IDLE
        and pgconn.pipeline_status == PipelineStatus.OFF
    )


def _probe(pgconn: PGconn) -> PQGen[Any]:
    pgconn.send_query(b"select 1")
    return (yield from generators.execute(pgconn))


def _with_keepalive(arguments: dict[str, Any]) -> dict[str, Any]:
    return KEEPALIVE_OPTIONS | arguments | {"options": f"{arguments.get('options', '')} {SERVER_KEEPALIVE}"}


def _unresponsive() -> ServerUnresponsive:
    return ServerUnresponsive("the database does not answer")
