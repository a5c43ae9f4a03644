"""The adapter of `BatchSource` to Faust."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition

from infrastructure.kafka import aiokafka_internals
from infrastructure.kafka.batches import BatchReader, RecordBatch
from infrastructure.kafka.faust_internals import (
    NOT_STARTED_ERRORS,
    BatchSchema,
    BatchTransport,
    SignallessWorker,
    batch_app,
    is_active,
    kafka_consumer_of,
    kafka_loop_of,
)
from infrastructure.kafka.topics import create_topics


class FaustBatchSource:
    """Implements `BatchSource`. Faust runs the consumer on its own thread, and an agent for each topic on the event loop."""

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
        self._topics, self._reader, self._grouped = topics, reader, grouped
        self._app = batch_app(group, brokers)

        async def cluster() -> str:
            return await create_topics(brokers)

        self._transport = BatchTransport(self._app, reader, fetch_wait=fetch_wait, grouped=grouped, cluster=cluster)
        self._app.transport = self._transport

    @property
    def processed(self) -> dict[TopicPartition, int]:
        return self._transport.processed

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        for topic in self._topics:
            self._add_agent(topic)
        worker = SignallessWorker(self._app, loop=loop, quiet=True, redirect_stdouts=False, override_logging=False)
        worker.spinner = None
        worker.execute_from_commandline()

    def wake(self) -> None:
        if self._transport.throttle is not None:
            self._transport.throttle.wake()

    @property
    def assigned(self) -> frozenset[TopicPartition] | None:
        try:
            consumer = kafka_consumer_of(self._app)
        except NOT_STARTED_ERRORS:
            return None
        return frozenset(consumer.assignment()) if aiokafka_internals.is_member(consumer, grouped=self._grouped) else None

    @property
    def has_joined(self) -> bool:
        return self.assigned is not None and is_active(self._app)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        work = kafka_consumer_of(self._app).commit(cast(Any, dict(offsets)))
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, kafka_loop_of(self._app)))

    def end_offsets(self, timeout: float) -> Mapping[TopicPartition, int]:
        async def offsets(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
            return dict(await consumer.end_offsets(list(consumer.assignment())))

        try:
            return cast(dict[TopicPartition, int], self._on_kafka_loop(offsets, timeout))
        except NOT_STARTED_ERRORS as error:
            raise TimeoutError("the consumer has not started") from error

    def leave(self, timeout: float) -> None:
        self._on_kafka_loop(aiokafka_internals.leave_group, timeout)

    def _add_agent(self, topic: str) -> None:
        async def read(batches: faust.StreamT[RecordBatch]) -> None:
            async for batch in batches:
                await self._reader.process(batch)
                self._transport.processed[batch.partition] = batch.next_offset

        self._app.agent(self._app.topic(topic, acks=False, schema=BatchSchema()), concurrency=1, name=topic)(read)

    def _on_kafka_loop(self, work: Callable[[AIOKafkaConsumer], Awaitable[Any]], timeout: float) -> Any:
        """Run `work` on the event loop of Faust's consumer thread, and wait. To be called on another thread."""
        consumer, loop = kafka_consumer_of(self._app), kafka_loop_of(self._app)

        async def call() -> Any:
            return await work(consumer)

        return asyncio.run_coroutine_threadsafe(call(), loop).result(timeout)
