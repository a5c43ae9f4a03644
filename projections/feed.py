"""One contiguous sequence of what arrives late, twice, with holes, or not at all. Positions decide; offsets only say where to read on."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from application.ports import Recorded
from projections.batches import Applied
from projections.checkpoints import Checkpoint, Outrun

log = structlog.get_logger()

BATCH = 500  # events in one transaction


class Applies(Protocol):
    """As `projector.Projector`."""

    def checkpoint(self) -> Checkpoint: ...

    def apply(self, batch: Sequence[Recorded], to: Checkpoint) -> Applied: ...


class Store(Protocol):
    """As the port `Log`: what is missing is read from here."""

    def head(self) -> int: ...

    def read(self, after: int, limit: int) -> Sequence[Recorded]: ...


class Ahead(Exception):
    """Kafka knows events that the store has not: it was put back to an older copy. An alarm: they have no truth behind them."""


class Feed:
    """Calls block, belong to one thread, and may be repeated after whatever they raise.

    `applied` is told of every batch. `sources` counts the events applied, by "kafka" and "store".
    """

    def __init__(self, projector: Applies, store: Store, *, applied: Callable[[Applied], object] = lambda _: None) -> None:
        self._projector, self._store, self._told = projector, store, applied
        self.at = Checkpoint(0)
        self._doubted = 0
        self.sources: Counter[str] = Counter()

    def refresh(self) -> Checkpoint:
        self.at = self._projector.checkpoint()
        return self.at

    def doubt(self, before: int) -> None:
        """What stands before that offset was there before us. It is compared with the store: the database may have been put back."""
        self._doubted = before

    def take(self, events: Sequence[Recorded], *, cluster: str, next_offset: int) -> None:
        """Apply what is new of a run of records that ends before `next_offset` of `cluster`. Raises Ahead."""
        while True:
            try:
                return self._take(events, cluster, next_offset)
            except Outrun:
                self.refresh()

    def catch_up(self) -> bool:
        """Apply one batch from the store; False when there is none, or another member was faster."""
        try:
            return self._fill(self.at.position + BATCH)
        except Outrun:
            self.refresh()
            return False

    def _take(self, events: Sequence[Recorded], cluster: str, next_offset: int) -> None:
        run: list[Recorded] = []
        if next_offset <= self._doubted:
            events = self._of_our_log([event for event in events if event.position > self.at.position])
        for event in events:
            if event.position > self.at.position + len(run) + 1:
                self._apply(run, "kafka")
                run = []
                self._fill_up_to(event.position - 1)
            if event.position == self.at.position + len(run) + 1:
                run.append(event)
        self.at = Checkpoint(self.at.position, cluster, next_offset)
        self._apply(run, "kafka")

    def _of_our_log(self, events: Sequence[Recorded]) -> list[Recorded]:
        if not events:
            return []
        first, last = min(event.position for event in events), max(event.position for event in events)
        ours = {event.position: event.event_id for event in self._store.read(first - 1, last - first + 1)}
        good = [event for event in events if ours.get(event.position) == event.event_id]
        if len(good) < len(events):
            log.warning("Kafka holds events that are not in the log", first=first, last=last, count=len(events) - len(good))
        return good

    def _fill_up_to(self, last: int) -> None:
        while self.at.position < last:
            if not self._fill(last):
                raise Ahead(f"the store ends at {self.at.position}, Kafka knows {last + 1}")

    def _fill(self, last: int) -> bool:
        events = self._store.read(self.at.position, min(BATCH, last - self.at.position))
        self._apply(events, "store")
        return bool(events)

    def _apply(self, events: Sequence[Recorded], source: str) -> None:
        if not events:
            return
        first, last = events[0].position, events[-1].position
        assert first == self.at.position + 1
        assert last - first + 1 == len(events)
        to = self.at._replace(position=last)
        applied = self._projector.apply(events, to)
        self.at = to
        self.sources[source] += len(events)
        self._told(applied)
