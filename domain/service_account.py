"""A service account: a program, such as a microscope or a script, that acts with keys of its own."""

import re
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from domain.events import Event, PrivateText, State, new_stream, next_event
from domain.values import MAX_DESCRIPTION, invalid, multiline_text, refuse_secret, system_actor

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


class ServiceAccountCreated(Event, frozen=True, kw_only=True):
    """`name` is stored in clear: it names a program, never a person. `description` says what the program does; "" if nothing is said.

    Sealing the description creates the data key of the service account, with which the names of its keys are sealed.
    """

    name: str
    description: PrivateText


class ServiceAccountDeleted(Event, frozen=True, kw_only=True):
    """All keys of the service account stop working; its history stays readable."""


class LegacyTokensRevoked(Event, frozen=True, kw_only=True):
    """Service tokens of earlier releases that were issued up to now are refused. They are signed tokens, which are stored nowhere."""


CLOSING = (ServiceAccountDeleted,)


class ServiceAccount(State, frozen=True, kw_only=True):
    name: str
    description: str
    created_at: datetime
    deleted: bool = False


class LegacyTokens(State, frozen=True, kw_only=True):
    """Signed service tokens of earlier releases: those issued up to `revoked_at` are refused."""

    revoked_at: datetime


LEGACY_TOKENS: Final = system_actor("legacy tokens")
"""The stream of the signed service tokens of earlier releases."""
LEGACY_LIFETIME: Final = timedelta(days=90)


def revoke_legacy_tokens(tokens: LegacyTokens | None, *, by: UUID, at: datetime) -> LegacyTokensRevoked:
    """All of those that were issued up to `at`."""
    meta = new_stream(LEGACY_TOKENS, by=by, at=at) if tokens is None else next_event(tokens, by=by, at=at)
    return LegacyTokensRevoked(**meta)


def create(service: UUID, *, name: str, description: str = "", by: UUID, at: datetime) -> ServiceAccountCreated:
    """Raises Invalid for an invalid name or description."""
    if not NAME.fullmatch(name):
        raise invalid("name", "must have 1 to 100 letters, digits, dots, underscores or hyphens")
    refuse_secret(name, name="name")
    about = multiline_text(description, name="description", minimum=0, maximum=MAX_DESCRIPTION)
    return ServiceAccountCreated(**new_stream(service, by=by, at=at), name=name, description=about)


def delete(service: ServiceAccount, *, by: UUID, at: datetime) -> list[ServiceAccountDeleted]:
    return [] if service.deleted else [ServiceAccountDeleted(**next_event(service, by=by, at=at))]


def evolve(service: ServiceAccount | None, event: Event) -> ServiceAccount | None:
    match event:
        case ServiceAccountCreated():
            return ServiceAccount(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                description=event.description,
                created_at=event.at,
            )
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
