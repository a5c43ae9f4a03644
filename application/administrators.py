"""The rule that an installation keeps at least one active administrator."""

from collections.abc import Sequence
from functools import reduce

from application.ports import EventStore, StreamPrecondition
from domain import user
from domain.errors import LastAdministrator
from domain.events import Event
from domain.user import User


def another_administrator(account: User, events: Sequence[Event], log: EventStore) -> Sequence[StreamPrecondition]:
    """The preconditions under which `events` may be appended to `account`, so that an active administrator remains.

    A precondition names another active administrator at the version that was read. Appends are serial: if two administrators demote each
    other at the same time, the second append fails. Raises LastAdministrator if there is no other active administrator.
    """
    if not account.is_active_admin or _after(account, events).is_active_admin:
        return ()
    others = (log.load(candidate, user.evolve) for candidate in log.administrators() if candidate != account.id)
    for other in others:
        if other is not None and other.is_active_admin:
            return (StreamPrecondition(stream=other.id, version=other.version),)
    raise LastAdministrator


def _after(account: User, events: Sequence[Event]) -> User:
    return reduce(lambda state, event: user.evolve(state, event) or state, events, account)
