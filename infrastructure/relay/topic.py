"""The Kafka topic of the log, as the relay writes it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError, ProducerFenced, RecordListTooLargeError

from application.jobs.topics import EVENTS
from application.ports import ChainedEvent
from infrastructure.kafka.cloud_events import RecordKey, headers
from infrastructure.kafka.producer import create_producer, start_fencing, stop_producer
from infrastructure.kafka.topics import PARTITIONS, REQUEST_TIMEOUT_MS, create_topics, create_topics_when_reachable, limit_client_logs
from infrastructure.relay.errors import Fenced

BATCH_TIMEOUT_SECONDS: Final = 20.0
REFUSED_ERRORS: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError)
"""Errors with which Kafka refuses an event permanently."""


class Topic(Protocol):
    """The log's topic. Calls raise one of `kafka.topics.UNAVAILABLE_ERRORS` while Kafka is unavailable."""

    async def cluster_id(self) -> str: ...

    async def end(self) -> tuple[str, int]:
        """The cluster's id, and the offset after the newest record."""

    async def publish(self, events: Sequence[ChainedEvent]) -> Sequence[int | BaseException]:
        """Publish events; return for each its offset (-1: stored, offset unknown) or its error. Raises Fenced."""


class KafkaTopic:
    """The one partition of `bioscope.events`."""

    def __init__(self, brokers: str, producer: AIOKafkaProducer, *, topics: Mapping[str, int], key: RecordKey) -> None:
        self._brokers, self._producer, self._topics, self._key = brokers, producer, topics, key

    async def cluster_id(self) -> str:
        return await create_topics(self._brokers, self._topics)

    async def end(self) -> tuple[str, int]:
        cluster = await self.cluster_id()
        consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers, request_timeout_ms=REQUEST_TIMEOUT_MS)
        try:
            await consumer.start()
            partition = TopicPartition(EVENTS, 0)
            return cluster, (await consumer.end_offsets([partition]))[partition]
        finally:
            await consumer.stop()

    async def publish(self, events: Sequence[ChainedEvent]) -> Sequence[int | BaseException]:
        async with asyncio.timeout(BATCH_TIMEOUT_SECONDS):
            sent = [await self._send(event) for event in events]
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
        if any(isinstance(outcome, ProducerFenced) for outcome in outcomes):
            raise Fenced("Kafka refuses its records: another relay publishes")
        return [outcome if isinstance(outcome, BaseException) else int(outcome.offset) for outcome in outcomes]

    async def _send(self, chained: ChainedEvent) -> "asyncio.Future[Any]":
        event = chained.event
        try:
            future: asyncio.Future[Any] = await self._producer.send(
                EVENTS, event.data, key=str(event.stream).encode(), partition=0, headers=headers(chained, self._key)
            )
        except ProducerFenced:
            raise Fenced("Kafka refuses its records: another relay publishes") from None
        except REFUSED_ERRORS as refused:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(refused)
        return future


@asynccontextmanager
async def connect_topic(brokers: str, *, topics: Mapping[str, int] = PARTITIONS, key: RecordKey) -> AsyncIterator[KafkaTopic]:
    """Connect, waiting for the brokers as long as necessary, and create `topics` (partitions by name).

    Kafka then refuses records of earlier relays (decision 0074). Raises one of `kafka.topics.UNAVAILABLE_ERRORS`.
    """
    await create_topics_when_reachable(brokers, topics)
    limit_client_logs()
    producer = create_producer(brokers)
    try:
        await start_fencing(producer, f"bioscope-relay-{key.source.decode()}")
        yield KafkaTopic(brokers, producer, topics=topics, key=key)
    finally:
        await stop_producer(producer)
