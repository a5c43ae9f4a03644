"""The projector: applies every event of the log once and in order. An event that cannot be applied becomes a dead letter."""

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, TypeVar

import structlog

from application.ports import RecordedEvent
from projections.engine.batches import (
    TABLES,
    BatchResult,
    Changes,
    CheckpointToken,
    Decoder,
    ParkedEvents,
    PoisonEvent,
    ReadModels,
    decode_batch,
    project,
)
from projections.engine.checkpoints import Checkpoint, CheckpointConflict
from projections.engine.dead_letters import EVENTS_PER_QUERY, TouchedIds, WaitingEvents, only_stream, poison_event, touched_ids
from projections.engine.postgres_errors import NOT_POISON
from projections.engine.projection import PositionedEvent

log = structlog.get_logger()
T = TypeVar("T")


class ProjectorLimits(NamedTuple):
    """Number of attempts for a single failing event before it becomes a dead letter, and the delay between them."""

    max_attempts: int = 3
    retry_delay_seconds: float = 0.05


DEFAULT_LIMITS: Final = ProjectorLimits()


class Projector:
    """Applies batches after its checkpoint, from any source. Calls block, and belong to one thread.

    If another process moves the checkpoint, calls raise CheckpointConflict. After any error, nothing of the current batch was applied, and
    `checkpoint()` must be called again. `discarded` reads the positions of discarded events, which are skipped. `fatal` are errors of the
    installation, such as a wrong key, which are not the fault of an event.
    """

    def __init__(
        self,
        models: Callable[[], ReadModels],
        decoder: Decoder,
        *,
        discarded: Callable[[], AbstractSet[int]] = frozenset,
        fatal: tuple[type[Exception], ...] = (),
        limits: ProjectorLimits = DEFAULT_LIMITS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._open, self._decoder, self._read_discarded = models, decoder, discarded
        self._limits, self._sleep = limits, sleep
        self.not_poison: tuple[type[Exception], ...] = (*NOT_POISON, *fatal)
        self._models: ReadModels | None = None
        self._token: CheckpointToken | None = None
        self._waiting: WaitingEvents | None = None  # None: not read yet
        self._discarded: AbstractSet[int] = frozenset()

    def close(self) -> None:
        if self._models is not None:
            self._models.close()
        self._models = self._token = None

    def checkpoint(self) -> Checkpoint:
        """Read the checkpoint from the database."""
        return self._invalidating_on_error(self._read).checkpoint

    def apply(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult:
        """Apply `batch` and move the checkpoint to `to`. The batch is contiguous, not empty, and starts right after the checkpoint.

        Raises CheckpointConflict, NotInLog if the log does not contain the last event of the batch, and UpgradeNeeded for an event of a
        newer release.
        """
        token = self._token or self._invalidating_on_error(self._read)
        if token.checkpoint.position != batch[0].position - 1:
            self._token = None
            raise CheckpointConflict
        if self._waiting is None:
            self._waiting = self._invalidating_on_error(self._read_waiting)
        return self._invalidating_on_error(lambda: self._apply_or_divide(batch, to))

    def retry(
        self,
        batch: Sequence[RecordedEvent],
        *,
        parked: ParkedEvents,
        dead_letters: Sequence[PoisonEvent] = (),
    ) -> None:
        """Apply earlier events and record `dead_letters` without moving the checkpoint.

        Raises the error of an event that cannot be applied, and CheckpointConflict if the parked events are no longer `parked`.
        """
        with self._connected_models().locked_checkpoint() as token:
            if self._connected_models().parked_events() != parked:
                raise CheckpointConflict
            self._discarded = self._read_discarded()
            changes, _ = self._projected(decode_batch(self._decoder, self._without_discarded(batch)))
            changes = changes._replace(resolved=[event.position for event in batch], dead_letters=dead_letters)
            self._connected_models().write(token, token.checkpoint, changes, generations=1)
        self._token = None

    def _connected_models(self) -> ReadModels:
        if self._models is None or self._models.closed:
            self._models = self._open()
        return self._models

    def _read(self) -> CheckpointToken:
        self._token = self._connected_models().read_checkpoint()
        self._waiting = None
        self._discarded = self._read_discarded()
        return self._token

    def _read_waiting(self) -> WaitingEvents:
        waiting, positions = WaitingEvents(), self._connected_models().parked_events().positions
        for start in range(0, len(positions), EVENTS_PER_QUERY):
            for recorded in self._decoder.at(positions[start : start + EVENTS_PER_QUERY]):
                waiting.add(self._touched_by(recorded))
        return waiting

    def _touched_by(self, recorded: RecordedEvent) -> TouchedIds:
        """What an event touches that waits; only its stream if it cannot be decoded."""
        try:
            return touched_ids(TABLES, decode_batch(self._decoder, [recorded])[0])
        except self.not_poison:
            raise
        except Exception:
            return only_stream(recorded)

    def _invalidating_on_error(self, act: Callable[[], T]) -> T:
        """Run `act`; after an error, discard everything that was read before."""
        try:
            return act()
        except CheckpointConflict:
            self._token = None
            raise
        except Exception:
            self.close()
            raise

    def _apply_or_divide(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult:
        try:
            return self._apply(batch, to)
        except self.not_poison:
            raise
        except Exception as error:
            if len(batch) == 1:
                return self._apply_again_or_give_up(batch[0], to, error)
        log.warning("batch failed, dividing it", first=batch[0].position, last=batch[-1].position)
        middle = len(batch) // 2
        before = self._apply_or_divide(batch[:middle], Checkpoint(batch[middle - 1].position))
        return before.merge(self._apply_or_divide(batch[middle:], to))

    def _apply_again_or_give_up(self, event: RecordedEvent, to: Checkpoint, error: Exception) -> BatchResult:
        """Retry a single event; after the last attempt, make it a dead letter."""
        for _ in range(self._limits.max_attempts - 1):
            self._sleep(self._limits.retry_delay_seconds)
            try:
                return self._apply([event], to)
            except self.not_poison:
                raise
            except Exception as latest:
                error = latest
        dead = poison_event(event, error)
        log.error("dead letter", position=dead.position, stream=str(dead.stream), type=dead.type, reason=dead.reason)
        self._write(to._replace(hash=event.hash), Changes(dead_letters=[dead]))
        self._known_waiting.add(self._touched_by(event))
        return BatchResult(event.position, dead_letters=(dead,))

    def _apply(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult:
        ready, parked, waiting = self._partition(batch)
        changes, result = self._projected(ready)
        self._write(to._replace(hash=batch[-1].hash), changes._replace(parked=parked))
        self._waiting = waiting
        return result._replace(position=to.position)

    def _projected(self, events: Sequence[PositionedEvent]) -> tuple[Changes, BatchResult]:
        return project(self._connected_models(), events) if events else (Changes(), BatchResult(0))

    def _without_discarded(self, batch: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [event for event in batch if event.position not in self._discarded] if self._discarded else batch

    @property
    def _known_waiting(self) -> WaitingEvents:
        assert self._waiting is not None
        return self._waiting

    def _partition(self, batch: Sequence[RecordedEvent]) -> tuple[list[PositionedEvent], list[RecordedEvent], WaitingEvents]:
        """The events that can be applied, those to park, and all that waits afterwards."""
        batch = self._without_discarded(batch)
        if not self._known_waiting:
            return decode_batch(self._decoder, batch), [], self._known_waiting
        ready: list[PositionedEvent] = []
        parked: list[RecordedEvent] = []
        waiting = self._known_waiting.copy()
        for recorded in batch:
            if waiting.hold_stream(recorded.stream):
                touched = self._touched_by(recorded)
            else:
                (event,) = decode_batch(self._decoder, [recorded])
                touched = touched_ids(TABLES, event)
                if not waiting.hold(touched):
                    ready.append(event)
                    continue
            parked.append(recorded)
            waiting.add(touched)
        return ready, parked, waiting

    def _write(self, to: Checkpoint, changes: Changes) -> None:
        assert self._token is not None
        self._connected_models().write(self._token, to, changes)
        self._token = CheckpointToken(to, self._token.generation)
