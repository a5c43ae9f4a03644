"""The uses of API keys in Postgres, one row per key."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from application.ports import KeyUse

COLUMNS: Final = "key, first_at, last_at, network, legacy_name, legacy_expiry"
RECORD: Final = """insert into ops.key_uses (key, user_id, network) values (%s, %s, %s)
  on conflict (key) do update set last_at = clock_timestamp(), network = excluded.network returning true"""
RECORD_LEGACY: Final = """insert into ops.key_uses (key, network, legacy_name, legacy_expiry) values (%s, %s, %s, %s)
  on conflict (key) do update set last_at = clock_timestamp(), network = excluded.network returning true"""
OF: Final = f"select {COLUMNS} from ops.key_uses where key = any(%s)"  # noqa: S608 - constants
LEGACY: Final = f"select {COLUMNS} from ops.key_uses where legacy_name is not null order by first_at, key limit 1000"  # noqa: S608


class PostgresKeyUses:
    """Implements `KeyUses`. `rows` runs a statement, like that of `PostgresRecorder`."""

    def __init__(self, rows: Callable[..., list[tuple[Any, ...]]]) -> None:
        self._rows = rows

    def record(self, key: UUID, *, network: str, user: UUID | None) -> None:
        try:
            self._rows(RECORD, key, user, network)
        except psycopg.errors.ForeignKeyViolation:
            return  # the account was just closed, and the key will be refused

    def record_legacy(self, token: UUID, *, name: str, expires_at: datetime, network: str) -> None:
        self._rows(RECORD_LEGACY, token, network, name, expires_at)

    def of(self, keys: Collection[UUID]) -> dict[UUID, KeyUse]:
        return {use.key: use for use in map(_use, self._rows(OF, list(keys)))}

    def legacy(self) -> list[KeyUse]:
        return [_use(row) for row in self._rows(LEGACY)]


def _use(row: tuple[Any, ...]) -> KeyUse:
    key, first_at, last_at, network, name, expiry = row
    return KeyUse(key=key, first_at=first_at, last_at=last_at, network=network, legacy_name=name, legacy_expiry=expiry)
