"""What happened to one thing, and how it stood at any moment: read from the record alone."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from application.ports import Log, Recorded
from domain.errors import Invalid, NotFound
from domain.events import Event, State
from domain.registry import NOUN_OF, NOUNS, is_known

POSITION_DIGITS = 18
UNRECORDED = datetime.min.replace(tzinfo=UTC)  # of an event that is not in the log yet


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event, told for a reader. `data` of what a newer release wrote is as it is stored, its private fields sealed."""

    position: int
    at: datetime
    type: str
    stream: UUID
    version: int
    actor: dict[str, object]
    data: Event | dict[str, Any]


def trail(about: UUID, *, others: Iterable[int], log: Log, after: int = 0, most: int | None = None) -> list[Entry]:
    """Everything about a thing, oldest first: its own stream, and the events of other streams (at positions `others`) that touch it.
    At most `most` of those that follow position `after`. Raises NotFound for what the record does not know at all."""
    own = {recorded.position: recorded for recorded in log.history(about)}
    positions = sorted(own.keys() | set(others))
    if not positions:
        raise NotFound(f"The record knows nothing of {about}")
    wanted = [position for position in positions if position > after][:most]
    return [_entry(own[position] if position in own else log.read(position - 1, 1)[0], log) for position in wanted]


def state_of(about: UUID, *, until: datetime | None, position: int | None, log: Log) -> State:
    """How a thing stood at a moment or position; now, where neither is given. Raises NotFound, UpgradeNeeded."""
    history = [recorded for recorded in log.history(about) if position is None or recorded.position <= position]
    if not history:
        raise NotFound(f"The record knows nothing of {about} at that time")
    log.decode(history[0])  # of what kind it is, only its first event says
    if history[0].type == "ChunkJudged":
        raise NotFound(f"{about} is a chunk of a job, with one event and no state: see its trail")
    noun = NOUNS[NOUN_OF[history[0].type]]
    state: State | None = log.load(about, noun.evolve, version=history[-1].version, until=until)
    if state is None:
        raise NotFound(f"{about} did not exist yet")
    return state


def moment(text: str | None) -> tuple[int | None, datetime | None]:
    """A position or a time, as `as_of` names it; neither means now. Raises Invalid."""
    if text is None:
        return None, None
    if text.isdecimal() and len(text) <= POSITION_DIGITS:
        return int(text), None
    try:
        named = datetime.fromisoformat(text)
    except ValueError:
        said = "must be a time like 2026-03-01T12:00:00Z, or a position like 4711"
        raise Invalid(f"as_of {said}", errors=[{"loc": ["query", "as_of"], "msg": said}]) from None
    return None, named if named.tzinfo else named.replace(tzinfo=UTC)


def _entry(recorded: Recorded, log: Log) -> Entry:
    event = log.decode(recorded) if is_known(recorded.type, recorded.schema_version) else None
    meta = msgspec.json.decode(recorded.meta)
    return Entry(
        position=recorded.position,
        at=event.at if event else recorded.recorded_at or UNRECORDED,
        type=recorded.type,
        stream=recorded.stream,
        version=recorded.version,
        actor=meta.get("actor", {}),
        data=event or msgspec.json.decode(recorded.data, type=dict[str, Any]),
    )
