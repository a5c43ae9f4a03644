"""Use cases of API keys: issue, rotate, revoke. The caller makes the secret; only its hash comes here."""

from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from application.commands import MAX_ATTEMPTS, CommandResult, create_stream, execute, load_all, new_id
from application.datasets import load_dataset
from application.key_identities import PREVIOUS_SECRET, SECRET
from application.ports import Command, EventStore, Secret, StreamPrecondition
from application.service_accounts import load_service, require_administrator
from domain import api_key, service_account, user
from domain.access import NEEDED_ROLES, Actor, Grant, Role, Scope, require_person, require_role
from domain.api_key import DEFAULT_LIFETIME, DEFAULT_OVERLAP, ApiKey, KeyIssued, OwnerKind
from domain.errors import ConcurrencyConflict, Forbidden, NotFound, StreamClosed
from domain.events import Event
from domain.values import invalid

CLOSING_OWNERS: Final = (*user.CLOSING, *service_account.CLOSING)


def issue_own(
    *,
    name: str,
    scopes: Collection[Scope],
    datasets: Collection[UUID] | None = None,
    lifetime: timedelta = DEFAULT_LIFETIME,
    secret_hash: bytes,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Issue a personal access token: a key with which a program acts as the user who issues it, within `scopes` and `datasets`.

    Raises Forbidden (a key, or a scope that the user's role cannot use), Invalid, and NotFound for a dataset that the user may not see.
    """
    actor = command.actor
    require_person(actor)
    require_role(actor, Role.VIEWER)
    for scope in scopes:
        if actor.role is None or actor.role.level < NEEDED_ROLES[scope].level:
            raise Forbidden(f"Your role cannot use the scope {scope.value}: it needs the role {NEEDED_ROLES[scope].value} or higher")
    return _issue(
        actor.id,
        OwnerKind.USER,
        user.CLOSING,
        name=name,
        scopes=scopes,
        datasets=datasets,
        lifetime=lifetime,
        secret_hash=secret_hash,
        command=command,
        log=log,
    )


def issue_for_service(
    service_id: UUID,
    *,
    name: str,
    scopes: Collection[Scope],
    datasets: Collection[UUID] | None = None,
    lifetime: timedelta = DEFAULT_LIFETIME,
    secret_hash: bytes,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Issue a key of a service account. Raises Forbidden, Invalid, and NotFound for an unknown service account or dataset."""
    require_administrator(command.actor)
    load_service(log, service_id)
    return _issue(
        service_id,
        OwnerKind.SERVICE,
        service_account.CLOSING,
        name=name,
        scopes=scopes,
        datasets=datasets,
        lifetime=lifetime,
        secret_hash=secret_hash,
        command=command,
        log=log,
    )


def rotate(
    key_id: UUID,
    *,
    lifetime: timedelta | None = None,
    overlap: timedelta = DEFAULT_OVERLAP,
    expected: int | None = None,
    secret_hash: bytes,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Give the key another secret. The present one works for `overlap` longer; an earlier one stops at once.

    Without `lifetime`, the new one works for as long as the present one did when it was new.

    For the owner of a personal key, and for administrators where a service account owns the key. Raises Forbidden, NotFound (also
    for a deleted owner), Conflict (a revoked or expired key), Invalid, VersionMismatch.
    """
    for attempt in range(MAX_ATTEMPTS):
        found = load_key(log, key_id, command.actor)
        if found.owner_kind is OwnerKind.USER and found.owner_id != command.actor.id:
            raise Forbidden("Only the owner can rotate a personal key; you can revoke it")
        if log.having([found.owner_id], *CLOSING_OWNERS):
            raise NotFound("The owner of the key was deleted, so the key no longer works; issue one for another account")
        present = log.secret(SECRET, key_id)
        secrets = (
            Secret(kind=SECRET, owner=key_id, value=secret_hash),
            Secret(kind=PREVIOUS_SECRET, owner=key_id, value=present if overlap else None),
        )
        try:
            return execute(
                log,
                command,
                lambda found=found: found,  # type: ignore[misc]
                lambda key: api_key.rotate(
                    key, secret_hash=secret_hash, lifetime=lifetime, overlap=overlap, by=command.actor.id, at=command.at
                ),
                expected=expected,
                guards=lambda key, _: (StreamPrecondition(stream=key.owner_id, closed_by=CLOSING_OWNERS),),
                secrets=secrets,
                attempts=1,
            )
        except ConcurrencyConflict:
            if attempt + 1 == MAX_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def revoke(key_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """End a key. For its owner and for administrators. Raises Forbidden, NotFound, VersionMismatch."""
    return execute(
        log,
        command,
        lambda: load_key(log, key_id, command.actor),
        lambda found: api_key.revoke(found, by=command.actor.id, at=command.at),
        expected=expected,
        secrets=tuple(Secret(kind=kind, owner=key_id, value=None) for kind in (SECRET, PREVIOUS_SECRET)),
    )


def load_key(log: EventStore, key_id: UUID, actor: Actor) -> ApiKey:
    """The key. Raises NotFound unless it exists and `actor` is its owner or an administrator, and Forbidden for an actor with a key."""
    require_person(actor)
    is_key = log.is_open(key_id, begun_by=KeyIssued, closed_by=())
    found = log.load(key_id, api_key.evolve) if is_key else None
    if found is None or not (actor.is_admin or actor.is_system or found.owner_id == actor.id):
        raise NotFound("Key not found")
    return found


def _require_reached(event: KeyIssued, actor: Actor, log: EventStore) -> None:
    """Raises Invalid unless the key will reach all of its datasets. An administrator needs a grant of their own for that."""
    limits = frozenset(event.dataset_ids or ())
    if event.owner_kind is OwnerKind.USER:
        actor = msgspec.structs.replace(actor, datasets=limits)
    for dataset_id in limits:
        try:
            load_dataset(log, dataset_id, actor, Grant.VIEWER)
        except NotFound:
            raise invalid("dataset_ids", "names a dataset that does not exist, or on which your account has no grant") from None


def states_of(keys: Collection[UUID], log: EventStore) -> dict[UUID, ApiKey]:
    """The keys with these ids, in two queries. One whose owner was deleted counts as revoked."""
    states = load_all(log, keys, api_key.evolve)
    deleted = log.having({key.owner_id for key in states.values()}, *CLOSING_OWNERS)
    return {id_: msgspec.structs.replace(key, revoked=True) if key.owner_id in deleted else key for id_, key in states.items()}


def _issue(
    owner: UUID,
    kind: OwnerKind,
    closed_by: tuple[type[Event], ...],
    *,
    name: str,
    scopes: Collection[Scope],
    datasets: Collection[UUID] | None,
    lifetime: timedelta,
    secret_hash: bytes,
    command: Command,
    log: EventStore,
) -> CommandResult:
    key_id = new_id(command, "key")
    event = api_key.issue(
        key_id,
        owner=owner,
        owner_kind=kind,
        name=name,
        scopes=scopes,
        datasets=datasets,
        lifetime=lifetime,
        secret_hash=secret_hash,
        by=command.actor.id,
        at=command.at,
    )
    _require_reached(event, command.actor, log)
    try:
        return create_stream(
            log,
            command,
            [event],
            guards=(StreamPrecondition(stream=owner, closed_by=closed_by),),
            secrets=(Secret(kind=SECRET, owner=key_id, value=secret_hash),),
        )
    except StreamClosed:
        raise NotFound("The account was deleted in the meantime") from None
