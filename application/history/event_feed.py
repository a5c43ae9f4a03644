"""The event feed: the log in order from any position, in bounded pages."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from application.history.event_schemas import COLUMNS
from application.ports import EventStore, RecordedEvent
from application.services import QueryDatabase
from domain.access import Actor, Scope
from domain.errors import Forbidden
from domain.registry import is_known

MAX_EVENTS: Final = 1000
HEADS: Final = """select position, hash, signed_at, signature from ops.heads where position > %(after)s order by position limit %(limit)s"""
MAX_BYTES: Final = 4 * 1024**2  # of data in one page; a single larger event is still returned


class FeedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the feed.

    `data` is either as in Kafka, or with private fields in clear and in the newest schema version. Events of a newer release are always
    as in Kafka. `time` is when the event was recorded. `hash` covers all stored columns and the hash before it.
    """

    position: int
    id: UUID
    type: str
    schema_version: int
    stream: UUID
    version: int
    time: datetime | None
    actor: dict[str, Any]
    correlation_id: UUID | None
    causation_id: UUID | None
    traceparent: str | None
    hash: str
    data: Any


class FeedPage(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive events. The next page begins after the position `next`."""

    events: list[FeedEvent]
    next: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A signed head: the log had `hash` at `position`. `signature` (Ed25519, base64) signs `signed_text`, `POSITION:HASH:TIME`."""

    position: int
    hash: str
    signed_text: str
    signature: str


class SignedHead(msgspec.Struct, frozen=True, kw_only=True):
    position: int
    hash: str
    signed_at: datetime
    signature: str

    @property
    def shown(self) -> Head:
        text = f"{self.position}:{self.hash}:{self.signed_at.astimezone(UTC).isoformat()}"
        return Head(position=self.position, hash=self.hash, signed_text=text, signature=self.signature)


class Heads(msgspec.Struct, frozen=True, kw_only=True):
    """A page of signed heads. `public_keys` are Ed25519 keys of 32 bytes in base64, newest first."""

    public_keys: list[str]
    heads: list[Head]


class EventMetadata(msgspec.Struct, frozen=True, kw_only=True):
    actor: dict[str, Any] = {}
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    traceparent: str | None = None


METADATA: Final = msgspec.json.Decoder(EventMetadata)


def require_follower(actor: Actor) -> None:
    """Raises Forbidden unless `actor` may read the whole log."""
    if actor.is_admin or actor.is_system or (actor.is_service and Scope.EVENTS_READ in actor.scopes and actor.datasets is None):
        return
    raise Forbidden(
        f"Insufficient permissions: this needs an administrator, or a service whose key has the scope {Scope.EVENTS_READ} for all datasets"
    )


def after(position: int, *, limit: int, sealed: bool = False, actor: Actor, log: EventStore, max_bytes: int = MAX_BYTES) -> FeedPage:
    """The next events after `position`: at most `limit`, and at most `max_bytes` of data.

    Only administrators get private fields in clear, unless they request `sealed`. Takes at most two queries.
    Blocks. Raises Forbidden, Unavailable.
    """
    require_follower(actor)
    found = log.read(position, max(1, min(limit, MAX_EVENTS)), most_bytes=max_bytes)
    represent = _sealed if sealed or not actor.is_admin else _clear
    if represent is _clear:
        log.prefetch(found)
    events = [represent(recorded, log) for recorded in found]
    return FeedPage(events=events, next=events[-1].position if events else position)


async def heads(after: int, *, limit: int, actor: Actor, reads: QueryDatabase, keys: Sequence[bytes]) -> Heads:
    """At most `limit` signed heads after position `after`, oldest first. Raises Forbidden, Unavailable."""
    require_follower(actor)
    found = await reads.rows(HEADS, {"after": after, "limit": limit}, into=SignedHead)
    return Heads(public_keys=[base64.b64encode(key).decode() for key in keys], heads=[head.shown for head in found])


def _sealed(recorded: RecordedEvent, _: EventStore) -> FeedEvent:
    return _feed_event(recorded, msgspec.Raw(recorded.data), recorded.schema_version)


def _clear(recorded: RecordedEvent, log: EventStore) -> FeedEvent:
    if not is_known(recorded.type, recorded.schema_version):
        return _sealed(recorded, log)
    event = log.decode(recorded)
    fields = {name: value for name, value in msgspec.to_builtins(event).items() if name not in COLUMNS}
    return _feed_event(recorded, fields, event.schema_version)


def _feed_event(recorded: RecordedEvent, data: Any, schema_version: int) -> FeedEvent:
    meta = METADATA.decode(recorded.meta)
    return FeedEvent(
        position=recorded.position,
        id=recorded.event_id,
        type=recorded.type,
        schema_version=schema_version,
        stream=recorded.stream,
        version=recorded.version,
        time=recorded.recorded_at,
        actor=meta.actor,
        correlation_id=meta.correlation_id,
        causation_id=meta.causation_id,
        traceparent=meta.traceparent,
        hash=recorded.hash.hex(),
        data=data,
    )
