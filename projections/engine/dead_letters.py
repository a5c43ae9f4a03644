"""Dead letters: events that could not be applied, and the parked events that wait for them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import msgspec

from application.ports import RecordedEvent
from projections.engine.batches import ParkedEvents, PoisonEvent, ReadModels
from projections.engine.checkpoints import CheckpointConflict
from projections.engine.postgres_errors import reason_of
from projections.engine.projection import PositionedEvent, Table, event_steps

EVENTS_PER_QUERY: Final = 500  # parked events


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


def touched_ids(tables: Sequence[Table], positioned: PositionedEvent) -> set[UUID]:
    """The ids of the rows that an event changes, and its stream. The event must wait if one of them is blocked."""
    (step,) = event_steps(tables, [positioned])
    changed = {key for table, keys in step.touches if table.loads for key in keys}
    return {positioned.event.originator_id, *changed}


def count_parked(parked: ParkedEvents, touched: Callable[[Sequence[int]], Mapping[int, set[UUID]]]) -> dict[int, int]:
    """The number of events that wait for each dead letter, by the rule of `Projector`: an event that touches a blocked row is parked."""
    blocked = {position: {stream} for position, stream in parked.dead_letters.items()}
    counts = dict.fromkeys(blocked, 0)
    positions = sorted(parked.parked)
    for start in range(0, len(positions), EVENTS_PER_QUERY):
        for position, changed_ids in sorted(touched(positions[start : start + EVENTS_PER_QUERY]).items()):
            stream = parked.parked[position]
            for letter_position, ids in blocked.items():
                if letter_position < position and not ids.isdisjoint({stream, *changed_ids}):
                    ids.add(stream)
                    counts[letter_position] += 1
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
        still_blocked: set[UUID],
    ) -> None: ...


def retry(
    projector: RetryingProjector,
    models: ReadModels,
    *,
    read: Callable[[int], RecordedEvent],
    touched: Callable[[RecordedEvent], set[UUID]],
    position: int | None = None,
) -> RetryResult:
    """Apply a dead letter, or all, with the events that wait only for it, in log order; one transaction per dead letter.

    An event that still cannot be applied remains a dead letter. `read` gives the event at a position, `touched` the ids of the rows that it
    changes.
    """
    count = 0
    for letter in [position] if position is not None else sorted(models.parked_events().dead_letters):
        while letter in (parked := models.parked_events()).dead_letters:
            batch, still_blocked = _released_by(letter, parked, read, touched)
            try:
                count += _apply_longest_prefix(projector, batch, parked, still_blocked)
                break
            except CheckpointConflict:
                continue  # another event was parked in the meantime
    return RetryResult(count, len(models.parked_events().dead_letters))


def _released_by(
    letter: int, parked: ParkedEvents, read: Callable[[int], RecordedEvent], touched: Callable[[RecordedEvent], set[UUID]]
) -> tuple[list[RecordedEvent], set[UUID]]:
    """A dead letter with the events that wait only for it, and the streams that remain blocked."""
    still_blocked = {stream for position, stream in parked.dead_letters.items() if position != letter}
    batch = [read(letter)]
    for position, stream in sorted(parked.parked.items()):
        event = read(position)
        if stream in still_blocked or not still_blocked.isdisjoint(touched(event)):
            still_blocked.add(stream)
        else:
            batch.append(event)
    return sorted(batch, key=lambda event: event.position), still_blocked


def _apply_longest_prefix(
    projector: RetryingProjector, batch: Sequence[RecordedEvent], parked: ParkedEvents, still_blocked: set[UUID]
) -> int:
    """Apply the events before the first failing one, which becomes or remains a dead letter. Returns the number of applied events."""
    failed: list[PoisonEvent] = []
    for count in range(len(batch), 0, -1):
        try:
            projector.retry(batch[:count], parked=parked, dead_letters=failed, still_blocked=still_blocked)
        except projector.not_poison:
            raise
        except Exception as error:
            failed = [poison_event(batch[count - 1], error)]
            still_blocked = still_blocked | {event.stream for event in batch[count - 1 :]}
        else:
            return count
    return 0
