"""Send single records, surely."""

import asyncio
from typing import Final

from aiokafka import AIOKafkaProducer

from infrastructure.kafka.topics import UNAVAILABLE_ERRORS

DELIVERY_TIMEOUT_SECONDS: Final = 5.0  # seconds until Kafka must have it
FENCING_TIMEOUT_SECONDS: Final = 30.0  # seconds; the first time Kafka makes a topic for it
TRANSACTION_TIMEOUT_MS: Final = 60_000  # of transactions that are never begun; Kafka refuses more than 15 minutes
STOP_TIMEOUT_SECONDS: Final = 1.0  # seconds for what is under way at the end


def producer(brokers: str) -> AIOKafkaProducer:
    """Idempotent, acks=all; nothing waits for company. Belongs to the loop that it is made on."""
    return AIOKafkaProducer(
        bootstrap_servers=brokers,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=256 * 1024,
        request_timeout_ms=10_000,
        metadata_max_age_ms=30_000,
    )


async def start_fencing(producer: AIOKafkaProducer, name: str) -> None:
    """Start it as the newest producer of that name: once it has sent something, Kafka refuses whatever an earlier one still sends.

    Kafka gives the producers of one transactional id the same number, and an epoch that rises. It compares epochs with each batch, also
    outside of transactions, which would add markers to the topic. The embedded broker compares nothing. Raises one of AWAY.
    """
    manager = producer._txn_manager  # noqa: SLF001 - aiokafka asks for an epoch for transactions only
    manager.transactional_id, manager.transaction_timeout_ms = name, TRANSACTION_TIMEOUT_MS
    try:
        async with asyncio.timeout(FENCING_TIMEOUT_SECONDS):
            await producer.start()
    except TimeoutError:
        raise TimeoutError("Kafka gives no epoch: can it keep its topic __transaction_state on the brokers that it has?") from None
    finally:
        manager.transactional_id = None


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """End it, once Kafka has what is under way; a Kafka that is away is not waited for: it would be for ever."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
            await producer.stop()
    except TimeoutError:
        await producer._sender.close()  # noqa: SLF001 - `stop` has no end of its own
        await producer.client.close()


class Sender:
    """`sender(topic, key, value)` returns when Kafka has it. Raises one of AWAY, after `PATIENCE` at the latest.

    Connects when it is first used, and again when its producer gave up for good; belongs to the loop that uses it.
    """

    def __init__(self, brokers: str) -> None:
        self._brokers = brokers
        self._producer: AIOKafkaProducer | None = None
        self._turn: asyncio.Lock | None = None

    async def __call__(self, topic: str, key: bytes, value: bytes) -> None:
        async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS):
            connected = await self._connected()
            await connected.send_and_wait(topic, value, key=key)

    async def close(self) -> None:
        if self._producer is not None:
            await stop_producer(self._producer)
            self._producer = None

    async def _connected(self) -> AIOKafkaProducer:
        self._turn = self._turn or asyncio.Lock()
        async with self._turn:
            if self._producer is not None and _gave_up(self._producer):
                await self.close()
            if self._producer is None:
                made = producer(self._brokers)
                try:
                    await made.start()
                except (*UNAVAILABLE_ERRORS, asyncio.CancelledError):
                    await stop_producer(made)
                    raise
                self._producer = made
        return self._producer


def _gave_up(made: AIOKafkaProducer) -> bool:
    """Whether it would raise the same error for ever."""
    return bool(made._sender.sender_task.done())  # noqa: SLF001 - it tells nobody
