"""When devices were last seen, in Postgres: one row a device, however often it gives a sign of life."""

from datetime import datetime
from typing import Final
from uuid import UUID

from infrastructure.eventstore.recorder import PostgresRecorder

RECORD: Final = """insert into ops.devices_seen (device, seen_at) values (%s, clock_timestamp())
  on conflict (device) do update set seen_at = excluded.seen_at returning true"""
OF: Final = "select seen_at from ops.devices_seen where device = %s"
FORGET: Final = "delete from ops.devices_seen where device = %s returning true"


class PostgresLastSeen:
    """The port `LastSeen`, over the connections of the event store."""

    def __init__(self, recorder: PostgresRecorder) -> None:
        self._rows = recorder.rows

    def record(self, device: UUID) -> None:
        self._rows(RECORD, device)

    def of(self, device: UUID) -> datetime | None:
        return next((seen_at for (seen_at,) in self._rows(OF, device)), None)

    def forget(self, device: UUID) -> None:
        self._rows(FORGET, device)
