"""A service account: a program, such as a microscope or a script, that acts with keys of its own."""

import re
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from domain.events import Event, State, new_stream, next_event
from domain.values import invalid

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


class ServiceAccountCreated(Event, frozen=True, kw_only=True):
    """`name` is stored in clear: it names a program, never a person."""

    name: str


class ServiceAccountDeleted(Event, frozen=True, kw_only=True):
    """All keys of the service account stop working; its history stays readable."""


class LegacyTokensRevoked(Event, frozen=True, kw_only=True):
    """Service tokens of earlier releases that were issued up to now are refused. They are signed tokens, which are stored nowhere."""


CLOSING = (ServiceAccountDeleted,)


class ServiceAccount(State, frozen=True, kw_only=True):
    name: str
    created_at: datetime
    deleted: bool = False


class LegacyTokens(State, frozen=True, kw_only=True):
    """Signed service tokens of earlier releases: those issued up to `revoked_at` are refused."""

    revoked_at: datetime


def create(service: UUID, *, name: str, by: UUID, at: datetime) -> ServiceAccountCreated:
    """Raises Invalid for an invalid name."""
    if not NAME.fullmatch(name):
        raise invalid("name", "must have 1 to 100 letters, digits, dots, underscores or hyphens")
    return ServiceAccountCreated(**new_stream(service, by=by, at=at), name=name)


def delete(service: ServiceAccount, *, by: UUID, at: datetime) -> list[ServiceAccountDeleted]:
    return [] if service.deleted else [ServiceAccountDeleted(**next_event(service, by=by, at=at))]


def evolve(service: ServiceAccount | None, event: Event) -> ServiceAccount | None:
    match event:
        case ServiceAccountCreated():
            return ServiceAccount(id=event.originator_id, version=event.originator_version, name=event.name, created_at=event.at)
        case _ if service is None:
            return None
        case ServiceAccountDeleted():
            return msgspec.structs.replace(service, version=event.originator_version, deleted=True)
        case _:
            return msgspec.structs.replace(service, version=event.originator_version)


def evolve_legacy_tokens(tokens: LegacyTokens | None, event: Event) -> LegacyTokens | None:
    match event:
        case LegacyTokensRevoked():
            return LegacyTokens(id=event.originator_id, version=event.originator_version, revoked_at=event.at)
        case _:
            return tokens
