"""Use cases of open sessions: list them, and end one or several."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.accounts import end_sessions, load_account
from application.commands import CommandResult, execute, load_existing
from application.ports import Command, EventStore, RefreshTokens
from domain import session
from domain.access import Actor, Role, require_role
from domain.session import Reason, Session, SessionRevoked, SessionStarted
from domain.user_agent import device_of

MAX_LISTED = 200


class ListedSession(msgspec.Struct, frozen=True, kw_only=True):
    """An open session. `device` and `address` are those of the sign-in; `last_used_at` is its newest sign-in or refresh."""

    id: UUID
    device: str
    address: str
    started_at: datetime
    last_used_at: datetime


def listed(user_id: UUID, *, actor: Actor, at: datetime, log: EventStore, tokens: RefreshTokens) -> list[ListedSession]:
    """The user's open sessions, the last used one first, at most `MAX_LISTED`. Read from the log, so that none is missing or outdated.

    Raises Forbidden for another user's sessions unless the actor is an administrator, NotFound.
    """
    _may_manage(actor, user_id, log)
    last_used = {each.session: each.last_used_at for each in tokens.open_sessions(user_id, at=at)[:MAX_LISTED]}
    recorded = log.histories(last_used, SessionStarted, SessionRevoked)
    log.prefetch(recorded)
    events = [log.decode(each) for each in recorded]
    ended = {event.originator_id for event in events if isinstance(event, SessionRevoked)}
    started = {event.originator_id: event for event in events if isinstance(event, SessionStarted) and event.user_id == user_id}
    return [
        ListedSession(
            id=each, device=device_of(event.agent), address=event.address, started_at=event.at, last_used_at=max(used_at, event.at)
        )
        for each, used_at in last_used.items()
        if (event := started.get(each)) is not None and each not in ended
    ]


def end(session_id: UUID, *, user_id: UUID, command: Command, log: EventStore, tokens: RefreshTokens) -> CommandResult:
    """End one session of a user. A session that has ended already is not an error.

    Raises Forbidden as `listed` does; NotFound for a session that does not exist and for another user's.
    """
    _may_manage(command.actor, user_id, log)
    result = execute(
        log,
        command,
        lambda: _load_session(log, session_id, user_id),
        lambda found: session.revoke(found, _reason(command.actor, user_id), by=command.actor.id, at=command.at),
    )
    tokens.revoke(session_id)
    return result


def end_all(user_id: UUID, *, but: UUID | None = None, command: Command, log: EventStore, tokens: RefreshTokens) -> None:
    """End the sessions of a user except `but`. Raises Forbidden as `listed` does, NotFound."""
    _may_manage(command.actor, user_id, log)
    end_sessions(user_id, _reason(command.actor, user_id), but=but, command=command, log=log, tokens=tokens)


def _reason(actor: Actor, user_id: UUID) -> Reason:
    return Reason.ENDED if actor.id == user_id else Reason.ADMINISTRATOR


def _may_manage(actor: Actor, user_id: UUID, log: EventStore) -> None:
    if actor.id == user_id:
        require_role(actor, Role.VIEWER)
        return
    if not actor.is_system:
        require_role(actor, Role.ADMIN)
    load_account(log, user_id)


def _load_session(log: EventStore, session_id: UUID, user_id: UUID) -> Session:
    return load_existing(log, session_id, session.evolve, what="Session", closed=lambda found: found.user_id != user_id)
