"""Producers: the fencing producer of the relay, and a sender of single records."""

import asyncio
from typing import Final

from aiokafka import AIOKafkaProducer

from infrastructure.kafka import aiokafka_internals
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS

DELIVERY_TIMEOUT_SECONDS: Final = 5.0
FENCING_TIMEOUT_SECONDS: Final = 30.0  # at the first time Kafka creates an internal topic
TRANSACTION_TIMEOUT_MS: Final = 60_000  # required, although no transaction is begun; Kafka refuses more than 15 minutes
STOP_TIMEOUT_SECONDS: Final = 1.0
MAX_BATCH_BYTES: Final = 256 * 1024
REQUEST_TIMEOUT_MS: Final = 10_000
METADATA_MAX_AGE_MS: Final = 30_000


def create_producer(brokers: str) -> AIOKafkaProducer:
    """An idempotent producer with acks=all that sends without delay. It belongs to the event loop on which it is created."""
    return AIOKafkaProducer(
        bootstrap_servers=brokers,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=MAX_BATCH_BYTES,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
    )


async def start_fencing(producer: AIOKafkaProducer, name: str) -> None:
    """Start the newest producer called `name`. After its first record, Kafka refuses records of earlier producers of that name.

    Kafka gives all producers of one transactional id the same producer id and a rising epoch. It checks the epoch of each batch, even
    outside transactions, which are not used because they add markers to the topic. The embedded broker checks nothing. Raises one of
    UNAVAILABLE_ERRORS.
    """
    aiokafka_internals.set_transactional_id(producer, name, timeout_ms=TRANSACTION_TIMEOUT_MS)
    try:
        async with asyncio.timeout(FENCING_TIMEOUT_SECONDS):
            await producer.start()
    except TimeoutError:
        raise TimeoutError("Kafka gives no producer epoch: its topic __transaction_state may lack brokers") from None
    finally:
        aiokafka_internals.set_transactional_id(producer, None)


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer after its pending records, but wait at most STOP_TIMEOUT_SECONDS for an unavailable Kafka."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
            await producer.stop()
    except TimeoutError:
        await aiokafka_internals.close_sender(producer)
        await producer.client.close()


class Sender:
    """`sender(topic, key, value)` returns when Kafka has stored the record. Raises one of UNAVAILABLE_ERRORS in time.

    The limit is DELIVERY_TIMEOUT_SECONDS. It connects at the first use, and again if its producer has failed for good. It belongs to the
    event loop that uses it.
    """

    def __init__(self, brokers: str) -> None:
        self._brokers = brokers
        self._producer: AIOKafkaProducer | None = None
        self._lock: asyncio.Lock | None = None

    async def __call__(self, topic: str, key: bytes, value: bytes) -> None:
        async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
            producer = await self._connected()
            await producer.send_and_wait(topic, value, key=key)

    async def partitions(self, topic: str) -> int:
        """The number of partitions of a topic. Raises one of UNAVAILABLE_ERRORS in time."""
        async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
            producer = await self._connected()
            return len(await producer.partitions_for(topic))

    async def close(self) -> None:
        if self._producer is not None:
            await stop_producer(self._producer)
            self._producer = None

    async def _connected(self) -> AIOKafkaProducer:
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._producer is not None and aiokafka_internals.has_given_up(self._producer):
                await self.close()
            if self._producer is None:
                producer = create_producer(self._brokers)
                try:
                    await producer.start()
                except (*UNAVAILABLE_ERRORS, asyncio.CancelledError):
                    await stop_producer(producer)
                    raise
                self._producer = producer
        return self._producer
