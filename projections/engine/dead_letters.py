"""Dead letters: events that could not be applied, and the events that are parked behind them."""

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

EVENTS_PER_QUERY: Final = 500  # parked events that are read together


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`parked`: how many later events wait behind it, of its own stream and of all that they touch. An event may wait behind several."""

    position: int
    stream: UUID
    type: str
    reason: str
    at: datetime
    parked: int = 0


class RetryResult(NamedTuple):
    """How many events were applied, dead letters and parked ones; and how many dead letters remain."""

    applied: int
    remaining: int


def poison_event(event: RecordedEvent, error: Exception) -> PoisonEvent:
    return PoisonEvent(event.position, event.stream, event.type, reason_of(error))


def touched_ids(tables: Sequence[Table], positioned: PositionedEvent) -> set[UUID]:
    """The ids of the rows that an event changes, and its own stream: while one of them is blocked, the event has to wait too."""
    (step,) = event_steps(tables, [positioned])
    changed = {key for table, keys in step.touches if table.loads for key in keys}
    return {positioned.event.originator_id, *changed}


def count_parked(parked: ParkedEvents, touched: Callable[[Sequence[int]], Mapping[int, set[UUID]]]) -> dict[int, int]:
    """How many events are parked behind each dead letter, by the rule of `Projector`: what touches a blocked row is parked."""
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
    """The projector, as far as a retry needs it. Errors in `not_poison` say nothing about an event."""

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
    """Apply a dead letter (or each) and the events parked behind it alone, in the order of the log; each letter in one transaction.

    An event that still cannot be applied stays a dead letter. `read` reads an event by its position, `touched` gives the ids of the
    rows that it changes.
    """
    count = 0
    for letter in [position] if position is not None else sorted(models.parked_events().dead_letters):
        while letter in (parked := models.parked_events()).dead_letters:
            batch, still_blocked = _released_by(letter, parked, read, touched)
            try:
                count += _apply_longest_prefix(projector, batch, parked, still_blocked)
                break
            except CheckpointConflict:
                continue  # meanwhile another event was parked behind it
    return RetryResult(count, len(models.parked_events().dead_letters))


def _released_by(
    letter: int, parked: ParkedEvents, read: Callable[[int], RecordedEvent], touched: Callable[[RecordedEvent], set[UUID]]
) -> tuple[list[RecordedEvent], set[UUID]]:
    """A dead letter with the events that are parked behind no other one, and the streams that stay blocked."""
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
    """The first event that cannot be applied becomes, or stays, the dead letter. Returns how many were applied."""
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
