"""The sequencer: makes one gapless sequence of records that come late, twice, with gaps, forged, or not at all.

Positions and hashes decide; offsets only say where to read on. An event that does not follow the checkpoint, or that the log does not
hold, is read from the event store instead.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final, NoReturn, Protocol

import structlog

from application.ports import ChainedEvent, RecordedEvent
from domain.errors import UpgradeNeeded
from domain.registry import is_known
from projections.engine.batches import BatchResult
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, NotInLog

log = structlog.get_logger()

EVENTS_PER_BATCH: Final = 500  # in one transaction


class BatchProjector(Protocol):
    """`projections.engine.projector.Projector`, as far as the sequencer needs it."""

    def checkpoint(self) -> Checkpoint: ...

    def apply(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult: ...


class EventReader(Protocol):
    """The port `application.ports.EventStore`, as far as the sequencer needs it."""

    def head(self) -> int: ...

    def read(self, after: int, limit: int) -> Sequence[RecordedEvent]: ...


class Sequencer:
    """Calls block, belong to one thread, and may be repeated after whatever they raise.

    Before an event that a newer release wrote, all earlier events are applied; then calls raise UpgradeNeeded, until a process that
    understands the event has moved the checkpoint past it. It is no dead letter: nothing is wrong with it.

    `on_applied` is called with every batch. `sources` counts the events applied, by "kafka" and "store"; `rejected` the records that
    were not, by reason: "unlinked" (it does not follow the event before it), "ahead" (the log ends before it), "not_in_log".
    """

    def __init__(
        self,
        projector: BatchProjector,
        store: EventReader,
        *,
        on_applied: Callable[[BatchResult], object] = lambda _: None,
        events_per_batch: int = EVENTS_PER_BATCH,
    ) -> None:
        self._projector, self._store, self._on_applied, self._events_per_batch = projector, store, on_applied, events_per_batch
        self.checkpoint = Checkpoint(0)
        self.sources: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()

    def refresh(self) -> Checkpoint:
        self.checkpoint = self._projector.checkpoint()
        return self.checkpoint

    def process(self, events: Sequence[ChainedEvent], *, cluster: str, next_offset: int) -> None:
        """Apply the new ones of a run of authenticated records that ends before `next_offset` of `cluster`."""
        while True:
            try:
                return self._process(events, cluster, next_offset)
            except CheckpointConflict:
                self.refresh()

    def catch_up(self) -> bool:
        """Apply one batch from the store; False when there is none, or another process was faster."""
        try:
            return self._fill(self.checkpoint.position + self._events_per_batch)
        except CheckpointConflict:
            self.refresh()
            return False

    def reject(self, reason: str, count: int = 1, **about: object) -> None:
        self.rejected[reason] += count
        log.warning("records rejected", reason=reason, count=count, **about)

    def _process(self, events: Sequence[ChainedEvent], cluster: str, next_offset: int) -> None:
        run: list[RecordedEvent] = []
        for event, previous_hash in events:
            if event.position <= self.checkpoint.position + len(run):
                continue
            if event.position > self.checkpoint.position + len(run) + 1:
                self._apply_run(run)
                run = []
                if not self._fill_up_to(event.position - 1):
                    self.reject("ahead", position=event.position, end_of_log=self.checkpoint.position)
                    break
            if previous_hash != (run[-1].hash if run else self.checkpoint.hash):
                self.reject("unlinked", position=event.position)
                self._apply_run(run)
                run = []
                self._fill_up_to(event.position)
                continue
            run.append(event)
        self.checkpoint = self.checkpoint._replace(cluster=cluster, next_offset=next_offset)
        self._apply_run(run)

    def _apply_run(self, run: Sequence[RecordedEvent]) -> None:
        """Reads the events from the store instead where the log does not hold those that came by Kafka."""
        try:
            self._apply(run, "kafka")
        except NotInLog:
            self.reject("not_in_log", len(run), first=run[0].position, last=run[-1].position)
            self._fill_up_to(run[-1].position)

    def _fill_up_to(self, last: int) -> bool:
        """Apply events from the store up to position `last`; False when the log ends before it."""
        while self.checkpoint.position < last:
            if not self._fill(last):
                return False
        return True

    def _fill(self, last: int) -> bool:
        events = self._store.read(self.checkpoint.position, min(self._events_per_batch, last - self.checkpoint.position))
        try:
            self._apply(events, "store")
        except NotInLog:  # the database was restored from an older backup meanwhile
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
        assert first == self.checkpoint.position + 1
        assert last - first + 1 == len(events)
        to = self.checkpoint._replace(position=last, hash=events[-1].hash)
        result = self._projector.apply(events, to)
        self.checkpoint = to
        self.sources[source] += len(events)
        self._on_applied(result)
