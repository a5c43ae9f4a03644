"""The grant of an actor on a dataset, from the log alone: its own, those of its teams, and the limits of its key."""

from collections.abc import Iterator
from uuid import UUID

from application.commands import load_existing
from application.ports import EventStore, StreamPrecondition
from domain import team, user
from domain.access import Actor, Grant, grant_of_scopes
from domain.dataset import Dataset
from domain.errors import NotFound, UnknownAddress
from domain.team import Team
from domain.user import User
from domain.values import email as email_address


def grant_of(actor: Actor, dataset: Dataset, log: EventStore) -> Grant | None:
    """The highest grant of `actor` on the dataset, or None. Administrators and the system have that of an owner. Blocks.

    A key reaches no dataset beyond its own list. A service has the grant that follows from its scopes. The view `visible` of the read
    models follows the same rules.
    """
    if actor.is_admin or actor.is_system:
        return Grant.OWNER
    if actor.datasets is not None and dataset.id not in actor.datasets:
        return None
    if actor.kind == "service":
        return grant_of_scopes(actor.scopes)
    if actor.kind != "user":
        return None
    return max(_grants(actor.id, dataset, log), key=lambda grant: grant.level, default=None)


def _grants(user_id: UUID, dataset: Dataset, log: EventStore) -> Iterator[Grant]:
    """The user's own grant, and those of teams that are higher."""
    own = dataset.grants.get(user_id)
    if own is not None:
        yield own
    for team_id, grant in dataset.team_grants.items():
        if (own is None or grant.level > own.level) and is_member(user_id, team_id, log):
            yield grant


def is_member(user_id: UUID, team_id: UUID, log: EventStore) -> bool:
    """Whether the user has the grants of the team. Blocks."""
    found = log.load(team_id, team.evolve)
    return found is not None and found.has(user_id)


def load_team(log: EventStore, team_id: UUID, actor: Actor) -> Team:
    """The team. Raises NotFound if it does not exist, was deleted, or the actor is neither a member nor an administrator."""
    found = load_existing(log, team_id, team.evolve, what="Team", closed=lambda it: it.deleted)
    if not (actor.is_admin or actor.is_system or found.has(actor.id) or found.owner_id == actor.id):
        raise NotFound("Team not found", noun="team", object_id=team_id)
    return found


def team_guard(team_id: UUID) -> StreamPrecondition:
    """The precondition that the team is not deleted."""
    return StreamPrecondition(stream=team_id, closed_by=team.CLOSING)


def load_user(log: EventStore, user_id: UUID) -> User:
    """The account. Raises NotFound if it does not exist or was deleted."""
    return load_existing(log, user_id, user.evolve, what="User", closed=lambda it: it.deleted)


def user_with_address(log: EventStore, email: str) -> UUID:
    """The account with exactly this e-mail address. Raises Invalid, and UnknownAddress, alike for every address without an account."""
    found = log.claimed("email", email_address(email))
    account = None if found is None else log.load(found, user.evolve)
    if account is None or account.deleted:
        raise UnknownAddress("There is no account with this e-mail address")
    return account.id
