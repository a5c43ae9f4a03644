"""The base of all events and states, and the declaration of private fields."""

import typing
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, TypedDict, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

V = TypeVar("V")

ERASED = "[erased]"  # replaces a private text whose key was destroyed
WITHHELD = "[sealed]"  # replaces a private text in a process without keys
SEALED_V1_PREFIX = "sealed:1:"  # starts a private value without key id; nonce and ciphertext follow in base64
SEALED_PREFIX = "sealed:2:"  # starts a private value with key id; key id, nonce and ciphertext follow in base64
SEALED_PREFIXES = (SEALED_PREFIX, SEALED_V1_PREFIX)

PrivateText = Annotated[str, Meta(extra={"private": "originator_id"})]
"""A text encrypted with the data key of the event's own stream."""

UserPrivateText = Annotated[str, Meta(extra={"private": "user_id"})]
"""A text encrypted with the data key of the user that the event's `user_id` names."""

PrivateTexts = Annotated[dict[str, str], Meta(extra={"private": "originator_id"})]
"""Free texts by name, which may contain patient data; encrypted like PrivateText."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded fact: version `originator_version` of the stream `originator_id`, at the time `at` (UTC), caused by the actor `by`."""

    schema_version: ClassVar[int] = 1

    originator_id: UUID
    originator_version: int
    at: datetime
    by: UUID

    @property
    def written_version(self) -> int:
        """The schema version in which the event is stored: an earlier one where that says everything, so that older releases read it."""
        return self.schema_version


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the first `version` events of a stream."""

    id: UUID
    version: int


class EventMeta(TypedDict):
    """The fields that all events share."""

    originator_id: UUID
    originator_version: int
    at: datetime
    by: UUID


def event_meta(stream: UUID, version: int, *, by: UUID, at: datetime) -> EventMeta:
    """The common fields of event `version` of `stream`."""
    return {"originator_id": stream, "originator_version": version, "at": at, "by": by}


def new_stream(stream: UUID, *, by: UUID, at: datetime) -> EventMeta:
    """The common fields of the first event of `stream`."""
    return event_meta(stream, 1, by=by, at=at)


def next_event(state: State, *, by: UUID, at: datetime, offset: int = 0) -> EventMeta:
    """The common fields of the event that follows `state`, after `offset` other new events."""
    return event_meta(state.id, state.version + 1 + offset, by=by, at=at)


def changed(new: V | UnsetType, present: V) -> V | UnsetType:
    """`new` where it differs from `present`, else UNSET: events omit unchanged fields."""
    return UNSET if new == present else new


def fields_set(event: Event, *names: str) -> dict[str, object]:
    """Those of the named fields that the event sets, with their values."""
    return {name: value for name in names if (value := getattr(event, name)) is not UNSET}


@cache
def private_fields(kind: type[Event]) -> dict[str, str]:
    """The private fields of an event type, each with the name of the field that identifies its subject."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: owner for name, hint in hints.items() if (owner := _owner(hint)) is not None}


def _owner(hint: Any) -> str | None:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.extra and "private" in meta.extra:
            return str(meta.extra["private"])
    return next((owner for part in typing.get_args(hint) if (owner := _owner(part)) is not None), None)
