"""The read model of sessions. Authentication reads the log, not this table."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.session import RefreshReuseDetected, SessionRevoked, SessionStarted
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


class Session(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    user_id: UUID
    started_at: datetime
    revoked: bool


def fold(_: UUID, row: Session | None, positioned: PositionedEvent, __: RowLookup) -> Session | None:
    match positioned.event:
        case SessionStarted() as event:
            return Session(id=event.originator_id, user_id=event.user_id, started_at=event.at, revoked=False)
        case SessionRevoked() if row is not None:
            return msgspec.structs.replace(row, revoked=True)
        case _:
            return row


TABLE = Table("sessions", Session, (SessionStarted, SessionRevoked, RefreshReuseDetected), stream_key, fold)
