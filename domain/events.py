"""What every event has in common, and which of its fields are private."""

import typing
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar
from uuid import UUID

import msgspec
from msgspec import Meta

ERASED = "[erased]"  # what a reader sees of a private text whose key was destroyed
WITHHELD = "[sealed]"  # what a process reads of a private text that it has no keys for
SEALED_BEFORE = "sealed:1:"  # how a private value begins where it was stored before keys had ids: nonce and ciphertext in base64 follow
SEALED = "sealed:2:"  # how it begins since: the key's id, nonce and ciphertext in base64 follow
SEALED_FORMS = (SEALED, SEALED_BEFORE)

PrivateText = Annotated[str, Meta(extra={"private": "originator_id"})]
"""A text that only the key of the event's own stream opens."""

UserPrivateText = Annotated[str, Meta(extra={"private": "user_id"})]
"""A text that only the key of the user named by the event's `user_id` opens."""

PrivateTexts = Annotated[dict[str, str], Meta(extra={"private": "originator_id"})]
"""Free texts by name (patients may be among them), closed like PrivateText."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: version `originator_version` of stream `originator_id`, at `at` (UTC), through `by`."""

    schema_version: ClassVar[int] = 1

    originator_id: UUID
    originator_version: int
    at: datetime
    by: UUID


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the events of one stream add up to: `version` of them."""

    id: UUID
    version: int


def new_stream(stream: UUID, *, by: UUID, at: datetime) -> dict[str, Any]:
    """The common fields of a stream's first event."""
    return {"originator_id": stream, "originator_version": 1, "at": at, "by": by}


def next_event(state: State, *, by: UUID, at: datetime) -> dict[str, Any]:
    """The common fields of the event that follows `state`."""
    return {"originator_id": state.id, "originator_version": state.version + 1, "at": at, "by": by}


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
