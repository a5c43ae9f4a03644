"""Use cases of datasets: create, describe, share, withdraw, delete."""

from uuid import UUID

from msgspec import UNSET, UnsetType

from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.ports import Command, EventStore, StreamPrecondition
from domain import dataset, user
from domain.access import Actor, Grant, Role, grant_with_key, require_grant, require_role
from domain.dataset import Dataset
from domain.errors import NotFound
from domain.user import UserRegistered


def load_dataset(log: EventStore, dataset_id: UUID, actor: Actor, minimum: Grant) -> Dataset:
    """The dataset. Raises NotFound if it does not exist, was deleted, or the actor has no grant; Forbidden if the grant is too low."""
    found = load_existing(log, dataset_id, dataset.evolve, what="Dataset", closed=lambda it: it.deleted)
    require_grant(actor, grant_with_key(actor, dataset_id, found.grants.get(actor.id)), minimum, what="Dataset")
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
    if not log.is_open(user_id, begun_by=UserRegistered, closed_by=user.CLOSING):
        raise NotFound("User not found")
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


def delete(dataset_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Hide the dataset with its images and results. The log keeps their events."""
    require_role(command.actor, Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: load_dataset(log, dataset_id, command.actor, Grant.OWNER),
        lambda found: dataset.delete(found, by=command.actor.id, at=command.at),
        expected=expected,
    )
