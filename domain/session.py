"""A session: one sign-in on one device, until it is revoked. Token rotations are not recorded as events."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import msgspec

from domain.events import Event, State, UserPrivateText, new_stream, next_event


class Reason(StrEnum):
    LOGOUT = "logout"
    REUSE = "refresh_token_reused"
    PASSWORD = "password_changed"  # noqa: S105 - a reason, not a secret
    ACCOUNT = "account_closed"
    RESET = "password_reset"
    ENDED = "ended_by_user"
    ADMINISTRATOR = "ended_by_administrator"


FIRST_REASONS = frozenset({Reason.LOGOUT, Reason.REUSE, Reason.PASSWORD, Reason.ACCOUNT})
"""The reasons of schema version 1."""


class SessionStarted(Event, frozen=True, kw_only=True):
    user_id: UUID
    address: UserPrivateText
    agent: UserPrivateText


class SessionRevoked(Event, frozen=True, kw_only=True):
    """Schema version 2 has more reasons than version 1."""

    schema_version: ClassVar[int] = 2

    user_id: UUID
    reason: Reason

    @property
    def written_version(self) -> int:
        return 1 if self.reason in FIRST_REASONS else 2


class RefreshReuseDetected(Event, frozen=True, kw_only=True):
    """A refresh token was used again after its grace period: it may have been stolen."""

    user_id: UUID
    address: UserPrivateText


class Session(State, frozen=True, kw_only=True):
    user_id: UUID
    started_at: datetime
    revoked: bool = False


def start(session: UUID, *, user: UUID, address: str, agent: str, at: datetime) -> SessionStarted:
    return SessionStarted(**new_stream(session, by=user, at=at), user_id=user, address=address[:64], agent=agent[:256])


def revoke(session: Session, reason: Reason, *, by: UUID, at: datetime) -> list[Event]:
    return [] if session.revoked else [SessionRevoked(**next_event(session, by=by, at=at), user_id=session.user_id, reason=reason)]


def detect_reuse(session: Session, *, address: str, by: UUID, at: datetime) -> list[Event]:
    """Record the reuse of a refresh token and revoke the session. No event if the session is revoked already."""
    if session.revoked:
        return []
    detected = RefreshReuseDetected(**next_event(session, by=by, at=at), user_id=session.user_id, address=address[:64])
    return [detected, *revoke(msgspec.structs.replace(session, version=detected.originator_version), Reason.REUSE, by=by, at=at)]


def evolve(session: Session | None, event: Event) -> Session | None:
    match event:
        case SessionStarted():
            return Session(id=event.originator_id, version=event.originator_version, user_id=event.user_id, started_at=event.at)
        case _ if session is None:
            return None
        case SessionRevoked():
            return msgspec.structs.replace(session, version=event.originator_version, revoked=True)
        case _:
            return msgspec.structs.replace(session, version=event.originator_version)
