"""An API key: a secret with which a program acts, for a service account or, as a personal access token, for a user."""

import hashlib
import hmac
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.access import Scope
from domain.errors import Conflict
from domain.events import Event, State, new_stream, next_event
from domain.values import MAX_NAME, invalid, text

OwnerPrivateText = Annotated[str, Meta(extra={"private": "owner_id"})]
"""A text encrypted with the data key of the account that the event's `owner_id` names."""

DEFAULT_LIFETIME: Final = timedelta(days=90)
MAX_LIFETIME: Final = timedelta(days=366)
DEFAULT_OVERLAP: Final = timedelta(days=1)
MAX_OVERLAP: Final = timedelta(days=7)
MAX_DATASETS: Final = 100


class OwnerKind(StrEnum):
    USER = "user"
    SERVICE = "service"


class KeyIssued(Event, frozen=True, kw_only=True):
    """The secret is shown once and stored nowhere. No event contains its hash; `commitment` proves the one that is stored.

    The key reaches the datasets `dataset_ids`, or, with None, all that its owner may use.
    """

    owner_id: UUID
    owner_kind: OwnerKind
    name: OwnerPrivateText
    scopes: tuple[str, ...]
    dataset_ids: tuple[UUID, ...] | None
    expires_at: datetime
    commitment: str


class KeyRotated(Event, frozen=True, kw_only=True):
    """The key has another secret. The previous one works until `previous_until`."""

    commitment: str
    expires_at: datetime
    previous_until: datetime


class KeyRevoked(Event, frozen=True, kw_only=True):
    """Neither secret of the key works any longer."""


CLOSING = (KeyRevoked,)


class ApiKey(State, frozen=True, kw_only=True):
    owner_id: UUID
    owner_kind: OwnerKind
    name: str
    scopes: frozenset[str]
    dataset_ids: frozenset[UUID] | None
    issued_by: UUID
    issued_at: datetime
    expires_at: datetime
    lifetime: timedelta
    commitment: str
    previous_commitment: str = ""
    previous_until: datetime | None = None
    revoked: bool = False

    def expiry_of(self, secret_hash: bytes) -> datetime | None:
        """When the secret with this hash stops working. None if it is no secret of the key, or if the key was revoked.

        Takes the same time for every hash.
        """
        given = commitment(self.id, secret_hash)
        is_current = hmac.compare_digest(given, self.commitment)
        is_previous = hmac.compare_digest(given, self.previous_commitment)
        if self.revoked:
            return None
        return self.expires_at if is_current else self.previous_until if is_previous else None

    def accepts(self, secret_hash: bytes, *, at: datetime) -> bool:
        """Whether the secret with this hash works at `at`."""
        expiry = self.expiry_of(secret_hash)
        return expiry is not None and at < expiry


def commitment(key: UUID, secret_hash: bytes) -> str:
    """SHA-256 over the key's id and the stored hash of its secret, in hexadecimal. A secret has 256 random bits."""
    return hashlib.sha256(key.bytes + secret_hash).hexdigest()


def issue(
    key: UUID,
    *,
    owner: UUID,
    owner_kind: OwnerKind,
    name: str,
    scopes: Collection[Scope],
    datasets: Collection[UUID] | None,
    lifetime: timedelta = DEFAULT_LIFETIME,
    secret_hash: bytes,
    by: UUID,
    at: datetime,
) -> KeyIssued:
    """Raises Invalid for a value that breaks its rule."""
    if not scopes:
        raise invalid("scopes", "must name at least one scope")
    if datasets is not None and not 1 <= len(datasets) <= MAX_DATASETS:
        raise invalid("dataset_ids", f"must name 1 to {MAX_DATASETS} datasets, or be left out")
    return KeyIssued(
        **new_stream(key, by=by, at=at),
        owner_id=owner,
        owner_kind=owner_kind,
        name=text(name, name="name", maximum=MAX_NAME),
        scopes=tuple(sorted(scope.value for scope in set(scopes))),
        dataset_ids=None if datasets is None else tuple(sorted(set(datasets))),
        expires_at=at + _checked(lifetime),
        commitment=commitment(key, secret_hash),
    )


def rotate(key: ApiKey, *, secret_hash: bytes, lifetime: timedelta | None, overlap: timedelta, by: UUID, at: datetime) -> KeyRotated:
    """Without `lifetime`, the new secret works for as long as the present one did when it was new.

    Raises Conflict for a revoked or expired key, Invalid for a period that breaks its rule.
    """
    if key.revoked or at >= key.expires_at:
        raise Conflict("The key was revoked or has expired; issue another one")
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise invalid("overlap_hours", f"must be 0 to {MAX_OVERLAP.days * 24}")
    return KeyRotated(
        **next_event(key, by=by, at=at),
        commitment=commitment(key.id, secret_hash),
        expires_at=at + _checked(key.lifetime if lifetime is None else lifetime),
        previous_until=min(at + overlap, key.expires_at),
    )


def revoke(key: ApiKey, *, by: UUID, at: datetime) -> list[KeyRevoked]:
    return [] if key.revoked else [KeyRevoked(**next_event(key, by=by, at=at))]


def evolve(key: ApiKey | None, event: Event) -> ApiKey | None:
    match event:
        case KeyIssued():
            return ApiKey(
                id=event.originator_id,
                version=event.originator_version,
                owner_id=event.owner_id,
                owner_kind=event.owner_kind,
                name=event.name,
                scopes=frozenset(event.scopes),
                dataset_ids=None if event.dataset_ids is None else frozenset(event.dataset_ids),
                issued_by=event.by,
                issued_at=event.at,
                expires_at=event.expires_at,
                lifetime=event.expires_at - event.at,
                commitment=event.commitment,
            )
        case _ if key is None:
            return None
        case KeyRotated():
            return msgspec.structs.replace(
                key,
                version=event.originator_version,
                commitment=event.commitment,
                expires_at=event.expires_at,
                lifetime=event.expires_at - event.at,
                previous_commitment=key.commitment,
                previous_until=event.previous_until,
            )
        case KeyRevoked():
            return msgspec.structs.replace(key, version=event.originator_version, revoked=True)
        case _:
            return msgspec.structs.replace(key, version=event.originator_version)


def _checked(lifetime: timedelta) -> timedelta:
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise invalid("days", f"must be 1 to {MAX_LIFETIME.days}")
    return lifetime
