"""The read model of invitations."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor, Role, require_role
from domain.invitation import InvitationAccepted, InvitationRepeated, InvitationWithdrawn, UserInvited
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, only_row, page_of, page_size, parse_cursor


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

GET = "select * from invitations where id = %(id)s"
LISTED = """select * from invitations
  where (%(status)s::text is null or status = %(status)s::text)
    and (%(at)s::timestamptz is null or (invited_at, id) < (%(at)s::timestamptz, %(after)s::uuid))
  order by invited_at desc, id desc limit %(maximum)s"""


async def get(db: QueryDatabase, actor: Actor, invitation_id: UUID) -> InvitationRow:
    """Raises NotFound, and Forbidden unless `actor` is an administrator."""
    require_role(actor, Role.ADMIN)
    return await only_row(db, GET, {"id": invitation_id}, into=InvitationRow, what="Invitation")


async def listed(
    db: QueryDatabase, actor: Actor, *, status: InvitationStatus | None = None, cursor: str | None = None, size: int = MAX_PAGE
) -> Page[InvitationRow]:
    """A page of invitations, newest first. Raises Forbidden unless `actor` is an administrator."""
    require_role(actor, Role.ADMIN)
    after, maximum = parse_cursor(cursor), page_size(size)
    parameters = {"status": status, "at": after.value, "after": after.id, "maximum": maximum + 1}
    found = await db.rows(LISTED, parameters, into=InvitationRow)
    return page_of(found, maximum, lambda invitation: invitation.invited_at)
