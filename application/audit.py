"""What happened to one thing, and how it stood at any moment: read from the record alone."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from application.ports import Log, Recorded
from domain.errors import NotFound
from domain.events import Event, State
from domain.registry import NOUN_OF, NOUNS


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event, told for a reader."""

    position: int
    at: datetime
    type: str
    stream: UUID
    version: int
    actor: dict[str, object]
    data: Event


def trail(about: UUID, *, others: Iterable[int], log: Log) -> list[Entry]:
    """Everything about a thing, oldest first: its own stream, and the events of other streams (at positions `others`) that touch it."""
    found = {recorded.position: recorded for recorded in log.history(about)}
    for position in others:
        if position not in found:
            found |= {recorded.position: recorded for recorded in log.read(position - 1, 1)}
    if not found:
        raise NotFound(f"The record knows nothing of {about}")
    return [_entry(found[position], log) for position in sorted(found)]


def state_of(about: UUID, *, until: datetime | None, position: int | None, log: Log) -> State:
    """How a thing stood at a moment or position; now, where neither is given. Raises NotFound."""
    history = [recorded for recorded in log.history(about) if position is None or recorded.position <= position]
    if not history:
        raise NotFound(f"The record knows nothing of {about} at that time")
    if history[0].type == "ChunkJudged":
        raise NotFound(f"{about} is a chunk of a job, with one event and no state: see its trail")
    noun = NOUNS[NOUN_OF[history[0].type]]
    state: State | None = log.load(about, noun.evolve, version=history[-1].version, until=until)
    if state is None:
        raise NotFound(f"{about} did not exist yet")
    return state


def _entry(recorded: Recorded, log: Log) -> Entry:
    event = log.decode(recorded)
    meta = msgspec.json.decode(recorded.meta)
    return Entry(
        position=recorded.position,
        at=event.at,
        type=recorded.type,
        stream=recorded.stream,
        version=recorded.version,
        actor=meta.get("actor", {}),
        data=event,
    )
