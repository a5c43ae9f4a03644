"""The audit trail of one thing, and its state at any position, read from the log only."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from application.history.trail_sentences import Scene, names_in, sentence, unknown
from application.ports import EventStore, RecordedEvent
from domain.errors import NotFound
from domain.events import Event, State
from domain.registry import NOUN_OF, NOUNS, is_known

UNRECORDED = datetime.min.replace(tzinfo=UTC)  # for an event that is not in the log yet


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event in the audit trail, with a sentence and all of its fields.

    `data` of a newer release's event is shown as it is stored, with private fields encrypted.
    """

    position: int
    at: datetime
    type: str
    stream: UUID
    version: int
    actor: dict[str, object]
    sentence: str
    data: Event | dict[str, Any]


def trail(about: UUID, *, others: Collection[int], log: EventStore, after: int = 0, maximum: int | None = None) -> list[Entry]:
    """The audit trail of a thing, oldest first: its own stream, and the events at the positions `others` that concern it.

    Returns at most `maximum` entries after position `after`, with at most five queries. Raises NotFound if the log has no events for it.
    """
    found = log.touching(about, others, after=after, maximum=maximum)
    if not found and log.event(about, 1) is None:
        raise NotFound(f"No events found for {about}")
    return described(found, about=about, log=log)


def described(found: Sequence[RecordedEvent], *, about: UUID | None, log: EventStore) -> list[Entry]:
    """The entries of some events, each with a sentence about `about`, or about its own stream. Takes three queries."""
    log.prefetch(found)
    events = [log.decode(one) if is_known(one.type, one.schema_version) else None for one in found]
    actors = [_actor_of(recorded) for recorded in found]
    names = names_in(filter(None, events), _ids(actors), log)
    together = zip(found, events, actors, strict=True)
    return [_entry(recorded, event, Scene(about or recorded.stream, actor, names)) for recorded, event, actor in together]


def state_of(about: UUID, *, until: int, log: EventStore) -> State:
    """The state of a thing at position `until`. Raises NotFound, UpgradeNeeded."""
    first = log.event(about, 1)
    if first is None or first.position > until:
        raise NotFound(f"No events found for {about} at that time")
    log.decode(first)  # raises UpgradeNeeded, since only the first event names the noun
    if first.type == "ChunkJudged":
        raise NotFound(f"{about} is a chunk of a job, which has one event and no state: see its audit trail")
    state: State | None = log.load(about, NOUNS[NOUN_OF[first.type]].evolve, until=until)
    if state is None:
        raise NotFound(f"{about} did not exist yet")
    return state


def _entry(recorded: RecordedEvent, event: Event | None, scene: Scene) -> Entry:
    return Entry(
        position=recorded.position,
        at=event.at if event else recorded.recorded_at or UNRECORDED,
        type=recorded.type,
        stream=recorded.stream,
        version=recorded.version,
        actor=dict(scene.actor),
        sentence=sentence(event, scene) if event else unknown(recorded.type, scene),
        data=event or msgspec.json.decode(recorded.data, type=dict[str, Any]),
    )


def _actor_of(recorded: RecordedEvent) -> dict[str, Any]:
    meta: dict[str, Any] = msgspec.json.decode(recorded.meta)
    actor: dict[str, Any] = meta.get("actor", {})
    return actor


def _ids(actors: Sequence[Mapping[str, Any]]) -> Iterable[UUID]:
    """The ids of the users who acted, and of the keys with which anybody acted."""
    users = {UUID(actor["id"]) for actor in actors if actor.get("kind") == "user" and "id" in actor}
    return users | {UUID(actor["key"]) for actor in actors if actor.get("key")}
