"""A user account."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from domain.access import Role
from domain.email_address import changed_address, new_address
from domain.errors import Conflict
from domain.events import Event, PrivateText, State, fields_set, new_stream, next_event
from domain.links import LinkPurpose, OpenLink, require_open
from domain.values import email as email_address
from domain.values import new_optional_text, new_text, text, unique_text

PROFILE_FIELDS: Final = ("email", "first_name", "last_name", "institution", "department", "phone")


class Status(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"
    SUSPENDED = "suspended"
    PENDING = "pending"


class UserRegistered(Event, frozen=True, kw_only=True):
    email: PrivateText
    username: PrivateText
    first_name: PrivateText
    last_name: PrivateText
    role: Role
    status: Status
    password_commitment: str = ""


class UserProfileChanged(Event, frozen=True, kw_only=True):
    """Omitted fields did not change; null clears a field."""

    email: PrivateText | UnsetType = UNSET
    first_name: PrivateText | UnsetType = UNSET
    last_name: PrivateText | UnsetType = UNSET
    institution: PrivateText | None | UnsetType = UNSET
    department: PrivateText | None | UnsetType = UNSET
    phone: PrivateText | None | UnsetType = UNSET


class UserRoleChanged(Event, frozen=True, kw_only=True):
    role: Role


class UserStatusChanged(Event, frozen=True, kw_only=True):
    status: Status


class PasswordChanged(Event, frozen=True, kw_only=True):
    """No event contains the hash, which is secret. The commitment proves that the stored hash is the one that was set.

    Links that were requested before, for another password or e-mail address, no longer work.
    """

    password_commitment: str = ""


class PasswordRehashed(Event, frozen=True, kw_only=True):
    """The same password was hashed again with stronger parameters."""

    password_commitment: str


class PasswordResetRequested(Event, frozen=True, kw_only=True):
    """A mail with a link to choose a new password was requested. `request_id` is that of the link, which replaces earlier ones."""

    request_id: UUID


class PasswordReset(Event, frozen=True, kw_only=True):
    """A new password was chosen with the link of the request `request_id`. All sessions end, and all links that were requested before."""

    request_id: UUID
    password_commitment: str


class EmailChangeRequested(Event, frozen=True, kw_only=True):
    """A mail with a link was sent to the new address, which takes effect when the link is opened."""

    email: PrivateText
    request_id: UUID


class EmailChanged(Event, frozen=True, kw_only=True):
    """The owner of the account proved, with the link of the request `request_id`, that the address is theirs."""

    email: PrivateText
    request_id: UUID


class UserDeleted(Event, frozen=True, kw_only=True):
    """The account is closed; its history stays readable."""


class UserErased(Event, frozen=True, kw_only=True):
    """The user's data key was destroyed. The user's private fields can no longer be read."""


CLOSING = (UserDeleted, UserErased)


class User(State, frozen=True, kw_only=True):
    email: str
    username: str
    first_name: str
    last_name: str
    role: Role
    status: Status
    registered_at: datetime
    password_commitment: str = ""  # empty if the hash was stored by a release without commitments
    institution: str | None = None
    department: str | None = None
    phone: str | None = None
    deleted: bool = False
    erased: bool = False
    reset_link: OpenLink | None = None
    email_link: OpenLink | None = None
    new_email: str | None = None  # the address to which `email_link` was sent
    password_reset_at: datetime | None = None

    @property
    def may_sign_in(self) -> bool:
        return self.status is Status.ACTIVE and not self.deleted

    @property
    def is_active_admin(self) -> bool:
        return self.acts_as(Role.ADMIN)

    def ended(self, session_started_at: datetime) -> bool:
        """Whether a later reset of the password ended the session, even if the process died before it revoked the session."""
        return self.password_reset_at is not None and session_started_at < self.password_reset_at

    def pending_email(self, at: datetime) -> str | None:
        """The address that takes effect once it is confirmed, while the link to do so is open."""
        return self.new_email if self.email_link is not None and at < self.email_link.expires_at else None

    def acts_as(self, role: Role) -> bool:
        """Whether the account may sign in, and has at least `role`."""
        return self.may_sign_in and self.role.level >= role.level


def commitment(user: UUID, password_hash: bytes) -> str:
    """SHA-256 over the account's id and the stored hash, in hexadecimal.

    Passwords cannot be guessed against it: the hash contains a random salt of 128 bits, which no event contains.
    """
    return hashlib.sha256(user.bytes + password_hash).hexdigest()


def register(
    user: UUID,
    *,
    email: str,
    username: str,
    first_name: str,
    last_name: str,
    role: Role = Role.VIEWER,
    is_verified: bool = False,
    by: UUID,
    at: datetime,
) -> UserRegistered:
    """Create an account. Raises Invalid for a value that breaks its rule.

    `is_verified`: a link that was sent to the address was opened, so that the address need not comply with the rule for new ones.
    """
    return UserRegistered(
        **new_stream(user, by=by, at=at),
        email=email_address(email) if is_verified else new_address(email),
        username=unique_text(username, name="username", minimum=3, maximum=50),
        first_name=text(first_name, name="first_name", minimum=1, maximum=50),
        last_name=text(last_name, name="last_name", minimum=1, maximum=50),
        role=role,
        status=Status.ACTIVE,
    )


def change_role(user: User, role: Role, *, by: UUID, at: datetime) -> list[UserRoleChanged]:
    return [] if user.role is role else [UserRoleChanged(**next_event(user, by=by, at=at), role=role)]


def change_status(user: User, status: Status, *, by: UUID, at: datetime) -> list[UserStatusChanged]:
    return [] if user.status is status else [UserStatusChanged(**next_event(user, by=by, at=at), status=status)]


def change_profile(user: User, changes: Mapping[str, str | None], *, by: UUID, at: datetime) -> list[UserProfileChanged]:
    """Set the fields that `changes` names. Raises Invalid for a value that breaks its rule."""
    email = changed_address(changes["email"] or "", user.email) if "email" in changes else UNSET
    first_name = new_text(changes, "first_name", user.first_name, maximum=50)
    last_name = new_text(changes, "last_name", user.last_name, maximum=50)
    institution = new_optional_text(changes, "institution", user.institution, maximum=50)
    department = new_optional_text(changes, "department", user.department, maximum=50)
    phone = new_optional_text(changes, "phone", user.phone, maximum=20)
    if all(value is UNSET for value in (email, first_name, last_name, institution, department, phone)):
        return []
    return [
        UserProfileChanged(
            **next_event(user, by=by, at=at),
            email=email,
            first_name=first_name,
            last_name=last_name,
            institution=institution,
            department=department,
            phone=phone,
        )
    ]


def change_password(user: User, *, password_hash: bytes, by: UUID, at: datetime) -> PasswordChanged:
    return PasswordChanged(**next_event(user, by=by, at=at), password_commitment=commitment(user.id, password_hash))


def rehash_password(user: User, *, password_hash: bytes, at: datetime) -> PasswordRehashed:
    """Replace the stored hash at a sign-in, the only time at which the password is known."""
    return PasswordRehashed(**next_event(user, by=user.id, at=at), password_commitment=commitment(user.id, password_hash))


def request_password_reset(user: User, *, request_id: UUID, by: UUID, at: datetime) -> list[PasswordResetRequested]:
    """No event for an account that may not sign in."""
    return [PasswordResetRequested(**next_event(user, by=by, at=at), request_id=request_id)] if user.may_sign_in else []


def reset_password(user: User, *, request_id: UUID, password_hash: bytes, at: datetime) -> PasswordReset:
    """Raises InvalidLink."""
    require_open(user.reset_link if user.may_sign_in else None, request_id, at=at)
    kept = commitment(user.id, password_hash)
    return PasswordReset(**next_event(user, by=user.id, at=at), request_id=request_id, password_commitment=kept)


def request_email_change(user: User, *, email: str, request_id: UUID, by: UUID, at: datetime) -> list[EmailChangeRequested]:
    """No event for the present address. Raises Invalid for an invalid one."""
    new = changed_address(email, user.email)
    return [] if new is UNSET else [EmailChangeRequested(**next_event(user, by=by, at=at), email=new, request_id=request_id)]


def change_email(user: User, *, request_id: UUID, at: datetime) -> EmailChanged:
    """Raises InvalidLink."""
    require_open(user.email_link if user.may_sign_in else None, request_id, at=at)
    assert user.new_email is not None
    return EmailChanged(**next_event(user, by=user.id, at=at), email=user.new_email, request_id=request_id)


def delete(user: User, *, by: UUID, at: datetime) -> list[UserDeleted]:
    if by == user.id:
        raise Conflict("You cannot delete your own account; ask another administrator")
    return [] if user.deleted else [UserDeleted(**next_event(user, by=by, at=at))]


def erase(user: User, *, by: UUID, at: datetime) -> list[UserErased]:
    return [] if user.erased else [UserErased(**next_event(user, by=by, at=at))]


def evolve(user: User | None, event: Event) -> User | None:
    match event:
        case UserRegistered():
            return User(
                id=event.originator_id,
                version=event.originator_version,
                email=event.email,
                username=event.username,
                first_name=event.first_name,
                last_name=event.last_name,
                role=event.role,
                status=event.status,
                registered_at=event.at,
                password_commitment=event.password_commitment,
            )
        case _ if user is None:
            return None
        case _:
            return msgspec.structs.replace(user, version=event.originator_version, **_changes(event))


def _changes(event: Event) -> dict[str, Any]:
    """The fields that an event of an existing account changes."""
    match event:
        case PasswordChanged() | PasswordRehashed() | PasswordResetRequested() | PasswordReset():
            return _password_changes(event)
        case UserProfileChanged():
            return fields_set(event, *PROFILE_FIELDS)
        case UserRoleChanged():
            return {"role": event.role}
        case UserStatusChanged():
            return {"status": event.status}
        case EmailChangeRequested():
            return {"email_link": _link(LinkPurpose.CHANGE_EMAIL, event), "new_email": event.email}
        case EmailChanged():
            return {"email": event.email, "email_link": None, "new_email": None, "reset_link": None}
        case UserDeleted():
            return {"deleted": True}
        case UserErased():
            return {"deleted": True, "erased": True}
        case _:
            return {}


def _password_changes(event: PasswordChanged | PasswordRehashed | PasswordResetRequested | PasswordReset) -> dict[str, Any]:
    if isinstance(event, PasswordResetRequested):
        return {"reset_link": _link(LinkPurpose.RESET_PASSWORD, event)}
    kept = {"password_commitment": event.password_commitment}
    if isinstance(event, PasswordRehashed):
        return kept
    # A stranger who knew the old password may have requested them.
    ended = {"reset_link": None, "email_link": None, "new_email": None}
    return kept | ended | ({"password_reset_at": event.at} if isinstance(event, PasswordReset) else {})


def _link(purpose: LinkPurpose, event: PasswordResetRequested | EmailChangeRequested) -> OpenLink:
    return OpenLink(purpose=purpose, request_id=event.request_id, requested_at=event.at)
