"""A registration: a person's request for an account, until the e-mail address is verified. It has an id of its own.

A registration reveals to nobody whether its address belongs to an account: that is checked when the address is verified.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from domain.access import Role
from domain.email_address import new_address
from domain.errors import InvalidLink
from domain.events import Event, PrivateText, State, new_stream, next_event
from domain.links import LinkPurpose, OpenLink, require_open
from domain.values import text, unique_text

LIFETIME: Final = timedelta(hours=24)
"""After this time, a registration that was not verified is discarded."""


class RegistrationRequested(Event, frozen=True, kw_only=True):
    """`request_id` is that of the link in the mail. No event contains the password's hash; `password_commitment` proves it."""

    email: PrivateText
    username: PrivateText
    first_name: PrivateText
    last_name: PrivateText
    password_commitment: str
    request_id: UUID


class VerificationRequested(Event, frozen=True, kw_only=True):
    """Another mail was requested. Its link replaces the earlier ones."""

    request_id: UUID


class RegistrationCompleted(Event, frozen=True, kw_only=True):
    """The address was verified, and the account `user_id` exists. The private fields can no longer be read; the account has them."""

    user_id: UUID


class RegistrationDiscarded(Event, frozen=True, kw_only=True):
    """The address was not verified in time. The private fields can no longer be read."""


CLOSING = (RegistrationCompleted, RegistrationDiscarded)


class Registration(State, frozen=True, kw_only=True):
    email: str
    username: str
    first_name: str
    last_name: str
    password_commitment: str
    requested_at: datetime
    link: OpenLink
    user_id: UUID | None = None
    discarded: bool = False

    @property
    def is_open(self) -> bool:
        return self.user_id is None and not self.discarded

    @property
    def role(self) -> Role:
        """The role of the account that it becomes."""
        return Role.VIEWER

    def may_sign_in(self, at: datetime) -> bool:
        """Whether its password starts a session: while it is open and has not expired."""
        return self.is_open and not self.has_expired(at)

    def has_expired(self, at: datetime) -> bool:
        return at >= self.requested_at + LIFETIME


def request(
    registration: UUID,
    *,
    email: str,
    username: str,
    first_name: str,
    last_name: str,
    request_id: UUID,
    at: datetime,
) -> RegistrationRequested:
    """The request, without the commitment to its password. Raises Invalid for a value that breaks its rule."""
    return RegistrationRequested(
        **new_stream(registration, by=registration, at=at),
        email=new_address(email),
        username=unique_text(username, name="username", minimum=3, maximum=50),
        first_name=text(first_name, name="first_name", minimum=1, maximum=50),
        last_name=text(last_name, name="last_name", minimum=1, maximum=50),
        password_commitment="",
        request_id=request_id,
    )


def request_verification(registration: Registration, *, request_id: UUID, at: datetime) -> list[VerificationRequested]:
    """No event for a registration that is completed or discarded, or has expired."""
    if not registration.may_sign_in(at):
        return []
    return [VerificationRequested(**next_event(registration, by=registration.id, at=at), request_id=request_id)]


def complete(registration: Registration, *, request_id: UUID, user: UUID, at: datetime) -> RegistrationCompleted:
    """Raises InvalidLink."""
    if not registration.is_open:
        raise InvalidLink
    require_open(registration.link, request_id, at=at)
    return RegistrationCompleted(**next_event(registration, by=user, at=at), user_id=user)


def discard(registration: Registration, *, by: UUID, at: datetime) -> list[RegistrationDiscarded]:
    """No event unless it is open and has expired."""
    if not registration.is_open or not registration.has_expired(at):
        return []
    return [RegistrationDiscarded(**next_event(registration, by=by, at=at))]


def evolve(registration: Registration | None, event: Event) -> Registration | None:
    match event:
        case RegistrationRequested():
            return Registration(
                id=event.originator_id,
                version=event.originator_version,
                email=event.email,
                username=event.username,
                first_name=event.first_name,
                last_name=event.last_name,
                password_commitment=event.password_commitment,
                requested_at=event.at,
                link=_link(event.request_id, event.at),
            )
        case _ if registration is None:
            return None
        case VerificationRequested():
            return msgspec.structs.replace(registration, version=event.originator_version, link=_link(event.request_id, event.at))
        case RegistrationCompleted():
            return msgspec.structs.replace(registration, version=event.originator_version, user_id=event.user_id)
        case RegistrationDiscarded():
            return msgspec.structs.replace(registration, version=event.originator_version, discarded=True)
        case _:
            return msgspec.structs.replace(registration, version=event.originator_version)


def _link(request_id: UUID, at: datetime) -> OpenLink:
    return OpenLink(purpose=LinkPurpose.VERIFY_EMAIL, request_id=request_id, requested_at=at)
