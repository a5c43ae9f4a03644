"""The read model of invitations."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from domain.access import Role
from domain.invitation import InvitationAccepted, InvitationRepeated, InvitationWithdrawn, UserInvited
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


class InvitationStatus(StrEnum):
    OPEN = "open"
    ACCEPTED = "accepted"
    WITHDRAWN = "withdrawn"


class InvitationRow(msgspec.Struct, frozen=True, kw_only=True):
    """`email` is None once the invitation was accepted or withdrawn. `sent_at` is when it was last sent."""

    id: UUID
    version: int
    email: str | None
    role: Role
    invited_by: UUID
    invited_at: datetime
    sent_at: datetime
    status: InvitationStatus
    user_id: UUID | None


def fold(_: UUID, row: InvitationRow | None, positioned: PositionedEvent, __: RowLookup) -> InvitationRow | None:
    event = positioned.event
    if row is not None:
        row = msgspec.structs.replace(row, version=event.originator_version)
    match event, row:
        case UserInvited(), _:
            return InvitationRow(
                id=event.originator_id,
                version=event.originator_version,
                email=event.email,
                role=event.role,
                invited_by=event.by,
                invited_at=event.at,
                sent_at=event.at,
                status=InvitationStatus.OPEN,
                user_id=None,
            )
        case InvitationRepeated(), InvitationRow():
            return msgspec.structs.replace(row, sent_at=event.at)
        case InvitationAccepted(), InvitationRow():
            return msgspec.structs.replace(row, email=None, status=InvitationStatus.ACCEPTED, user_id=event.user_id)
        case InvitationWithdrawn(), InvitationRow():
            return msgspec.structs.replace(row, email=None, status=InvitationStatus.WITHDRAWN)
        case _:
            return row


TABLE = Table("invitations", InvitationRow, (UserInvited, InvitationRepeated, InvitationAccepted, InvitationWithdrawn), stream_key, fold)
