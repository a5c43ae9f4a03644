"""The projector: every event of the log, once and in order, into the read models; what cannot be applied is set aside, never skipped."""

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar
from uuid import UUID

import psycopg
import structlog

from application.ports import RecordedEvent
from domain.errors import Unavailable
from projections.engine.batches import (
    TABLES,
    BatchResult,
    Changes,
    CheckpointToken,
    Decoder,
    ParkedEvents,
    PoisonEvent,
    ReadModels,
    decoded,
    project,
)
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, CheckpointUnfit, FoldsDiffer, NotInLog
from projections.engine.dead_letters import letter, touched
from projections.engine.projection import PositionedEvent

log = structlog.get_logger()
T = TypeVar("T")

MAX_ATTEMPTS = 3  # tries of an event that fails alone, before it is set aside
RETRY_DELAY_SECONDS = 0.05  # seconds between them
AWAY: tuple[type[Exception], ...] = (
    CheckpointConflict,
    NotInLog,
    CheckpointUnfit,
    FoldsDiffer,
    Unavailable,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.ProgrammingError,
    psycopg.InternalError,
)
"""Errors that say nothing about an event: the database is away, or not as this release expects it, or a newer release wrote the event."""


class Projector:
    """Applies batches behind its checkpoint, which it must share with nobody unknowingly: who loses it gets Outrun.

    It does not care where a batch comes from. Calls block, and belong to one thread. After any error that is raised here nothing of
    the batch under way has happened; after Outrun read `checkpoint()` again, after others too, when the database is back.
    `discarded` reads the positions of events that were given up: they are passed over, as if the log had a blank there.
    `fatal`: errors that are nobody's fault but the installation's (a wrong key), and must not be blamed on an event.
    """

    def __init__(
        self,
        models: Callable[[], ReadModels],
        decoder: Decoder,
        *,
        discarded: Callable[[], AbstractSet[int]] = frozenset,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        self._open, self._decoder, self._read_discarded = models, decoder, discarded
        self.not_poison: tuple[type[Exception], ...] = (*AWAY, *fatal)
        self._models: ReadModels | None = None
        self._target: CheckpointToken | None = None
        self._blocked: set[UUID] = set()
        self._discarded: AbstractSet[int] = frozenset()

    def close(self) -> None:
        if self._models is not None:
            self._models.close()
        self._models = self._target = None

    def checkpoint(self) -> Checkpoint:
        """How far the read models are, read anew."""
        return self._invalidating_on_error(self._read).at

    def apply(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult:
        """Apply `batch` (contiguous, not empty, beginning right behind the checkpoint), and move the checkpoint to `to`.

        Raises Outrun, NotInLog where the log does not hold the last event of the batch, and UpgradeNeeded where a newer release wrote one.
        """
        target = self._target or self._invalidating_on_error(self._read)
        if target.at.position != batch[0].position - 1:
            self._target = None
            raise CheckpointConflict
        return self._invalidating_on_error(lambda: self._apply_or_divide(batch, to))

    def retry(self, batch: Sequence[RecordedEvent], *, behind: ParkedEvents, aside: Sequence[PoisonEvent] = (), left: set[UUID]) -> None:
        """Apply events of long ago, the checkpoint standing still, and set `aside` what failed; then only the streams `left` are blocked.

        Raises whatever is wrong with an event, and Outrun when something else waits by now than `behind`.
        """
        with self._there().held() as target:
            if self._there().behind() != behind:
                raise CheckpointConflict
            self._discarded = self._read_discarded()
            changes, _ = self._projected(decoded(self._decoder, self._kept(batch)))
            changes = changes._replace(healed=[event.position for event in batch], aside=aside)
            self._there().write(target, target.at, changes, generations=1)
        self._target, self._blocked = None, left

    def _there(self) -> ReadModels:
        if self._models is None or self._models.closed:
            self._models = self._open()
        return self._models

    def _read(self) -> CheckpointToken:
        self._target = self._there().target()
        self._blocked = self._there().behind().streams
        self._discarded = self._read_discarded()
        return self._target

    def _invalidating_on_error(self, act: Callable[[], T]) -> T:
        """After an error nothing is taken for known that was read before."""
        try:
            return act()
        except CheckpointConflict:
            self._target = None
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
                return self._apply_again_or_set_aside(batch[0], to, error)
        log.warning("a batch failed, dividing it", first=batch[0].position, last=batch[-1].position)
        middle = len(batch) // 2
        before = self._apply_or_divide(batch[:middle], Checkpoint(batch[middle - 1].position))
        return before.merge(self._apply_or_divide(batch[middle:], to))

    def _apply_again_or_set_aside(self, event: RecordedEvent, to: Checkpoint, error: Exception) -> BatchResult:
        for _ in range(MAX_ATTEMPTS - 1):
            time.sleep(RETRY_DELAY_SECONDS)
            try:
                return self._apply([event], to)
            except self.not_poison:
                raise
            except Exception as again:
                error = again
        dead = letter(event, error)
        log.error("dead letter", position=dead.position, stream=str(dead.stream), type=dead.type, reason=dead.reason)
        self._write(to._replace(hash=event.hash), Changes(aside=[dead]))
        self._blocked.add(event.stream)
        return BatchResult(event.position, letters=(dead,))

    def _apply(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult:
        happened, parked, blocked = self._partition(batch)
        changes, applied = self._projected(happened)
        self._write(to._replace(hash=batch[-1].hash), changes._replace(parked=parked))
        self._blocked = blocked
        return applied._replace(position=to.position)

    def _projected(self, happened: Sequence[PositionedEvent]) -> tuple[Changes, BatchResult]:
        return project(self._there(), happened) if happened else (Changes(), BatchResult(0))

    def _kept(self, batch: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [event for event in batch if event.position not in self._discarded] if self._discarded else batch

    def _partition(self, batch: Sequence[RecordedEvent]) -> tuple[list[PositionedEvent], list[RecordedEvent], set[UUID]]:
        """What can be applied, what must wait behind a dead letter, and the streams that are blocked then."""
        batch = self._kept(batch)
        if not self._blocked:
            return decoded(self._decoder, batch), [], self._blocked
        happened: list[PositionedEvent] = []
        parked: list[RecordedEvent] = []
        blocked = set(self._blocked)
        for recorded in batch:
            event = None if recorded.stream in blocked else decoded(self._decoder, [recorded])[0]
            if event is None or not blocked.isdisjoint(touched(TABLES, event)):
                parked.append(recorded)
                blocked.add(recorded.stream)
            else:
                happened.append(event)
        return happened, parked, blocked

    def _write(self, to: Checkpoint, changes: Changes) -> None:
        assert self._target is not None
        self._there().write(self._target, to, changes)
        self._target = CheckpointToken(to, self._target.generation)
