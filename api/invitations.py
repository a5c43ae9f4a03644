"""Invitation routes, for administrators."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from api.query_parameters import MIN_POSITION, only_known_parameters
from api.registration_modes import NOBODY_CAN_ACCEPT, require_invitations
from api.request import PageSize, RequestContext, from_row
from api.sessions import EmailAddress
from application import invitations
from domain.access import Role
from domain.links import LIFETIMES, LinkPurpose
from projections import invitations as read_model
from projections.invitations import InvitationStatus


class Invite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person to invite."""

    email: EmailAddress
    role: Role = Role.VIEWER


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation. Its link works until `expires_at`; sending it again makes a new link."""

    id: UUID
    email: str | None
    role: Role
    status: InvitationStatus
    invited_by: UUID
    invited_at: datetime
    sent_at: datetime
    expires_at: datetime
    user_id: UUID | None


def view(row: read_model.InvitationRow) -> Invitation:
    return from_row(row, Invitation, expires_at=row.sent_at + LIFETIMES[LinkPurpose.ACCEPT_INVITATION])


class Invitations(Controller):
    path = "/api/invitations"
    tags = ("invitations",)

    @get("/", guards=[only_known_parameters(MIN_POSITION)], operation_id="invitationsListed", summary="List invitations")
    async def list_invitations(
        self,
        context: NamedDependency[RequestContext],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
        status: FromQuery[InvitationStatus | None] = None,
    ) -> Response[list[Invitation]]:
        """All invitations, newest first, also accepted and withdrawn ones. For administrators."""
        return context.page(await context.read(read_model.listed, status=status, cursor=cursor, size=page_size), view)

    @post("/", summary="Invite a person")
    async def invite(self, context: NamedDependency[RequestContext], data: JSONBody[Invite]) -> Response[Invitation]:
        """Send a person a mail with a link to create an account with this role. The link works for 7 days. For administrators."""
        require_invitations(context, refusal=NOBODY_CAN_ACCEPT)
        result = await context.execute(invitations.invite, email=data.email, role=data.role)
        return context.created(view(await context.read(read_model.get, result.id)), result)

    @post("/{invitation_id:uuid}/resend", status_code=200, summary="Send an invitation again")
    async def resend(self, context: NamedDependency[RequestContext], invitation_id: FromPath[UUID]) -> Response[Invitation]:
        """Send an open invitation again, with a new link. Earlier links stop working. For administrators."""
        require_invitations(context, refusal=NOBODY_CAN_ACCEPT)
        result = await context.execute(invitations.repeat, invitation_id)
        return context.changed(view(await context.read(read_model.get, invitation_id)), result)

    @delete("/{invitation_id:uuid}", status_code=204, summary="Withdraw an invitation")
    async def withdraw(self, context: NamedDependency[RequestContext], invitation_id: FromPath[UUID]) -> Response[None]:
        """End an open invitation. Its link no longer works, and the address is erased. For administrators."""
        return context.no_content(await context.execute(invitations.withdraw, invitation_id, expected=context.expected_version))
