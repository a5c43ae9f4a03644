"""The sequencer: makes one gapless sequence from records that may be late, repeated, missing or forged.

Positions and hashes decide; offsets only tell where to read on. An event that does not follow the checkpoint, or is not in the log,
is read from the event store instead.
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
    """The part of `projections.engine.projector.Projector` that the sequencer needs."""

    def checkpoint(self) -> Checkpoint: ...

    def apply(self, batch: Sequence[RecordedEvent], to: Checkpoint) -> BatchResult: ...


class EventReader(Protocol):
    """The part of `application.ports.EventStore` that the sequencer needs."""

    def head(self) -> int: ...

    def read(self, after: int, limit: int) -> Sequence[RecordedEvent]: ...


class Sequencer:
    """Applies events in sequence. Calls block, belong to one thread, and may be repeated after any error.

    At an event of a newer release, all earlier events are applied. Then calls raise UpgradeNeeded until a process that knows the event
    has moved the checkpoint past it. Such an event is valid and does not become a dead letter.

    `on_applied` is called with every batch. `sources` counts applied events by source, "kafka" or "store". `rejected` counts records by
    reason: "unlinked" (does not follow the event before it), "ahead" (the log ends before it), "not_in_log".
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
        """Apply the new events among authenticated records, which end before `next_offset` of the Kafka cluster."""
        while True:
            try:
                return self._process(events, cluster, next_offset)
            except CheckpointConflict:
                self.refresh()

    def catch_up(self) -> bool:
        """Apply one batch from the store. False if there is none, or if another process was faster."""
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
        """Apply events from Kafka, or those of the store instead if the log does not contain them."""
        try:
            self._apply(run, "kafka")
        except NotInLog:
            self.reject("not_in_log", len(run), first=run[0].position, last=run[-1].position)
            self._fill_up_to(run[-1].position)

    def _fill_up_to(self, last: int) -> bool:
        """Apply events from the store up to position `last`. False if the log ends before it."""
        while self.checkpoint.position < last:
            if not self._fill(last):
                return False
        return True

    def _fill(self, last: int) -> bool:
        events = self._store.read(self.checkpoint.position, min(self._events_per_batch, last - self.checkpoint.position))
        try:
            self._apply(events, "store")
        except NotInLog:  # the database was restored from an older backup in the meantime
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
