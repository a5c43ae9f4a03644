"""What every event has in common, and which of its fields are private."""

import typing
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, TypedDict, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

V = TypeVar("V")

ERASED = "[erased]"  # shown instead of a private text whose key was destroyed
WITHHELD = "[sealed]"  # shown instead of a private text in a process without keys
SEALED_V1_PREFIX = "sealed:1:"  # of private values stored before keys had ids: nonce and ciphertext in base64 follow
SEALED_PREFIX = "sealed:2:"  # of private values since then: the key's id, nonce and ciphertext in base64 follow
SEALED_PREFIXES = (SEALED_PREFIX, SEALED_V1_PREFIX)

PrivateText = Annotated[str, Meta(extra={"private": "originator_id"})]
"""A text that only the key of the event's own stream opens."""

UserPrivateText = Annotated[str, Meta(extra={"private": "user_id"})]
"""A text that only the key of the user named by the event's `user_id` opens."""

PrivateTexts = Annotated[dict[str, str], Meta(extra={"private": "originator_id"})]
"""Free texts by name (patients may be among them), closed like PrivateText."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: version `originator_version` of stream `originator_id`, at `at` (UTC), done by `by`."""

    schema_version: ClassVar[int] = 1

    originator_id: UUID
    originator_version: int
    at: datetime
    by: UUID


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the events of one stream add up to: `version` of them."""

    id: UUID
    version: int


class EventMeta(TypedDict):
    """The fields that all events have."""

    originator_id: UUID
    originator_version: int
    at: datetime
    by: UUID


def event_meta(stream: UUID, version: int, *, by: UUID, at: datetime) -> EventMeta:
    """Of event `version` of `stream`."""
    return {"originator_id": stream, "originator_version": version, "at": at, "by": by}


def new_stream(stream: UUID, *, by: UUID, at: datetime) -> EventMeta:
    """Of a stream's first event."""
    return event_meta(stream, 1, by=by, at=at)


def next_event(state: State, *, by: UUID, at: datetime, offset: int = 0) -> EventMeta:
    """Of the event that follows `state`; `offset`: how many other new events come before it."""
    return event_meta(state.id, state.version + 1 + offset, by=by, at=at)


def changed(new: V | UnsetType, present: V) -> V | UnsetType:
    """`new` where it differs from `present`, else UNSET: events leave out what did not change."""
    return UNSET if new == present else new


def fields_set(event: Event, *names: str) -> dict[str, object]:
    """The values of those of the named fields that an event does not leave out."""
    return {name: value for name in names if (value := getattr(event, name)) is not UNSET}


@cache
def private_fields(kind: type[Event]) -> dict[str, str]:
    """The private fields of an event type, each with the name of the field that holds its subject."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: owner for name, hint in hints.items() if (owner := _owner(hint)) is not None}


def _owner(hint: Any) -> str | None:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.extra and "private" in meta.extra:
            return str(meta.extra["private"])
    return next((owner for part in typing.get_args(hint) if (owner := _owner(part)) is not None), None)
