"""Faust, reduced to a transport of batches, with all uses and overrides of its private names.

Faust has a cost per message, acknowledges messages on which an agent failed, and may skip messages in a double rebalance. So its
acknowledgements and commits are not used: the reader tracks offsets, and decides at each assignment from where to read.
tests/kafka/test_client_internals.py checks each private name.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.exceptions import ConsumerNotStarted, NotReady
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from infrastructure.kafka import aiokafka_internals
from infrastructure.kafka.batches import MAX_BATCH_RECORDS, MAX_WAITING_BATCHES, BatchReader, OffsetRange, RecordBatch
from infrastructure.kafka.fetch_throttle import FetchThrottle
from infrastructure.kafka.group_timeouts import (
    HEARTBEAT_INTERVAL_SECONDS,
    MAX_POLL_INTERVAL_SECONDS,
    METADATA_MAX_AGE_SECONDS,
    REBALANCE_TIMEOUT_SECONDS,
    REQUEST_TIMEOUT_SECONDS,
    SESSION_TIMEOUT_SECONDS,
)
from infrastructure.kafka.limits import MAX_FETCH_BYTES

UNGROUPED_WAIT_SECONDS: Final = 5.0  # for records; Faust itself polls every second to notice rebalances
UNGROUPED_GENERATION: Final = 1


class BatchThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread. Without groups, it assigns all partitions of its topics to itself."""

    _announcing: "asyncio.Task[None] | None" = None

    @property
    def _batch_transport(self) -> "BatchTransport":
        return cast(BatchTransport, self.transport)

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        aiokafka_internals.set_fetch_wait(consumer, self._batch_transport.fetch_wait_ms)  # Faust hard-codes 1500
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        if (throttle := self._batch_transport.throttle) is not None:
            aiokafka_internals.throttle_fetches(self._ensure_consumer(), throttle)

    async def subscribe(self, topics: Iterable[str]) -> None:
        if self._batch_transport.grouped:
            await super().subscribe(topics)
        elif self._announcing is None:
            await self.call_thread(self._assign_all, sorted(topics))

    async def _assign_all(self, topics: Iterable[str]) -> None:
        consumer = self._ensure_consumer()
        partitions = await aiokafka_internals.partitions_of(consumer, topics)
        consumer.assign(partitions)
        self._announcing = asyncio.create_task(self._announce({TP(*partition) for partition in partitions}))  # it starts after this call

    async def _announce(self, partitions: set[TP]) -> None:
        """Announce the assignment like the first generation of a group."""
        self.app.on_rebalance_start()
        self.app.consumer_generation_id = UNGROUPED_GENERATION
        await self.on_partitions_assigned(partitions, UNGROUPED_GENERATION)


class BatchConsumer(driver.Consumer):
    """Yields batches, and gets the starting offsets from the reader."""

    _cluster = ""

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _batch_transport(self) -> "BatchTransport":
        return cast(BatchTransport, self.transport)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        partitions, transport = self.assignment(), self._batch_transport
        self._cluster = await transport.cluster()
        begin, end = await self.earliest_offsets(*partitions), await self.highwaters(*partitions)
        committed = await self._thread.call_thread(self._committed, partitions)
        ranges = {TopicPartition(*one): OffsetRange(begin[one], end[one], committed[one]) for one in partitions}
        offsets = await transport.reader.starting_offsets(self._cluster, ranges)
        seek_to = {TP(*partition): offset for partition, offset in offsets.items()}
        await self.seek_wait(seek_to)
        transport.processed = dict(offsets)
        return seek_to

    async def _committed(self, partitions: Iterable[TP]) -> dict[TP, int | None]:
        consumer = self._thread._ensure_consumer()
        return {partition: await consumer.committed(partition) for partition in partitions}

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's signature
        fetched, _ = await self._wait_next_records(timeout if self._batch_transport.grouped else UNGROUPED_WAIT_SECONDS)
        for kafka_partition, records in (fetched or {}).items():
            partition = TP(kafka_partition.topic, kafka_partition.partition)
            for start in range(0, len(records), MAX_BATCH_RECORDS):
                if self.should_stop or not self.flow_active:
                    return  # the rest is fetched again, or detected as missing
                yield partition, self._message_of(partition, records[start : start + MAX_BATCH_RECORDS])

    def _message_of(self, partition: TP, records: Sequence[Any]) -> Any:
        message = self._to_message(partition, records[-1])
        batch = RecordBatch(self._cluster, TopicPartition(*partition), records)
        message.key, message.value = None, cast(Any, batch)
        self._read_offset[partition] = None  # Faust would drop messages below it
        return message

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing. Faust would pause fetching for a second; the bounded queue already limits the fetcher."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: the watchdog checks progress."""


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer

    def __init__(
        self,
        app: faust.App,
        reader: BatchReader,
        *,
        fetch_wait: float,
        grouped: bool,
        cluster: Callable[[], Awaitable[str]],
    ) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.reader, self.fetch_wait_ms, self.grouped, self.cluster = reader, max(1, int(fetch_wait * 1000)), grouped, cluster
        self.throttle = None if grouped else FetchThrottle()
        self.processed: dict[TopicPartition, int] = {}


class BatchSchema(faust.Schema[Any, Any]):
    """Passes batches unchanged."""

    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Any, **_: Any) -> Any:
            return app.create_event(None, message.value, message.headers, message)

        return decode


class NoTables(TableManager):
    async def on_start(self) -> None:
        """As the base class, but without waiting a second for tables, since there are none."""
        await self._update_channels()
        await self.recovery.start()


class DisklessApp(faust.App):
    """A Faust app that writes no files: without tables it needs no data directory."""

    def _create_directories(self) -> None:
        """Do nothing. The base class creates GROUP-data in the working directory, which may be read-only."""


class SignallessWorker(faust.Worker):
    def install_signal_handlers(self) -> None:
        """Do nothing: the process has its own handlers."""


# ---- the parts of a running app ----------------------------------------------------------------------------------------------------
def consumer_of(app: faust.App) -> BatchConsumer:
    """The app's consumer. `app.consumer` would create one too early, on the wrong loop. Raises NotReady."""
    if app._consumer is None:
        raise NotReady
    return cast(BatchConsumer, app._consumer)


def kafka_consumer_of(app: faust.App) -> AIOKafkaConsumer:
    """The aiokafka consumer. Raises NotReady, ConsumerNotStarted."""
    return consumer_of(app)._thread._ensure_consumer()


def kafka_loop_of(app: faust.App) -> asyncio.AbstractEventLoop:
    """The event loop of Faust's consumer thread. Raises NotReady."""
    return cast(asyncio.AbstractEventLoop, consumer_of(app)._thread.thread_loop)


def is_active(app: faust.App) -> bool:
    """Whether no rebalance is in progress."""
    return bool(consumer_of(app).flow_active and not app.rebalancing)


def batch_app(group: str, brokers: str) -> faust.App:
    """An app with settings that passed all fault tests on Apache Kafka with up to three members (docs/decisions/0030)."""
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
        stream_buffer_maxsize=MAX_WAITING_BATCHES,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_FETCH_BYTES,
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_SECONDS * 1000,
        broker_session_timeout=SESSION_TIMEOUT_SECONDS,
        broker_heartbeat_interval=HEARTBEAT_INTERVAL_SECONDS,
        broker_rebalance_timeout=REBALANCE_TIMEOUT_SECONDS,
        broker_request_timeout=REQUEST_TIMEOUT_SECONDS,
        broker_max_poll_interval=MAX_POLL_INTERVAL_SECONDS,
    )


NOT_STARTED_ERRORS: Final = (NotReady, ConsumerNotStarted)

PRIVATE_NAMES: Mapping[str, tuple[str, ...]] = {
    "faust.App": ("_consumer", "_create_directories", "rebalancing", "on_rebalance_start", "create_event"),
    "faust.Worker": ("install_signal_handlers", "execute_from_commandline"),
    "TableManager": ("_update_channels", "on_start", "recovery"),
    "driver.AIOKafkaConsumerThread": (
        "_create_worker_consumer",
        "_ensure_consumer",
        "call_thread",
        "on_partitions_assigned",
        "on_start",
        "subscribe",
    ),
    "driver.Consumer": (
        "_new_consumer_thread",
        "_read_offset",
        "_thread",
        "_to_message",
        "_wait_next_records",
        "earliest_offsets",
        "getmany",
        "highwaters",
        "on_buffer_full",
        "seek_to_committed",
        "seek_wait",
        "verify_event_path",
    ),
}
"""By class, for the test: all names that are used or overridden beyond Faust's documented interface."""
