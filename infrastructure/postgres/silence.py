"""Connections that notice silence: of a server that hangs, or of a line that died and nobody was told. Others would wait for ever."""

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final, Self

import psycopg
from psycopg import AsyncConnection, Connection, Notify
from psycopg.errors import _WaitTimeout

SILENT: Final = 7.0  # seconds; more than a statement may take on the server
QUIET: Final = 3.0  # seconds after which a listening connection asks whether anybody is there
KEPT_ALIVE: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 7000,
}
MISSED: Final = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"  # the server ends what we left without a word
)
UNHEARD: Final = "-c idle_session_timeout=12s"  # for what holds a lock and asks every few seconds: the server ends it when it does not


class Silent(psycopg.OperationalError):
    """The server said nothing for too long; the connection is closed."""


class Attentive(Connection[Any]):
    """Raises Silent where another would wait for ever."""

    silent: ClassVar[float] = SILENT

    @classmethod
    def connect(cls, conninfo: str = "", **given: Any) -> Self:
        return super().connect(conninfo, **_kept_alive(given))

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.silent)
        except _WaitTimeout:
            self.close()
            raise _silent() from None


class AttentiveAsync(AsyncConnection[Any]):
    """The same for coroutines."""

    silent: ClassVar[float] = SILENT

    @classmethod
    async def connect(cls, conninfo: str = "", **given: Any) -> Self:
        return await super().connect(conninfo, **_kept_alive(given))

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, self.silent)
        except _WaitTimeout:
            await self.close()
            raise _silent() from None


async def notifications(connection: AsyncConnection[Any]) -> AsyncIterator[Notify]:
    """For ever. After a quiet while the server is asked for a sign of life; raises Silent when there is none."""
    while True:
        async for notification in connection.notifies(timeout=QUIET):
            yield notification
        await connection.execute("select 1")


def _kept_alive(given: dict[str, Any]) -> dict[str, Any]:
    return KEPT_ALIVE | given | {"options": f"{given.get('options', '')} {MISSED}"}


def _silent() -> Silent:
    return Silent("the database says nothing any more")
