"""What every event has in common, and which of its fields are private."""

from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

import msgspec
from msgspec import Meta

ERASED = "[erased]"  # what a reader sees of a private text whose key was destroyed

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


def first(stream: UUID, *, by: UUID, at: datetime) -> dict[str, Any]:
    """The common fields of a stream's first event."""
    return {"originator_id": stream, "originator_version": 1, "at": at, "by": by}


def following(state: State, *, by: UUID, at: datetime) -> dict[str, Any]:
    """The common fields of the event that follows `state`."""
    return {"originator_id": state.id, "originator_version": state.version + 1, "at": at, "by": by}
