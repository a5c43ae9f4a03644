"""The times of the devices' last status reports in Postgres, one row per device."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

RECORD: Final = """insert into ops.devices_seen (device, seen_at) values (%s, clock_timestamp())
  on conflict (device) do update set seen_at = excluded.seen_at returning true"""
OF: Final = "select seen_at from ops.devices_seen where device = %s"
FORGET: Final = "delete from ops.devices_seen where device = %s returning true"


class PostgresLastSeen:
    """Implements `LastSeen`. `rows` runs a statement, like that of `PostgresRecorder`."""

    def __init__(self, rows: Callable[..., list[tuple[Any, ...]]]) -> None:
        self._rows = rows

    def record(self, device: UUID) -> None:
        self._rows(RECORD, device)

    def of(self, device: UUID) -> datetime | None:
        return next((seen_at for (seen_at,) in self._rows(OF, device)), None)

    def forget(self, device: UUID) -> None:
        self._rows(FORGET, device)
