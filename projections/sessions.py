"""The read model of sessions. Addresses and agents, which are private, stay in the log."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.session import RefreshReuseDetected, SessionRevoked, SessionStarted
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    user_id: UUID
    started_at: datetime
    ended_at: datetime | None
    reason: str | None


def fold(_: UUID, row: SessionRow | None, positioned: PositionedEvent, __: RowLookup) -> SessionRow | None:
    event = positioned.event
    match event, row:
        case SessionStarted(), _:
            return SessionRow(
                id=event.originator_id,
                version=event.originator_version,
                user_id=event.user_id,
                started_at=event.at,
                ended_at=None,
                reason=None,
            )
        case SessionRevoked(), SessionRow():
            return msgspec.structs.replace(row, version=event.originator_version, ended_at=event.at, reason=event.reason.value)
        case _, SessionRow():
            return msgspec.structs.replace(row, version=event.originator_version)
        case _:
            return row


TABLE = Table("sessions", SessionRow, (SessionStarted, SessionRevoked, RefreshReuseDetected), stream_key, fold)
