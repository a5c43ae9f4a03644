"""Events that could not be applied: set aside with their reason, and with all that must wait behind them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec
import psycopg

from application.ports import RecordedEvent
from projections.engine.batches import ParkedEvents, PoisonEvent, ReadModels
from projections.engine.checkpoints import CheckpointConflict
from projections.engine.projection import PositionedEvent, Table, steps

LISTED = "select position, stream, type, reason, at from dead_letters order by position"
EVENTS_PER_QUERY = 500  # parked events read at once


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`parked`: how many later events wait behind it, of its own stream and of all that they touch. One may wait behind several letters."""

    position: int
    stream: UUID
    type: str
    reason: str
    at: datetime
    parked: int = 0


class Retried(NamedTuple):
    """Events applied at last, dead letters and parked ones; and dead letters left."""

    applied: int
    left: int


def reason_of(error: Exception) -> str:
    """Never the row's content: it may be private."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else str(error)
    return f"{type(error).__name__}: {said}"[:500]


def letter(event: RecordedEvent, error: Exception) -> PoisonEvent:
    return PoisonEvent(event.position, event.stream, event.type, reason_of(error))


def touched(tables: Sequence[Table], happened: PositionedEvent) -> set[UUID]:
    """The ids of the rows that an event changes, and its own stream: where one of them waits, the event has to wait too."""
    (step,) = steps(tables, [happened])
    changed = {key for table, keys in step.touches if table.loads for key in keys}
    return {happened.event.originator_id, *changed}


def listed(
    connection: psycopg.Connection, models: ReadModels, *, touches: Callable[[Sequence[int]], Mapping[int, set[UUID]]]
) -> list[DeadLetter]:
    """`touches`: of parked events, by position, the ids that each changes."""
    found, counts = of(connection), waiting(models.behind(), touches)
    return [msgspec.structs.replace(one, parked=counts.get(one.position, 0)) for one in found]


def of(connection: psycopg.Connection) -> list[DeadLetter]:
    """As `listed`, without counting what waits."""
    names = ("position", "stream", "type", "reason", "at")
    return [DeadLetter(**dict(zip(names, row, strict=True))) for row in connection.execute(LISTED).fetchall()]


def waiting(behind: ParkedEvents, touches: Callable[[Sequence[int]], Mapping[int, set[UUID]]]) -> dict[int, int]:
    """How many parked events wait behind each dead letter, as `Projector` parks them: what touches something that waits, waits too."""
    blocked = {position: {stream} for position, stream in behind.letters.items()}
    counts = dict.fromkeys(blocked, 0)
    parked = sorted(behind.parked)
    for start in range(0, len(parked), EVENTS_PER_QUERY):
        for position, touched_ids in sorted(touches(parked[start : start + EVENTS_PER_QUERY]).items()):
            stream = behind.parked[position]
            for letter_position, ids in blocked.items():
                if letter_position < position and not ids.isdisjoint({stream, *touched_ids}):
                    ids.add(stream)
                    counts[letter_position] += 1
    return counts


class RetryingProjector(Protocol):
    """The projector, as far as a retry needs it. Errors in `not_poison` say nothing about an event."""

    not_poison: tuple[type[Exception], ...]

    def retry(
        self, batch: Sequence[RecordedEvent], *, behind: ParkedEvents, aside: Sequence[PoisonEvent] = (), left: set[UUID]
    ) -> None: ...


def retry(
    projector: RetryingProjector,
    models: ReadModels,
    *,
    read: Callable[[int], RecordedEvent],
    touches: Callable[[RecordedEvent], set[UUID]],
    position: int | None = None,
) -> Retried:
    """Apply a dead letter (or each) and all that waits for it alone, in the order of the log; each letter in one transaction.

    What still cannot be applied stays as it is. `read` brings an event by its position, `touches` says what it changes.
    """
    count = 0
    for at in [position] if position is not None else sorted(models.behind().letters):
        while at in (behind := models.behind()).letters:
            batch, left = _freed(behind, at, read, touches)
            try:
                count += _apply_as_many_as_can_be(projector, batch, behind, left)
                break
            except CheckpointConflict:
                continue  # meanwhile more came to wait for it
    return Retried(count, len(models.behind().letters))


def _freed(
    behind: ParkedEvents, at: int, read: Callable[[int], RecordedEvent], touches: Callable[[RecordedEvent], set[UUID]]
) -> tuple[list[RecordedEvent], set[UUID]]:
    """A dead letter with the parked events that wait for no other one; and the streams that stay blocked."""
    left = {stream for position, stream in behind.letters.items() if position != at}
    batch = [read(at)]
    for position, stream in sorted(behind.parked.items()):
        event = read(position)
        if stream in left or not left.isdisjoint(touches(event)):
            left.add(stream)
        else:
            batch.append(event)
    return sorted(batch, key=lambda event: event.position), left


def _apply_as_many_as_can_be(projector: RetryingProjector, batch: Sequence[RecordedEvent], behind: ParkedEvents, left: set[UUID]) -> int:
    """The first event that cannot be applied becomes, or stays, the dead letter."""
    failed: list[PoisonEvent] = []
    for count in range(len(batch), 0, -1):
        try:
            projector.retry(batch[:count], behind=behind, aside=failed, left=left)
        except projector.not_poison:
            raise
        except Exception as error:
            failed = [letter(batch[count - 1], error)]
            left = left | {event.stream for event in batch[count - 1 :]}
        else:
            return count
    return 0
