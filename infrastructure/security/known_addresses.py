"""From where each account signed in lately, in Postgres: Redis may forget, and then guessers elsewhere could lock everybody out."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from domain.errors import Unavailable
from infrastructure.postgres.connections import POOL_RECONNECT_SECONDS, MonitoredConnection
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import Keys

MAX_CONNECTIONS: Final = 2
CONNECTION_OPTIONS: Final = "-c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s"

KNOWS: Final = """select exists (
  select from ops.known_addresses where digest = any(%(forms)s) and seen_at > now() - make_interval(days => %(days)s))"""
REMEMBER: Final = """with pruned as (
    delete from ops.known_addresses where digest in (
      select digest from ops.known_addresses where seen_at <= now() - make_interval(days => %(days)s) and digest <> %(digest)s
        limit 100 for update skip locked))
  insert into ops.known_addresses (digest, user_id) values (%(digest)s, %(user)s)
  on conflict (digest) do update set seen_at = excluded.seen_at"""


class PostgresKnownAddresses:
    """The port `KnownAddresses`. Blocks; may be shared by threads. By the database's clock, which all processes share."""

    def __init__(self, url: str, keys: Keys, *, days: int) -> None:
        self._digest, self._days = KeyedDigest(keys, Purpose.RATE_LIMITS), days
        self._pool: ConnectionPool[psycopg.Connection] = ConnectionPool(
            url,
            connection_class=MonitoredConnection,
            min_size=0,
            max_size=MAX_CONNECTIONS,
            timeout=2,
            reconnect_timeout=POOL_RECONNECT_SECONDS,
            open=False,
            num_workers=1,
            kwargs={"autocommit": True, "options": CONNECTION_OPTIONS},
            check=ConnectionPool.check_connection,
        )
        self._pool.open()

    def close(self) -> None:
        self._pool.close()

    def knows(self, user: UUID, network: str) -> bool:
        forms = list(self._digest.forms(_value(user, network)))
        ((known,),) = self._rows(KNOWS, {"forms": forms, "days": self._days})
        return bool(known)

    def remember(self, user: UUID, network: str) -> None:
        digest = self._digest.of(_value(user, network))
        try:
            self._rows(REMEMBER, {"digest": digest, "user": user, "days": self._days})
        except psycopg.errors.ForeignKeyViolation:
            return  # the account was closed this moment, and the sign-in will be refused

    def _rows(self, statement: str, named: Mapping[str, object]) -> list[tuple[Any, ...]]:
        try:
            with self._pool.connection() as connection:
                cursor = connection.execute(statement.encode(), named, prepare=True)
                return cursor.fetchall() if cursor.description else []
        except (psycopg.OperationalError, PoolTimeout):
            raise Unavailable("The database is away; try again", retry_after=2) from None


def _value(user: UUID, network: str) -> bytes:
    return b"known address\n" + user.bytes + network.encode(errors="surrogatepass")
