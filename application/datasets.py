"""Use cases of datasets: create, describe, share with users and teams, transfer, delete."""

from uuid import UUID

from msgspec import UNSET, UnsetType

from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.grants import grant_of, load_team, team_guard, user_with_address
from application.ports import Command, EventStore, StreamPrecondition
from domain import dataset, user
from domain.access import Actor, Grant, Role, require_grant, require_role
from domain.dataset import Dataset
from domain.errors import NotFound
from domain.user import UserRegistered


def load_dataset(log: EventStore, dataset_id: UUID, actor: Actor, minimum: Grant) -> Dataset:
    """The dataset. Raises NotFound if it does not exist, was deleted, or the actor has no grant; Forbidden if the grant is too low."""
    found = load_existing(log, dataset_id, dataset.evolve, what="Dataset", closed=lambda it: it.deleted)
    require_grant(grant_of(actor, found, log), minimum, dataset_id=dataset_id)
    return found


def open_guard(dataset_id: UUID) -> StreamPrecondition:
    """The precondition that the dataset is not deleted."""
    return StreamPrecondition(stream=dataset_id, closed_by=dataset.CLOSING)


def create(*, name: str, description: str | None, command: Command, log: EventStore) -> CommandResult:
    require_role(command.actor, Role.ANALYST)
    event = dataset.create(new_id(command, "dataset"), name=name, description=description, by=command.actor.id, at=command.at)
    return create_stream(log, command, [event])


def describe(
    dataset_id: UUID,
    *,
    name: str | UnsetType = UNSET,
    description: str | None | UnsetType = UNSET,
    expected: int | None = None,
    command: Command,
    log: EventStore,
) -> CommandResult:
    require_role(command.actor, Role.ANALYST)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.EDITOR),
        lambda found: dataset.describe(found, name=name, description=description, by=command.actor.id, at=command.at),
        expected=expected,
    )


def share(
    dataset_id: UUID, *, user_id: UUID, grant: Grant, expected: int | None = None, command: Command, log: EventStore
) -> CommandResult:
    """Grant a user a right on the dataset. For the owner with the role researcher, and for administrators.

    Raises Forbidden, NotFound (the dataset or the user), Conflict (the owner's grant), VersionMismatch.
    """
    require_role(command.actor, Role.RESEARCHER)
    load_dataset(log, dataset_id, command.actor, Grant.OWNER)  # before the user, so that only its owner finds out which users exist
    if not log.is_open(user_id, begun_by=UserRegistered, closed_by=user.CLOSING):
        raise NotFound("User not found", noun="user", object_id=user_id)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.OWNER),
        lambda found: dataset.share(found, user=user_id, grant=grant, by=command.actor.id, at=command.at),
        expected=expected,
        guards=lambda *_: (StreamPrecondition(stream=user_id, closed_by=user.CLOSING),),
    )


def withdraw(dataset_id: UUID, *, user_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    require_role(command.actor, Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.OWNER),
        lambda found: dataset.withdraw(found, user=user_id, by=command.actor.id, at=command.at),
        expected=expected,
    )


def share_by_address(
    dataset_id: UUID, *, email: str, grant: Grant, expected: int | None = None, command: Command, log: EventStore
) -> CommandResult:
    """As `share`, with the account that has this e-mail address. Raises Invalid too."""
    require_role(command.actor, Role.RESEARCHER)
    load_dataset(log, dataset_id, command.actor, Grant.OWNER)
    user_id = user_with_address(log, email)
    return share(dataset_id, user_id=user_id, grant=grant, expected=expected, command=command, log=log)


def share_with_team(
    dataset_id: UUID, *, team_id: UUID, grant: Grant, expected: int | None = None, command: Command, log: EventStore
) -> CommandResult:
    """Give the members of a team a right on the dataset, from now on. For the owner with the role researcher, who owns the team or
    is a member, and for administrators.

    Raises Forbidden, NotFound (the dataset or the team), Conflict (the owner's grant, or too many teams), VersionMismatch.
    """
    require_role(command.actor, Role.RESEARCHER)
    load_dataset(log, dataset_id, command.actor, Grant.OWNER)
    load_team(log, team_id, command.actor)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.OWNER),
        lambda found: dataset.share_with_team(found, team=team_id, grant=grant, by=command.actor.id, at=command.at),
        expected=expected,
        guards=lambda *_: (team_guard(team_id),),
    )


def withdraw_from_team(dataset_id: UUID, *, team_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    require_role(command.actor, Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.OWNER),
        lambda found: dataset.withdraw_from_team(found, team=team_id, by=command.actor.id, at=command.at),
        expected=expected,
    )


def transfer(dataset_id: UUID, *, user_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Make another user the owner. The previous one keeps the grant of an editor. For the owner with the role researcher, and for
    administrators.

    Raises Forbidden, NotFound (the dataset, or an active user with the role analyst or higher), VersionMismatch.
    """
    require_role(command.actor, Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.OWNER),
        lambda found: dataset.transfer(found, owner=user_id, by=command.actor.id, at=command.at),
        expected=expected,
        guards=lambda *_: (_may_own(log, user_id),),
    )


def _may_own(log: EventStore, user_id: UUID) -> StreamPrecondition:
    """The precondition that the account stays as it is. Raises NotFound unless it may own datasets."""
    account = log.load(user_id, user.evolve)
    if account is None or not account.acts_as(Role.ANALYST):
        raise NotFound("User not found: a dataset needs an owner with an active account and the role analyst or higher")
    return StreamPrecondition(stream=user_id, version=account.version, closed_by=user.CLOSING)


def delete(dataset_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Hide the dataset with its images and results. The log keeps their events. For the owner unless a viewer, and administrators."""
    require_role(command.actor, Role.ANALYST)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.OWNER),
        lambda found: dataset.delete(found, by=command.actor.id, at=command.at),
        expected=expected,
    )
