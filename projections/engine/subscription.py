"""The catch-up subscription: reads the log from Kafka, and from the store while Kafka does not deliver."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog

from application.poll_interval import LONGEST_SECONDS, PollInterval
from application.ports import AppendRejected, ChainedEvent
from domain.errors import UpgradeNeeded
from projections.engine.checkpoints import CheckpointUnfit, FoldsDiffer
from projections.engine.postgres_errors import UNAVAILABLE_ERRORS
from projections.engine.sequencer import EventReader, Sequencer

log = structlog.get_logger()
T = TypeVar("T")


class SubscriptionLimits(NamedTuple):
    """`owner_timeout_seconds`: time without progress behind the head after which the owner of the log's partition reads the store.

    `standby_timeout_seconds`: the same for other processes, which take over from a failed owner. The store's head is polled every
    `poll_interval_seconds` while there are events, and less often, up to `max_poll_interval_seconds`, while there are none.
    `paused_poll_interval_seconds` applies while another release projects the log, `retry_delay_seconds` while the database is down.
    `stop_timeout_seconds` limits the current batch at the end.
    """

    poll_interval_seconds: float = 0.125
    max_poll_interval_seconds: float = LONGEST_SECONDS
    owner_timeout_seconds: float = 0.25
    standby_timeout_seconds: float = 1.0
    metrics_interval_seconds: float = 1.0
    retry_delay_seconds: float = 0.5
    paused_poll_interval_seconds: float = 2.0
    stop_timeout_seconds: float = 1.5

    def poll_interval(self) -> PollInterval:
        return PollInterval(self.poll_interval_seconds, self.max_poll_interval_seconds)


DEFAULT_LIMITS: Final = SubscriptionLimits()


class RecordBatch(Protocol):
    """Records from Kafka, and the offset after them."""

    @property
    def cluster(self) -> str: ...
    @property
    def records(self) -> Sequence[Any]: ...
    @property
    def next_offset(self) -> int: ...


class OffsetRange(Protocol):
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...


class _Progress(NamedTuple):
    """The last position of the checkpoint, the time since when it has been stalled behind the head (0: not stalled), and the timeout."""

    position: int = -1
    behind_since: float = 0.0
    timeout: float = 0.0

    def observed(self, position: int, head: int, *, now: float, timeout: Callable[[], float]) -> "_Progress":
        if position != self.position:
            return _Progress(position, now, timeout())
        if head <= position:
            return self._replace(behind_since=0.0)
        return self._replace(behind_since=self.behind_since or now)

    def is_stalled(self, now: float) -> bool:
        return now - self.behind_since >= self.timeout

    @property
    def reads_store_at_once(self) -> bool:
        return self.timeout == 0

    def after_reading_store(self, position: int) -> "_Progress":
        """Until something else moves the checkpoint, the store is read at once."""
        return self._replace(position=position, timeout=0.0)


class CatchUpSubscription:
    """Feeds a sequencer with records from the log's topic, or with events of the store. One thread does all work on the sequencer.

    `authenticated` gives the event of a record, and raises AppendRejected unless this installation's relay wrote it. `owns`: this process
    owns the topic's partition; None while Kafka is unavailable. `count` adds numbers by label to the shared counters of a name. `on_pause`
    is called repeatedly with the reason while this process must leave the log to another release; nothing is lost then.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        store: EventReader,
        *,
        authenticated: Callable[[Any], ChainedEvent],
        owns: Callable[[], bool | None],
        count: Callable[[str, Mapping[str, int]], None],
        on_pause: Callable[[str], None] = lambda _: None,
        limits: SubscriptionLimits = DEFAULT_LIMITS,
        poll_interval: PollInterval | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sequencer, self._store, self._limits, self._clock = sequencer, store, limits, clock
        self._authenticated, self._owns, self._count, self._on_pause = authenticated, owns, count, on_pause
        self._interval = poll_interval or limits.poll_interval()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="projector")
        self._counted: dict[str, Counter[str]] = {}
        self._count_due = 0.0
        self._has_ended = False
        self._wake_up = asyncio.Event()
        self._kafka_is_level = False  # it has delivered what was read from the store
        self._pause_reason = ""
        self.is_waiting = False  # for the database, or an upgrade

    # ---- Kafka: the port `infrastructure.kafka.batches.BatchReader` ----
    async def starting_offsets(self, cluster: str, ranges: Mapping[Any, OffsetRange]) -> dict[Any, int]:
        """The checkpoint's offset if it belongs to this cluster and exists; else the first offset, which only costs time."""
        checkpoint = await self._on_thread(self._sequencer.refresh)
        is_known = checkpoint.cluster == cluster
        offsets = {
            partition: checkpoint.next_offset if is_known and offsets.begin <= checkpoint.next_offset <= offsets.end else offsets.begin
            for partition, offsets in ranges.items()
        }
        log.info("reading the log", position=checkpoint.position, offsets=sorted(offsets.values()), cluster=cluster)
        return offsets

    async def process(self, batch: RecordBatch) -> None:
        """Process a batch; rejected records are replaced by events from the store."""
        events, rejected = self._authenticate(batch)
        await self._on_thread(lambda: self._sequencer.process(events, cluster=batch.cluster, next_offset=batch.next_offset))
        for reason, count in rejected.items():
            self._sequencer.reject(reason, count, before_offset=batch.next_offset)
        if rejected:
            await self._on_thread(self._sequencer.catch_up)
        if events:
            self._kafka_is_level = events[-1].event.position >= self._sequencer.checkpoint.position

    def _authenticate(self, batch: RecordBatch) -> tuple[list[ChainedEvent], Counter[str]]:
        events: list[ChainedEvent] = []
        rejected: Counter[str] = Counter()
        for record in batch.records:
            try:
                events.append(self._authenticated(record))
            except AppendRejected as error:
                rejected[error.reason] += 1
        return events, rejected

    # ---- the store ----
    def wake(self) -> None:
        """Check for new events now. To be called on the event loop."""
        self._wake_up.set()

    async def follow_store(self) -> None:
        """Read the store whenever the checkpoint is stalled behind the head, until Kafka or another process moves it. Runs without end.

        Kafka also leads again once it has delivered what was read from the store. Otherwise the store, where each event is first, would
        win every race for a single event.
        """
        await self._on_thread(self._sequencer.refresh)
        progress = _Progress()
        while True:
            self._wake_up.clear()  # before reading the head, so that a wake-up during that ends the next wait
            head = await self._on_thread(self._store.head)
            position, now = await self._current_position(head), self._clock()
            if position != progress.position or head > position:
                self._interval.shorten()
            if self._kafka_is_level and progress.reads_store_at_once:
                progress = _Progress()
            progress = progress.observed(position, head, now=now, timeout=self._stall_timeout)
            if head > position and progress.is_stalled(now):
                self._kafka_is_level = False
                await self._catch_up(head)
                progress = progress.after_reading_store(self._sequencer.checkpoint.position)
            await self._count_when_due()
            await self._wait()

    async def _wait(self) -> None:
        """Wait for the next poll. A wake-up only ends a long wait, since Kafka usually delivers within a short one."""
        shortest = self._limits.poll_interval_seconds
        await asyncio.sleep(shortest)
        if (remaining := self._interval.take() - shortest) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake_up.wait(), remaining)
                self._interval.shorten()

    async def _current_position(self, head: int) -> int:
        """The checkpoint's position, read from the database if it is behind the head, since another process may have moved it."""
        if head > self._sequencer.checkpoint.position:
            await self._on_thread(self._sequencer.refresh)
        return self._sequencer.checkpoint.position

    async def _catch_up(self, head: int) -> None:
        while self._sequencer.checkpoint.position < head and await self._on_thread(self._sequencer.catch_up):
            pass

    def _stall_timeout(self) -> float:
        match self._owns():
            case None:
                return 0.0
            case True:
                return self._limits.owner_timeout_seconds
            case _:
                return self._limits.standby_timeout_seconds

    # ---- stopping, pausing, counting ----
    async def finish(self) -> None:
        """Finish the current batch, and start no further one."""
        self._has_ended = True
        last = asyncio.get_running_loop().run_in_executor(self._thread, self._count_now)
        await asyncio.wait_for(last, self._limits.stop_timeout_seconds)

    async def _on_thread(self, step: Callable[[], T]) -> T:
        """Run `step` on the thread; repeat it while the database is unavailable or the log is left to another release."""
        while True:
            if self._has_ended:
                await asyncio.Event().wait()  # forever: the process is ending
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._thread, step)
            except (UpgradeNeeded, FoldsDiffer, CheckpointUnfit) as error:
                self.is_waiting = True
                self._pause(error)
                await asyncio.sleep(self._limits.paused_poll_interval_seconds)
            except UNAVAILABLE_ERRORS as error:
                self.is_waiting = True
                log.warning("projector is waiting for the database", error=type(error).__name__)
                await asyncio.sleep(self._limits.retry_delay_seconds)
            else:
                self.is_waiting, self._pause_reason = False, ""
                return result

    def _pause(self, error: Exception) -> None:
        reason = str(error)
        if reason != self._pause_reason:
            log.critical("projector paused", reason=reason)
        self._pause_reason = reason
        if not isinstance(error, CheckpointUnfit):  # an upgrade does not help, and `/health/ready` reports it
            self._on_pause(reason)

    async def _count_when_due(self) -> None:
        if self._clock() >= self._count_due and self._numbers() != self._counted:
            self._count_due = self._clock() + self._limits.metrics_interval_seconds
            await self._on_thread(self._count_now)

    def _count_now(self) -> None:
        for name, now in self._numbers().items():
            if new := now - self._counted.get(name, Counter()):
                self._count(name, new)
                self._counted[name] = now

    def _numbers(self) -> dict[str, Counter[str]]:
        numbers = {"projected_events": self._sequencer.sources, "rejected_records": self._sequencer.rejected}
        return {name: Counter(counted) for name, counted in numbers.items() if counted}
