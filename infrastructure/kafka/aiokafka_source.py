"""The adapter of `BatchSource` to aiokafka."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError

from infrastructure.kafka import aiokafka_internals
from infrastructure.kafka.batches import MAX_BATCH_RECORDS, BatchReader, OffsetRange, RecordBatch
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
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS, create_topics

POLL_TIMEOUT_MS: Final = 1000
RETRY_DELAY_SECONDS: Final = 0.5

T = TypeVar("T")


class AiokafkaBatchSource:
    """Implements `BatchSource`. The consumer has its own thread and event loop, so that a busy reader does not delay heartbeats."""

    def __init__(
        self,
        brokers: str,
        topics: Sequence[str],
        reader: BatchReader,
        *,
        group: str,
        grouped: bool,
        fetch_wait: float,
    ) -> None:
        self._brokers, self._topics, self._reader, self._group, self._grouped = brokers, topics, reader, group, grouped
        self._fetch_wait_ms = max(1, int(fetch_wait * 1000))
        self._throttle = None if grouped else FetchThrottle()
        self._consumer: AIOKafkaConsumer | None = None
        self._kafka_loop = asyncio.new_event_loop()
        self._reader_loop: asyncio.AbstractEventLoop | None = None
        self._assignment = _Assignment()
        self.processed: dict[TopicPartition, int] = {}

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reader_loop = loop
        ended: asyncio.Future[None] = loop.create_future()

        def read() -> None:
            asyncio.set_event_loop(self._kafka_loop)
            outcome: BaseException | None = None
            try:
                self._kafka_loop.run_until_complete(self._read_always())
            except BaseException as error:  # raised in `run`
                outcome = error
            loop.call_soon_threadsafe(_resolve, ended, outcome)

        threading.Thread(target=read, name="kafka", daemon=True).start()
        loop.run_until_complete(ended)

    def wake(self) -> None:
        if self._throttle is not None:
            self._throttle.wake()

    @property
    def assigned(self) -> frozenset[TopicPartition] | None:
        consumer = self._consumer
        if consumer is None or not aiokafka_internals.is_member(consumer, grouped=self._grouped):
            return None
        return frozenset(consumer.assignment())

    @property
    def has_joined(self) -> bool:
        return self.assigned is not None and self._assignment.is_accepted

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        consumer = self._started()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(consumer.commit(dict(offsets)), self._kafka_loop))

    def end_offsets(self, timeout: float) -> Mapping[TopicPartition, int]:
        consumer = self._started()
        work = consumer.end_offsets(list(consumer.assignment()))
        return dict(asyncio.run_coroutine_threadsafe(work, self._kafka_loop).result(timeout))

    def leave(self, timeout: float) -> None:
        consumer = self._started()
        asyncio.run_coroutine_threadsafe(aiokafka_internals.leave_group(consumer), self._kafka_loop).result(timeout)

    # ---- on the loop of the consumer ----
    async def _read_always(self) -> None:
        consumer = await self._connected()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_assignments(consumer))
                for topic in self._topics:
                    group.create_task(self._read(consumer, topic))
        finally:
            await consumer.stop()

    async def _connected(self) -> AIOKafkaConsumer:
        """A started consumer. Waits for the brokers as long as necessary."""
        while True:
            consumer = self._new_consumer()
            try:
                await consumer.start()
                if self._throttle is not None:
                    aiokafka_internals.throttle_fetches(consumer, self._throttle)
                await self._subscribe(consumer)
            except UNAVAILABLE_ERRORS:
                await consumer.stop()
                await asyncio.sleep(RETRY_DELAY_SECONDS)
            else:
                self._consumer = consumer
                return consumer

    def _new_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._brokers,
            group_id=self._group if self._grouped else None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self._fetch_wait_ms,
            max_partition_fetch_bytes=MAX_FETCH_BYTES,
            session_timeout_ms=SESSION_TIMEOUT_SECONDS * 1000,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_SECONDS * 1000,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_SECONDS * 1000,
            request_timeout_ms=REQUEST_TIMEOUT_SECONDS * 1000,
            max_poll_interval_ms=MAX_POLL_INTERVAL_SECONDS * 1000,
            metadata_max_age_ms=METADATA_MAX_AGE_SECONDS * 1000,
        )

    async def _subscribe(self, consumer: AIOKafkaConsumer) -> None:
        if self._grouped:
            consumer.subscribe(list(self._topics), listener=_Listener(self._assignment))
        else:
            partitions = await aiokafka_internals.partitions_of(consumer, self._topics)
            consumer.assign(partitions)
            self._assignment.begin(partitions)

    async def _follow_assignments(self, consumer: AIOKafkaConsumer) -> None:
        """After each assignment, get the starting offsets from the reader. Retries while Kafka is unavailable."""
        while True:
            partitions = await self._assignment.pending()
            try:
                cluster = await create_topics(self._brokers)
                ranges = await self._ranges(consumer, partitions)
            except UNAVAILABLE_ERRORS:
                await asyncio.sleep(RETRY_DELAY_SECONDS)
                continue
            offsets = await self._on_reader_loop(self._reader.starting_offsets(cluster, ranges))
            with suppress(IllegalStateError):  # the partitions were revoked in the meantime
                for partition, offset in offsets.items():
                    consumer.seek(partition, offset)
                self.processed = dict(offsets)
                self._assignment.accept(partitions, cluster)

    async def _ranges(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        begin, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        committed = {one: await consumer.committed(one) if self._grouped else None for one in partitions}
        return {one: OffsetRange(begin[one], end[one], committed[one]) for one in partitions}

    async def _read(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        """Process the batches of one topic, one after the other."""
        while True:
            assignment = await self._assignment.accepted()
            partitions = [partition for partition in assignment.partitions if partition.topic == topic]
            if not partitions:
                await assignment.ended.wait()
                continue
            fetched = await consumer.getmany(*partitions, timeout_ms=POLL_TIMEOUT_MS, max_records=MAX_BATCH_RECORDS)
            for partition, records in fetched.items():
                if assignment.ended.is_set():
                    break  # the rest is fetched again, or belongs to another member
                batch = RecordBatch(assignment.cluster, partition, records)
                await self._on_reader_loop(self._reader.process(batch))
                self.processed[partition] = batch.next_offset

    async def _on_reader_loop(self, call: Coroutine[Any, Any, T]) -> T:
        assert self._reader_loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._reader_loop))

    def _started(self) -> AIOKafkaConsumer:
        """The consumer. Raises TimeoutError (one of UNAVAILABLE_ERRORS) before it has started."""
        if self._consumer is None:
            raise TimeoutError("the consumer has not started")
        return self._consumer


class _Accepted:
    """An assignment with starting offsets from the reader. `ended` is set when it is revoked."""

    def __init__(self, partitions: Sequence[TopicPartition], cluster: str) -> None:
        self.partitions, self.cluster = partitions, cluster
        self.ended = asyncio.Event()


class _Assignment:
    """The current assignment: pending, then accepted. Used on the consumer's loop; `is_accepted` is thread-safe."""

    def __init__(self) -> None:
        self._pending: Sequence[TopicPartition] = ()
        self._accepted: _Accepted | None = None
        self._has_begun, self._was_accepted = asyncio.Event(), asyncio.Event()

    @property
    def is_accepted(self) -> bool:
        return self._accepted is not None

    def revoke(self) -> None:
        if self._accepted is not None:
            self._accepted.ended.set()
        self._pending, self._accepted = (), None
        self._has_begun.clear()
        self._was_accepted.clear()

    def begin(self, partitions: Iterable[TopicPartition]) -> None:
        self.revoke()
        self._pending = sorted(partitions)
        self._has_begun.set()

    async def pending(self) -> Sequence[TopicPartition]:
        """Wait for an assignment that the reader has not accepted yet; return its partitions."""
        await self._has_begun.wait()
        return self._pending

    def accept(self, partitions: Sequence[TopicPartition], cluster: str) -> None:
        """Accept the assignment, unless another one has begun in the meantime."""
        if self._has_begun.is_set() and self._pending is partitions:
            self._has_begun.clear()
            self._accepted = _Accepted(partitions, cluster)
            self._was_accepted.set()

    async def accepted(self) -> _Accepted:
        while self._accepted is None:
            await self._was_accepted.wait()
        return self._accepted


class _Listener(ConsumerRebalanceListener):
    def __init__(self, assignment: _Assignment) -> None:
        self._assignment = assignment

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - aiokafka's signature
        self._assignment.revoke()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._assignment.begin(assigned)


def _resolve(ended: "asyncio.Future[None]", outcome: BaseException | None) -> None:
    if ended.done():
        return
    if outcome is None:
        ended.set_result(None)
    else:
        ended.set_exception(outcome)
