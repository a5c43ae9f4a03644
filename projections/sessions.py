"""Sign-ins: who a token speaks for, and whether it still does."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.access import Role
from domain.session import RefreshReuseDetected, SessionRevoked, SessionStarted
from domain.user import Status
from projections.reading import Reads
from projections.tables import Happened, Look, Table, own


class Session(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    user_id: UUID
    started_at: datetime
    revoked: bool


def fold(_: UUID, row: Session | None, happened: Happened, __: Look) -> Session | None:
    match happened.event:
        case SessionStarted() as event:
            return Session(id=event.originator_id, user_id=event.user_id, started_at=event.at, revoked=False)
        case SessionRevoked() if row is not None:
            return msgspec.structs.replace(row, revoked=True)
        case _:
            return row


TABLE = Table("sessions", Session, own(SessionStarted, SessionRevoked, RefreshReuseDetected), fold)

IDENTITY = """select s.id as session_id, u.id as user_id, u.role, u.status, s.started_at,
    not s.revoked and u.status = 'active' and not u.deleted as active
  from sessions s join users u on u.id = s.user_id where s.id = %(id)s"""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a session speaks for; `active`: the session is not revoked, and its user may act."""

    session_id: UUID
    user_id: UUID
    role: Role
    status: Status
    started_at: datetime
    active: bool


async def identity(db: Reads, *, session_id: UUID) -> Identity | None:
    """Who this is: asked before there is an actor to ask as."""
    found = await db.rows(IDENTITY, {"id": session_id}, into=Identity)
    return found[0] if found else None
