"""Use cases of teams: create, rename, delete, and choose the members."""

from uuid import UUID

from application.commands import CommandResult, create_stream, execute, new_id
from application.grants import load_team, load_user, user_with_address
from application.ports import Command, EventStore, StreamPrecondition
from domain import team, user
from domain.access import Actor, Role, require_role
from domain.errors import Forbidden
from domain.team import Team


def create(*, name: str, command: Command, log: EventStore) -> CommandResult:
    """A team that the actor owns, and whose first member the actor is. Raises Forbidden, Invalid."""
    require_role(command.actor, Role.RESEARCHER)
    return create_stream(log, command, [team.create(new_id(command, "team"), name=name, by=command.actor.id, at=command.at)])


def rename(team_id: UUID, *, name: str, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """For the owner and administrators. Raises Forbidden, NotFound, Invalid, VersionMismatch."""
    require_role(command.actor, Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: _managed(log, team_id, command.actor),
        lambda found: team.rename(found, name=name, by=command.actor.id, at=command.at),
        expected=expected,
    )


def delete(team_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """End the team and its grants. For the owner and administrators. Raises Forbidden, NotFound, VersionMismatch."""
    require_role(command.actor, Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: _managed(log, team_id, command.actor),
        lambda found: team.delete(found, by=command.actor.id, at=command.at),
        expected=expected,
    )


def add_member(team_id: UUID, *, user_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Give a user the grants of the team. For the owner and administrators. A member is no error.

    Raises Forbidden, NotFound (the team or the user), Conflict (a full team), VersionMismatch.
    """
    require_role(command.actor, Role.RESEARCHER)
    managed = _managed(log, team_id, command.actor)  # before the user, so that only those who manage a team find out which users exist
    load_user(log, user_id)
    return execute(
        log,
        command,
        lambda: _managed(log, managed.id, command.actor),
        lambda found: team.add_member(found, user=user_id, by=command.actor.id, at=command.at),
        expected=expected,
        guards=lambda *_: (StreamPrecondition(stream=user_id, closed_by=user.CLOSING),),
    )


def add_member_by_address(team_id: UUID, *, email: str, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """As `add_member`, for the account with this e-mail address. Raises Invalid too."""
    require_role(command.actor, Role.RESEARCHER)
    _managed(log, team_id, command.actor)
    return add_member(team_id, user_id=user_with_address(log, email), expected=expected, command=command, log=log)


def remove_member(team_id: UUID, *, user_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Take the grants of the team from a user. For the owner and administrators, and for members who leave. No member is no error.

    Raises Forbidden, NotFound, VersionMismatch.
    """
    leaves = user_id == command.actor.id and command.actor.kind == "user"
    require_role(command.actor, Role.VIEWER if leaves else Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: load_team(log, team_id, command.actor) if leaves else _managed(log, team_id, command.actor),
        lambda found: team.remove_member(found, user=user_id, by=command.actor.id, at=command.at),
        expected=expected,
    )


def _managed(log: EventStore, team_id: UUID, actor: Actor) -> Team:
    """Raises Forbidden for a member who is neither the owner nor an administrator, NotFound for anybody else."""
    found = load_team(log, team_id, actor)
    if not (actor.is_admin or actor.is_system or found.owner_id == actor.id):
        raise Forbidden("Only the owner of the team and administrators may do this")
    return found
