"""An invitation: an administrator's offer of an account with a role, sent to an e-mail address."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.access import Role
from domain.email_address import new_address
from domain.errors import Conflict, InvalidLink
from domain.events import Event, PrivateText, State, new_stream, next_event
from domain.links import LinkPurpose, OpenLink, require_open


class UserInvited(Event, frozen=True, kw_only=True):
    """`request_id` is that of the link in the mail."""

    email: PrivateText
    role: Role
    request_id: UUID


class InvitationRepeated(Event, frozen=True, kw_only=True):
    """The invitation was sent again. Its link replaces the earlier ones."""

    request_id: UUID


class InvitationAccepted(Event, frozen=True, kw_only=True):
    """The account `user_id` exists. The address can no longer be read here; the account has it."""

    user_id: UUID


class InvitationWithdrawn(Event, frozen=True, kw_only=True):
    """The link no longer works. The address can no longer be read."""


CLOSING = (InvitationAccepted, InvitationWithdrawn)


class Invitation(State, frozen=True, kw_only=True):
    """`sent_by` is who sent it last."""

    email: str
    role: Role
    invited_by: UUID
    sent_by: UUID
    invited_at: datetime
    link: OpenLink
    user_id: UUID | None = None
    withdrawn: bool = False

    @property
    def is_open(self) -> bool:
        """Not accepted and not withdrawn. Its link may have expired; it can be sent again."""
        return self.user_id is None and not self.withdrawn


def invite(invitation: UUID, *, email: str, role: Role, request_id: UUID, by: UUID, at: datetime) -> UserInvited:
    """Raises Invalid for an invalid address."""
    return UserInvited(**new_stream(invitation, by=by, at=at), email=new_address(email), role=role, request_id=request_id)


def repeat(invitation: Invitation, *, request_id: UUID, by: UUID, at: datetime) -> InvitationRepeated:
    """Raises Conflict for an invitation that is accepted or withdrawn."""
    if not invitation.is_open:
        raise Conflict("The invitation was accepted or withdrawn; invite the person again")
    return InvitationRepeated(**next_event(invitation, by=by, at=at), request_id=request_id)


def accept(invitation: Invitation, *, request_id: UUID, user: UUID, at: datetime) -> InvitationAccepted:
    """Raises InvalidLink."""
    if not invitation.is_open:
        raise InvalidLink
    require_open(invitation.link, request_id, at=at)
    return InvitationAccepted(**next_event(invitation, by=user, at=at), user_id=user)


def withdraw(invitation: Invitation, *, by: UUID, at: datetime) -> list[InvitationWithdrawn]:
    """No event if it is withdrawn already. Raises Conflict for an accepted one."""
    if invitation.user_id is not None:
        raise Conflict("The invitation was accepted; suspend or delete the account instead")
    return [] if invitation.withdrawn else [InvitationWithdrawn(**next_event(invitation, by=by, at=at))]


def evolve(invitation: Invitation | None, event: Event) -> Invitation | None:
    match event:
        case UserInvited():
            return Invitation(
                id=event.originator_id,
                version=event.originator_version,
                email=event.email,
                role=event.role,
                invited_by=event.by,
                sent_by=event.by,
                invited_at=event.at,
                link=_link(event.request_id, event.at),
            )
        case _ if invitation is None:
            return None
        case InvitationRepeated():
            link = _link(event.request_id, event.at)
            return msgspec.structs.replace(invitation, version=event.originator_version, link=link, sent_by=event.by)
        case InvitationAccepted():
            return msgspec.structs.replace(invitation, version=event.originator_version, user_id=event.user_id)
        case InvitationWithdrawn():
            return msgspec.structs.replace(invitation, version=event.originator_version, withdrawn=True)
        case _:
            return msgspec.structs.replace(invitation, version=event.originator_version)


def _link(request_id: UUID, at: datetime) -> OpenLink:
    return OpenLink(purpose=LinkPurpose.ACCEPT_INVITATION, request_id=request_id, requested_at=at)
