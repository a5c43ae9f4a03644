"""Follow the log: from Kafka while it delivers, from the store while it does not."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import psycopg
import structlog

from application.poll_interval import LONGEST_SECONDS, PollInterval
from application.ports import AppendRejected, ChainedEvent
from domain.errors import Unavailable, UpgradeNeeded
from projections.engine.checkpoints import CheckpointUnfit, FoldsDiffer
from projections.engine.sequencer import Sequencer, Store

log = structlog.get_logger()
T = TypeVar("T")

MAX_POLL_INTERVAL_SECONDS = LONGEST_SECONDS
POLL_INTERVAL_SECONDS = 0.125  # seconds between two looks at the head, while something happens; more while nothing does
OWNER_TIMEOUT_SECONDS = (
    0.25  # seconds that the checkpoint may stand still behind the head before the member that owns the log reads the store
)
STANDBY_TIMEOUT_SECONDS = 1.0  # the same for a member that owns nothing: it steps in, whatever has become of the owner
METRICS_INTERVAL_SECONDS = 1.0  # seconds
RETRY_DELAY_SECONDS = 0.5  # seconds, while the database is away
PAUSED_POLL_INTERVAL_SECONDS = 2.0  # seconds between two looks whether what this process must not do was done by another one
LAST_BATCH_TIMEOUT_SECONDS = 1.5  # seconds that the batch under way may take when we are told to end
UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (Unavailable, psycopg.OperationalError, psycopg.InterfaceError)


class RecordBatch(Protocol):
    """Records as they came from Kafka, and the offset behind them."""

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


class CatchUpSubscription:
    """Reads the log's topic for a feed, and the store when nothing comes. All work on the feed is done by one thread.

    `authenticated` makes an event of a record, and raises Rejected for what our relay did not write. `owns`: whether the topic is ours;
    None while there is no Kafka to own anything of. `count` adds numbers to the counters of a name, by label, for others to see.
    `pausing` gets the reason, now and then, while this process must leave the log to another release: nothing is lost meanwhile.
    """

    def __init__(
        self,
        feed: Sequencer,
        store: Store,
        *,
        authenticated: Callable[[Any], ChainedEvent],
        owns: Callable[[], bool | None],
        count: Callable[[str, Mapping[str, int]], None],
        pausing: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._feed, self._store = feed, store
        self._authenticated, self._owns, self._count, self._pausing = authenticated, owns, count, pausing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="projector")
        self._counted: dict[str, Counter[str]] = {}
        self._count_due = 0.0
        self._ended = False
        self._woken = asyncio.Event()
        self._paused_for = ""
        self.waits = False  # for the database

    # ---- Kafka ----
    async def starting_offsets(self, cluster: str, spans: Mapping[Any, OffsetRange]) -> dict[Any, int]:
        """Where the checkpoint says, if it speaks of this cluster and this log; else from the beginning: that costs time only."""
        at = await self._on_thread(self._feed.refresh)
        known = at.cluster == cluster
        places = {tp: at.next_offset if known and span.begin <= at.next_offset <= span.end else span.begin for tp, span in spans.items()}
        log.info("reading the log", position=at.position, offsets=sorted(places.values()), cluster=cluster)
        return places

    async def take(self, frame: RecordBatch) -> None:
        """Rejected records are replaced by what the store holds."""
        events, rejected = self._partition(frame)
        await self._on_thread(lambda: self._feed.take(events, cluster=frame.cluster, next_offset=frame.next_offset))
        for reason, count in rejected.items():
            self._feed.reject(reason, count, before_offset=frame.next_offset)
        if rejected:
            await self._on_thread(self._feed.catch_up)

    def _partition(self, frame: RecordBatch) -> tuple[list[ChainedEvent], Counter[str]]:
        events: list[ChainedEvent] = []
        rejected: Counter[str] = Counter()
        for record in frame.records:
            try:
                events.append(self._authenticated(record))
            except AppendRejected as refused:
                rejected[refused.reason] += 1
        return events, rejected

    # ---- the store ----
    def wake(self) -> None:
        """There may be more in the log. From the event loop only."""
        self._woken.set()

    async def follow_store(self) -> None:
        """For ever: read the store once the checkpoint has stood still behind the head for longer than our patience.

        Go on with it, without waiting again, until Kafka or another member moves the checkpoint.
        """
        await self._on_thread(self._feed.refresh)
        left_at, since, patience, interval = -1, 0.0, 0.0, PollInterval(POLL_INTERVAL_SECONDS, MAX_POLL_INTERVAL_SECONDS)
        while True:
            self._woken.clear()  # before the look: what comes during it ends the next rest
            head = await self._on_thread(self._store.head)
            position, now = await self._position(head), time.monotonic()
            if position != left_at or head > position:
                interval.shorten()
            if position != left_at:
                left_at, since, patience = position, now, self._patience()
            elif head <= position:
                since = 0.0
            else:
                since = since or now
            if head > position and now - since >= patience:
                await self._catch_up(head)
                left_at, patience = self._feed.at.position, 0.0
            await self._count_now_and_then()
            await self._rest(interval)

    async def _rest(self, interval: PollInterval) -> None:
        """A wake-up ends a long rest, and no short one: in the ordinary case Kafka delivers meanwhile."""
        await asyncio.sleep(POLL_INTERVAL_SECONDS)
        if (rest := interval.take() - POLL_INTERVAL_SECONDS) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), rest)
                interval.shorten()

    async def _position(self, head: int) -> int:
        """Read anew where that matters: another member may have moved it."""
        if head > self._feed.at.position:
            await self._on_thread(self._feed.refresh)
        return self._feed.at.position

    async def _catch_up(self, head: int) -> None:
        while self._feed.at.position < head and await self._on_thread(self._feed.catch_up):
            pass

    def _patience(self) -> float:
        match self._owns():
            case None:
                return 0.0
            case owner:
                return OWNER_TIMEOUT_SECONDS if owner else STANDBY_TIMEOUT_SECONDS

    # ---- the end, and what is common ----
    async def finish(self) -> None:
        """Let the batch under way end, and begin no other."""
        self._ended = True
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._thread, self._count_now), LAST_BATCH_TIMEOUT_SECONDS)

    async def _on_thread(self, step: Callable[[], T]) -> T:
        while True:
            if self._ended:
                await asyncio.Event().wait()  # for ever: the process ends
            try:
                done = await asyncio.get_running_loop().run_in_executor(self._thread, step)
            except (UpgradeNeeded, FoldsDiffer, CheckpointUnfit) as error:
                self.waits = True
                self._pause(error)
                await asyncio.sleep(PAUSED_POLL_INTERVAL_SECONDS)
            except UNAVAILABLE_ERRORS as error:
                self.waits = True
                log.warning("the projector waits for the database", error=type(error).__name__)
                await asyncio.sleep(RETRY_DELAY_SECONDS)
            else:
                self.waits, self._paused_for = False, ""
                return done

    def _pause(self, error: Exception) -> None:
        reason = str(error)
        if reason != self._paused_for:
            log.critical("nothing more is projected by this process", reason=reason)
        self._paused_for = reason
        if not isinstance(error, CheckpointUnfit):  # no upgrade helps, and `/health/ready` shows it
            self._pausing(reason)

    async def _count_now_and_then(self) -> None:
        if time.monotonic() >= self._count_due and self._numbers() != self._counted:
            self._count_due = time.monotonic() + METRICS_INTERVAL_SECONDS
            await self._on_thread(self._count_now)

    def _count_now(self) -> None:
        for name, now in self._numbers().items():
            if new := now - self._counted.get(name, Counter()):
                self._count(name, new)
                self._counted[name] = now

    def _numbers(self) -> dict[str, Counter[str]]:
        numbers = {"projected_events": self._feed.sources, "rejected_records": self._feed.rejected}
        return {name: Counter(counted) for name, counted in numbers.items() if counted}
