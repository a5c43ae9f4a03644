"""Faust in frames: one message for a whole run of records, read on from where the reader says.

Faust's cost is per message, it acks what an agent failed on, and it may skip in a double rebalance. So it counts nothing here:
no acks, no commits; the reader knows what it has, and tells at each assignment where to read on.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from application.poll_interval import PollInterval
from infrastructure.kafka.limits import MAX_FETCH_BYTES

MAX_BATCH_RECORDS: Final = 500  # records
UNGROUPED_WAIT_SECONDS: Final = 5.0  # seconds for the next records; Faust asks each second, for the sake of rebalances
IDLE_FETCH_INTERVAL_SECONDS: Final = 0.25  # seconds to a fetch without a hint, after something came; more while nothing comes


class RecordBatch(NamedTuple):
    cluster: str
    partition: TP
    records: Sequence[Any]  # aiokafka.ConsumerRecord, offsets ascending

    @property
    def next_offset(self) -> int:
        return int(self.records[-1].offset) + 1


class OffsetRange(NamedTuple):
    """What a partition holds: from offset `begin` to before `end`; `committed` by the group, if it ever did."""

    begin: int
    end: int
    committed: int | None


class BatchReader(Protocol):
    """Who reads. What either call raises ends the process: nothing is acked that was not taken.

    `waits`: for something that is not Kafka; then it is no fault when nothing moves.
    """

    waits: bool

    async def starting_offsets(self, cluster: str, spans: Mapping[TP, OffsetRange]) -> Mapping[TP, int]:
        """From which offset of each partition to read on. These are ours now, and no others."""

    async def take(self, frame: RecordBatch) -> None:
        """The next frame of its topic comes after this has returned; frames of other topics do not wait for it."""


class FetchThrottle:
    """Holds back the fetches of who is told when it is worth while: the embedded broker does not wake a fetch that waits.

    `hint` may be called from any thread. It lets one fetch through, now or as the next one.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinted = asyncio.Event()
        self._interval = PollInterval(IDLE_FETCH_INTERVAL_SECONDS)

    def wake(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._hinted.set)

    async def fetch(self, fetch: Callable[[], Awaitable[bool]], *, of_all: bool) -> bool:
        """What `fetch` says, once it is worth while: whether something came. `of_all`: it asks for all partitions that are ours.

        Where something came there may be more, and what was not asked for may have come too: the next fetch need not wait.
        """
        await self._passed()
        came = await fetch()
        if came or not of_all:
            self._interval.shorten()
            self._hinted.set()
        return came

    async def _passed(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval.take()):
                await self._hinted.wait()
        self._hinted.clear()


class BatchThread(driver.AIOKafkaConsumerThread):
    """Without groups it takes every partition of its topics, at once."""

    _announcing: "asyncio.Task[None] | None" = None

    @property
    def _ours(self) -> "BatchTransport":
        return cast(BatchTransport, self.transport)

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self._ours.fetch_wait_ms  # Faust hard-codes 1500
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        if (gate := self._ours.gate) is not None:
            fetcher = self._ensure_consumer()._fetcher
            fetch = fetcher._proc_fetch_request

            async def held_back(assignment: Any, node: Any, request: Any) -> bool:
                asked = sum(len(partitions) for _, partitions in request.topics)
                return await gate.fetch(lambda: fetch(assignment, node, request), of_all=asked >= len(assignment.tps))

            fetcher._proc_fetch_request = held_back

    async def subscribe(self, topics: Iterable[str]) -> None:
        if self._ours.grouped:
            await super().subscribe(topics)
        elif self._announcing is None:
            await self.call_thread(self._take_all, sorted(topics))

    async def _take_all(self, topics: Iterable[str]) -> None:
        consumer = self._ensure_consumer()
        taken = [TopicPartition(topic, number) for topic in topics for number in await consumer._client._wait_on_metadata(topic)]
        consumer.assign(taken)
        self._announcing = asyncio.create_task(self._announce({TP(*tp) for tp in taken}))  # which waits for our end

    async def _announce(self, taken: set[TP]) -> None:
        """As a group's first generation would be."""
        self.app.on_rebalance_start()
        self.app.consumer_generation_id = 1
        await self.on_partitions_assigned(taken, 1)


class BatchConsumer(driver.Consumer):
    """Yields frames, and asks the reader where to read on."""

    _cluster = ""

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _ours(self) -> "BatchTransport":
        return cast(BatchTransport, self.transport)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        tps, ours = self.assignment(), self._ours
        self._cluster = await ours.cluster()
        begin, end = await self.earliest_offsets(*tps), await self.highwaters(*tps)
        committed = await self._thread.call_thread(self._committed, tps)
        places = await ours.reader.starting_offsets(self._cluster, {tp: OffsetRange(begin[tp], end[tp], committed[tp]) for tp in tps})
        await self.seek_wait(places)
        ours.taken = dict(places)
        return places

    async def _committed(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        consumer = self._thread._ensure_consumer()
        return {tp: await consumer.committed(tp) for tp in tps}

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's signature
        fetched, _ = await self._wait_next_records(timeout if self._ours.grouped else UNGROUPED_WAIT_SECONDS)
        for kafka_tp, records in (fetched or {}).items():
            tp = TP(kafka_tp.topic, kafka_tp.partition)
            for start in range(0, len(records), MAX_BATCH_RECORDS):
                if self.should_stop or not self.flow_active:
                    return  # what is left behind here is fetched again, or found missing
                run = records[start : start + MAX_BATCH_RECORDS]
                message = self._to_message(tp, run[-1])
                message.key, message.value = None, cast(Any, RecordBatch(self._cluster, tp, run))
                self._read_offset[tp] = None  # Faust would drop what lies below it
                yield tp, message

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: Faust would fetch nothing for a second. The bounded queue holds the fetcher back."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: the watchdog looks after progress."""


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer

    def __init__(self, app: faust.App, reader: BatchReader, *, fetch_wait: float, grouped: bool, cluster: Any) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.reader, self.fetch_wait_ms, self.grouped, self.cluster = reader, max(1, int(fetch_wait * 1000)), grouped, cluster
        self.gate = None if grouped else FetchThrottle()
        self.taken: dict[TP, int] = {}


class BatchSchema(faust.Schema[Any, Any]):
    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Any, **_: Any) -> Any:
            return app.create_event(None, message.value, message.headers, message)

        return decode


class NoTables(TableManager):
    async def on_start(self) -> None:
        """As the base, without its second of waiting for tables: there are none."""
        await self._update_channels()
        await self.recovery.start()


class DisklessApp(faust.App):
    """A Faust app that writes no files: without tables it needs no data directory."""

    def _create_directories(self) -> None:
        """Do nothing. The base class creates GROUP-data in the working directory, which may be read-only."""


def batch_app(group: str, brokers: str) -> faust.App:
    """Settings that stood every fault tried, with up to three members, on Apache Kafka (docs/decisions/0030)."""
    return DisklessApp(
        group,
        broker=[f"aiokafka://{broker.strip()}" for broker in brokers.split(",")],
        store="memory://",
        web_enabled=False,  # it would listen on all addresses
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
        agent_supervisor=CrashingSupervisor,
        TableManager=NoTables,
        stream_wait_empty=False,
        stream_buffer_maxsize=4,  # frames
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_FETCH_BYTES,
        consumer_metadata_max_age_ms=10_000,  # finds a topic that comes later
        broker_session_timeout=10,
        broker_heartbeat_interval=1,
        broker_rebalance_timeout=8,
        broker_request_timeout=12,
        broker_max_poll_interval=864_000,  # with a small one a member whose fetcher idles never joins again
    )
