"""The networks from which each account signed in recently. Stored in Postgres, since losing them would let attackers lock users out."""

from typing import Final
from uuid import UUID

import psycopg

from infrastructure.postgres.statement_pool import StatementPool
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import Keys

MAX_CONNECTIONS: Final = 2

IS_KNOWN: Final = """select exists (
  select from ops.known_addresses where digest = any(%(forms)s) and seen_at > now() - make_interval(days => %(days)s))"""
REMEMBER: Final = """with pruned as (
    delete from ops.known_addresses where digest in (
      select digest from ops.known_addresses where seen_at <= now() - make_interval(days => %(days)s) and digest <> %(digest)s
        limit 100 for update skip locked))
  insert into ops.known_addresses (digest, user_id) values (%(digest)s, %(user)s)
  on conflict (digest) do update set seen_at = excluded.seen_at"""


class PostgresKnownAddresses:
    """Implements `KnownAddresses`. Thread-safe. Times come from the database clock, which all processes share."""

    def __init__(self, url: str, keys: Keys, *, days: int) -> None:
        self._digest, self._days = KeyedDigest(keys, Purpose.RATE_LIMITS), days
        self._pool = StatementPool(url, max_size=MAX_CONNECTIONS)

    def close(self) -> None:
        self._pool.close()

    def knows(self, user: UUID, network: str) -> bool:
        forms = list(self._digest.forms(_value(user, network)))
        ((is_known,),) = self._pool.rows(IS_KNOWN, {"forms": forms, "days": self._days})
        return bool(is_known)

    def remember(self, user: UUID, network: str) -> None:
        digest = self._digest.of(_value(user, network))
        try:
            self._pool.rows(REMEMBER, {"digest": digest, "user": user, "days": self._days})
        except psycopg.errors.ForeignKeyViolation:
            return  # the account was just closed, and the sign-in will be refused


def _value(user: UUID, network: str) -> bytes:
    return b"known address\n" + user.bytes + network.encode(errors="surrogatepass")
