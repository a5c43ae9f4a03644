"""One contiguous sequence of what arrives late, twice, with holes, forged, or not at all.

Positions and hashes decide; offsets only say where to read on. What does not follow from the checkpoint, and what the log does not
hold, is read from the event store instead.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NoReturn, Protocol

import structlog

from application.ports import ChainedEvent, RecordedEvent
from domain.errors import UpgradeNeeded
from domain.registry import is_known
from projections.engine.batches import BatchResult
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, NotInLog

log = structlog.get_logger()

EVENTS_PER_BATCH = 500  # events in one transaction


class Applies(Protocol):
    """As `projector.Projector`."""

    def checkpoint(self) -> Checkpoint: ...

    def apply(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult: ...


class Store(Protocol):
    """As the port `EventStore`: what is missing is read from here."""

    def head(self) -> int: ...

    def read(self, after: int, limit: int) -> Sequence[RecordedEvent]: ...


class Sequencer:
    """Calls block, belong to one thread, and may be repeated after whatever they raise.

    Before an event that a newer release wrote, all that stands before it is applied; then they raise UpgradeNeeded, until a process
    that understands the event has moved the checkpoint past it. It is no dead letter: nothing is wrong with it.

    `applied` is told of every batch. `sources` counts the events applied, by "kafka" and "store"; `rejected` the records that were
    not, by reason: "unlinked" (it does not follow the event before it), "ahead" (the log ends before it), "not_in_log".
    """

    def __init__(self, projector: Applies, store: Store, *, applied: Callable[[BatchResult], object] = lambda _: None) -> None:
        self._projector, self._store, self._told = projector, store, applied
        self.at = Checkpoint(0)
        self.sources: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()

    def refresh(self) -> Checkpoint:
        self.at = self._projector.checkpoint()
        return self.at

    def take(self, events: Sequence[ChainedEvent], *, cluster: str, next_offset: int) -> None:
        """Apply what is new of a run of authenticated records that ends before `next_offset` of `cluster`."""
        while True:
            try:
                return self._take(events, cluster, next_offset)
            except CheckpointConflict:
                self.refresh()

    def catch_up(self) -> bool:
        """Apply one batch from the store; False when there is none, or another member was faster."""
        try:
            return self._fill(self.at.position + EVENTS_PER_BATCH)
        except CheckpointConflict:
            self.refresh()
            return False

    def reject(self, reason: str, count: int = 1, **about: object) -> None:
        self.rejected[reason] += count
        log.warning("records rejected", reason=reason, count=count, **about)

    def _take(self, events: Sequence[ChainedEvent], cluster: str, next_offset: int) -> None:
        run: list[RecordedEvent] = []
        for event, previous_hash in events:
            if event.position <= self.at.position + len(run):
                continue
            if event.position > self.at.position + len(run) + 1:
                self._apply_run(run)
                run = []
                if not self._fill_up_to(event.position - 1):
                    self.reject("ahead", position=event.position, end_of_log=self.at.position)
                    break
            if previous_hash != (run[-1].hash if run else self.at.hash):
                self.reject("unlinked", position=event.position)
                self._apply_run(run)
                run = []
                self._fill_up_to(event.position)
                continue
            run.append(event)
        self.at = self.at._replace(cluster=cluster, next_offset=next_offset)
        self._apply_run(run)

    def _apply_run(self, run: Sequence[RecordedEvent]) -> None:
        """From the store, where the log does not hold what came by Kafka."""
        try:
            self._apply(run, "kafka")
        except NotInLog:
            self.reject("not_in_log", len(run), first=run[0].position, last=run[-1].position)
            self._fill_up_to(run[-1].position)

    def _fill_up_to(self, last: int) -> bool:
        """Whether the log reaches that far."""
        while self.at.position < last:
            if not self._fill(last):
                return False
        return True

    def _fill(self, last: int) -> bool:
        events = self._store.read(self.at.position, min(EVENTS_PER_BATCH, last - self.at.position))
        try:
            self._apply(events, "store")
        except NotInLog:  # the log was put back to an older copy meanwhile
            raise CheckpointConflict from None
        return bool(events)

    def _apply(self, events: Sequence[RecordedEvent], source: str) -> None:
        understood = list(takewhile(lambda event: is_known(event.type, event.schema_version), events))
        if understood:
            self._apply_understood(understood, source)
        if len(understood) < len(events):
            self._stop_before(events[len(understood)])

    def _stop_before(self, event: RecordedEvent) -> NoReturn:
        if self._projector.checkpoint().position >= event.position:
            raise CheckpointConflict
        raise UpgradeNeeded(f"position {event.position}", event.type, event.schema_version)

    def _apply_understood(self, events: Sequence[RecordedEvent], source: str) -> None:
        first, last = events[0].position, events[-1].position
        assert first == self.at.position + 1
        assert last - first + 1 == len(events)
        to = self.at._replace(position=last, hash=events[-1].hash)
        applied = self._projector.apply(events, to)
        self.at = to
        self.sources[source] += len(events)
        self._told(applied)
