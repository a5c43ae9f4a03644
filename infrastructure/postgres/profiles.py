"""Connection profiles: the connection arguments and server limits of each use of the database."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from infrastructure.postgres.connections import DEFAULT_LIMITS, LivenessLimits, MonitoredAsyncConnection, MonitoredConnection

POOL_TIMEOUT_SECONDS: Final = 2.0
"""Maximum wait for a connection of a pool."""
POOL_RECONNECT_SECONDS: Final = 2.0
"""Time during which a pool retries a lost connection, with growing delays. After that the next caller reconnects at once."""

NO_ARGUMENTS: Final[Mapping[str, Any]] = {}
LIVENESS: Final = DEFAULT_LIMITS


class Profile(NamedTuple):
    """The server settings of a session, and the driver's connection arguments."""

    settings: Mapping[str, str]
    arguments: Mapping[str, Any] = NO_ARGUMENTS

    @property
    def options(self) -> str:
        """The settings as libpq options."""
        return " ".join(f"-c {name}={value}" for name, value in self.settings.items())

    def having(self, **settings: str) -> "Profile":
        """This profile with changed or additional settings."""
        return self._replace(settings={**self.settings, **settings})

    def connect(self, url: str, *, liveness: LivenessLimits = LIVENESS) -> MonitoredConnection:
        """Open a monitored connection. Raises psycopg.Error."""
        return MonitoredConnection.connect(url, liveness=liveness, **self._arguments())

    async def connect_async(self, url: str, *, liveness: LivenessLimits = LIVENESS) -> MonitoredAsyncConnection:
        """As `connect`, for coroutines."""
        return await MonitoredAsyncConnection.connect(url, liveness=liveness, **self._arguments())

    def connect_unmonitored(self, url: str, *, autocommit: bool = True) -> psycopg.Connection:
        """Open a connection without time limits, for long statements. Raises psycopg.Error."""
        return psycopg.connect(url, **self._arguments() | {"autocommit": autocommit})

    def pool(
        self, url: str, *, min_size: int, max_size: int, liveness: LivenessLimits = LIVENESS, **arguments: Any
    ) -> "ConnectionPool[Connection[Any]]":
        """An unopened pool of monitored connections. `arguments` are passed to ConnectionPool."""
        return ConnectionPool(
            url,
            connection_class=MonitoredConnection,
            min_size=min_size,
            max_size=max_size,
            timeout=POOL_TIMEOUT_SECONDS,
            reconnect_timeout=POOL_RECONNECT_SECONDS,
            open=False,
            kwargs=self._arguments() | {"liveness": liveness},
            **arguments,
        )

    def async_pool(
        self, url: str, *, min_size: int, max_size: int, liveness: LivenessLimits = LIVENESS
    ) -> "AsyncConnectionPool[AsyncConnection[Any]]":
        """As `pool`, for coroutines."""
        return AsyncConnectionPool(
            url,
            connection_class=MonitoredAsyncConnection,
            min_size=min_size,
            max_size=max_size,
            timeout=POOL_TIMEOUT_SECONDS,
            reconnect_timeout=POOL_RECONNECT_SECONDS,
            open=False,
            kwargs=self._arguments() | {"liveness": liveness},
        )

    def _arguments(self) -> dict[str, Any]:
        """The driver's arguments. A profile without settings keeps the options of the URL."""
        return {"autocommit": True} | ({"options": self.options} if self.settings else {}) | dict(self.arguments)


SENDS_WAKE_UPS: Final = {"bioscope.wakes": "after_commit"}
"""For sessions that append or project: their process sends the wake-ups. For others the database does (migration 0016)."""
ENDS_UNUSED: Final = {"idle_session_timeout": "8s"}
"""For sessions that hold a lock and are used every few seconds: the server ends them if their process hangs."""

COMMANDS: Final = Profile(
    {"statement_timeout": "5s", "lock_timeout": "2s", "idle_in_transaction_session_timeout": "10s", "timezone": "UTC"}
)
"""Short statements of commands: reads of the log, tokens, known addresses."""
GROUP_COMMIT: Final = COMMANDS.having(**SENDS_WAKE_UPS)
QUERIES: Final = Profile(
    {
        "search_path": "read",
        "statement_timeout": "5s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "10s",
        "default_transaction_read_only": "on",
        "plan_cache_mode": "force_custom_plan",
        "timezone": "UTC",
        "jit": "off",
    }
)
READ_POSITION: Final = Profile({"search_path": "read"})
LISTENER: Final = Profile({})
WAKE_UPS: Final = Profile({"synchronous_commit": "off", "statement_timeout": "2s", "lock_timeout": "1s"})
RELAY: Final = Profile({"synchronous_commit": "off", "statement_timeout": "5s", "lock_timeout": "4s", "timezone": "UTC"})
RELAY_LEADER: Final = RELAY.having(**ENDS_UNUSED)
WORKER: Final = Profile({"statement_timeout": "5s", "timezone": "UTC"})
READ_MODELS: Final = Profile(
    {
        "search_path": "read",
        "lock_timeout": "5s",
        "statement_timeout": "6s",
        "idle_in_transaction_session_timeout": "5s",
        "timezone": "UTC",
        "synchronous_commit": "off",  # a crash may undo the newest batches and their checkpoint; they are applied again
        **SENDS_WAKE_UPS,
    },
    {"connect_timeout": 3, "prepare_threshold": 2, "application_name": "bioscope projector"},
)
POLICIES: Final = READ_MODELS.having(plan_cache_mode="force_custom_plan", enable_seqscan="off", enable_bitmapscan="off")
"""Reads many results, batch by batch in the order of an index, also while the planner's statistics are outdated."""
MAILER: Final = COMMANDS.having(idle_session_timeout="150s")
"""Holds the lead of the mailer, also while a mail is sent, which takes 60 s at most."""
SCHEDULER: Final = READ_MODELS.having(**ENDS_UNUSED)
OWNER: Final = Profile({"timezone": "UTC"})
"""Long statements of the database owner: backups and rebuilds."""
MIGRATIONS: Final = Profile({}, {"connect_timeout": 5})
READINESS: Final = Profile({}, {"connect_timeout": 2})
"""The supervisor's probe of the embedded server."""
DIAGNOSIS: Final = Profile({"statement_timeout": "3s"}, {"connect_timeout": 3})
