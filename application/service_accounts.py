"""Use cases of service accounts: create, find, delete."""

from collections.abc import Collection
from uuid import UUID

from application.commands import CommandResult, create_stream, execute, load_all, load_existing, new_id
from application.ports import Command, EventStore, ReleasedClaim, UniqueClaim
from domain import service_account
from domain.access import Actor, Role, require_person, require_role
from domain.errors import Taken
from domain.service_account import LEGACY_TOKENS, LegacyTokens, ServiceAccount, evolve_legacy_tokens, revoke_legacy_tokens


def require_administrator(actor: Actor) -> None:
    """Raises Forbidden unless `actor` is the system, or an administrator who acts without a key."""
    require_person(actor)
    require_role(actor, Role.ADMIN)


def load_service(log: EventStore, service_id: UUID) -> ServiceAccount:
    return load_existing(log, service_id, service_account.evolve, what="Service account", closed=lambda it: it.deleted)


def create(*, name: str, description: str = "", command: Command, log: EventStore) -> CommandResult:
    """Create an account for a program. Raises Forbidden, Invalid, and Taken if another service account has this name."""
    require_administrator(command.actor)
    event = service_account.create(new_id(command, "service"), name=name, description=description, by=command.actor.id, at=command.at)
    try:
        return create_stream(log, command, [event], claims=(UniqueClaim(scope="service", value=name, stream=event.originator_id),))
    except Taken:
        raise Taken("Another service account has this name already; choose another one", scope="service") from None


def find(name: str, log: EventStore) -> ServiceAccount | None:
    """The service account with this name. None if there is no claim, or if the events of the account do not confirm it."""
    service_id = log.claimed("service", name)
    found = log.load(service_id, service_account.evolve) if service_id else None
    return found if found and not found.deleted and found.name.casefold() == name.casefold() else None


def delete(service_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Delete a service account. Its keys stop working, and its name can be used again. Raises Forbidden, NotFound, VersionMismatch."""
    require_administrator(command.actor)
    return execute(
        log,
        command,
        lambda: load_service(log, service_id),
        lambda found: service_account.delete(found, by=command.actor.id, at=command.at),
        expected=expected,
        releases=lambda _: (ReleasedClaim(stream=service_id),),
    )


def states_of(services: Collection[UUID], log: EventStore) -> dict[UUID, ServiceAccount]:
    """The service accounts with these ids, in one query."""
    return load_all(log, services, service_account.evolve)


def legacy_tokens(log: EventStore) -> LegacyTokens | None:
    """When the signed service tokens of earlier releases were revoked; None if they were not."""
    return log.load(LEGACY_TOKENS, evolve_legacy_tokens)


def revoke_legacy(*, command: Command, log: EventStore) -> CommandResult:
    """Refuse all signed service tokens of earlier releases that were issued up to now. Raises Forbidden."""
    require_administrator(command.actor)
    return execute(
        log,
        command,
        lambda: legacy_tokens(log),
        lambda found: revoke_legacy_tokens(found, by=command.actor.id, at=command.at),
        stream=LEGACY_TOKENS,
    )
