"""Dead letters: events that could not be applied, and the parked events that wait for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import msgspec

from application.ports import RecordedEvent
from projections.engine.batches import ParkedEvents, PoisonEvent, ReadModels
from projections.engine.checkpoints import CheckpointConflict
from projections.engine.postgres_errors import reason_of
from projections.engine.projection import PositionedEvent, Table, event_steps

EVENTS_PER_QUERY: Final = 500  # dead letters and parked events


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter. `parked` is the number of later events that wait for it; an event may wait for several dead letters."""

    position: int
    stream: UUID
    type: str
    reason: str
    at: datetime
    parked: int = 0


class RetryResult(NamedTuple):
    """The number of applied events (dead letters and parked ones), and of remaining dead letters."""

    applied: int
    remaining: int


def poison_event(event: RecordedEvent, error: Exception) -> PoisonEvent:
    return PoisonEvent(event.position, event.stream, event.type, reason_of(error))


class TouchedIds(NamedTuple):
    """The ids of the rows that an event changes, its stream included, and of those that it only reads."""

    stream: UUID
    changed: AbstractSet[UUID]
    read: AbstractSet[UUID] = frozenset()


def touched_ids(tables: Sequence[Table], positioned: PositionedEvent) -> TouchedIds:
    (step,) = event_steps(tables, [positioned])
    changed = {key for table, keys in step.touches if table.loads for key in keys}
    read = {key for table, _ in step.touches for _, key in table.reads(positioned)}
    stream = positioned.event.originator_id
    return TouchedIds(stream, {stream, *changed}, read)


def only_stream(recorded: RecordedEvent) -> TouchedIds:
    """What is known of an event that cannot be decoded."""
    return TouchedIds(recorded.stream, {recorded.stream})


class WaitingEvents:
    """What dead letters and parked events hold back: their streams, and the rows that they change.

    An event must wait if it changes or reads the row of a waiting stream, or if a waiting event changes the row of its own stream. Two
    events of other streams that change the same row, such as two chunks of a job, give the same row in any order.
    """

    def __init__(self, streams: Iterable[UUID] = (), changed: Iterable[UUID] = ()) -> None:
        self._streams, self._changed = set(streams), set(changed)

    def __bool__(self) -> bool:
        return bool(self._streams)

    def hold_stream(self, stream: UUID) -> bool:
        return stream in self._changed

    def hold(self, touched: TouchedIds) -> bool:
        return self.hold_stream(touched.stream) or not self._streams.isdisjoint(touched.changed | touched.read)

    def add(self, touched: TouchedIds) -> None:
        self._streams.add(touched.stream)
        self._changed |= touched.changed

    def copy(self) -> "WaitingEvents":
        return WaitingEvents(self._streams, self._changed)


def count_parked(parked: ParkedEvents, touched: Callable[[Sequence[int]], Mapping[int, TouchedIds]]) -> dict[int, int]:
    """The number of events that wait for each dead letter, by the rule of `WaitingEvents`."""
    waiting: dict[int, WaitingEvents] = {}
    counts = dict.fromkeys(parked.dead_letters, 0)
    positions = parked.positions
    for start in range(0, len(positions), EVENTS_PER_QUERY):
        for position, ids in sorted(touched(positions[start : start + EVENTS_PER_QUERY]).items()):
            for letter, behind in waiting.items():
                if position in parked.parked and behind.hold(ids):
                    behind.add(ids)
                    counts[letter] += 1
            if position in parked.dead_letters:
                waiting[position] = WaitingEvents()
                waiting[position].add(ids)
    return counts


class RetryingProjector(Protocol):
    """The part of the projector that a retry needs. Errors in `not_poison` are not the fault of an event."""

    not_poison: tuple[type[Exception], ...]

    def retry(
        self,
        batch: Sequence[RecordedEvent],
        *,
        parked: ParkedEvents,
        dead_letters: Sequence[PoisonEvent] = (),
    ) -> None: ...


def retry(
    projector: RetryingProjector,
    models: ReadModels,
    *,
    read: Callable[[int], RecordedEvent],
    touched: Callable[[RecordedEvent], TouchedIds],
    position: int | None = None,
) -> RetryResult:
    """Apply a dead letter, or all, with the events that wait only for it, in log order; one transaction per dead letter.

    An event that still cannot be applied remains a dead letter. `read` gives the event at a position, `touched` the ids of the rows that it
    changes and reads.
    """
    count = 0
    for letter in [position] if position is not None else sorted(models.parked_events().dead_letters):
        while letter in (parked := models.parked_events()).dead_letters:
            try:
                count += _apply_longest_prefix(projector, _released_by(letter, parked, read, touched), parked)
                break
            except CheckpointConflict:
                continue  # another event was parked in the meantime
    return RetryResult(count, len(models.parked_events().dead_letters))


def _released_by(
    letter: int, parked: ParkedEvents, read: Callable[[int], RecordedEvent], touched: Callable[[RecordedEvent], TouchedIds]
) -> list[RecordedEvent]:
    """A dead letter with the events that wait only for it, in log order."""
    released: list[RecordedEvent] = []
    waiting = WaitingEvents()
    for position in parked.positions:
        event = read(position)
        ids = touched(event)
        if position != letter and (position in parked.dead_letters or waiting.hold(ids)):
            waiting.add(ids)
        else:
            released.append(event)
    return released


def _apply_longest_prefix(projector: RetryingProjector, batch: Sequence[RecordedEvent], parked: ParkedEvents) -> int:
    """Apply the events before the first failing one, which becomes or remains a dead letter. Returns the number of applied events."""
    failed: list[PoisonEvent] = []
    for count in range(len(batch), 0, -1):
        try:
            projector.retry(batch[:count], parked=parked, dead_letters=failed)
        except projector.not_poison:
            raise
        except Exception as error:
            failed = [poison_event(batch[count - 1], error)]
        else:
            return count
    return 0
