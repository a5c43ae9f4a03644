"""A client of the broker that is not one of the product's processes."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from application.jobs.topics import EVENTS

LOG_ITSELF = TopicPartition(EVENTS, 0)
TEN_MEGABYTES = 10 * 1024**2


class Attacker:
    """Reads and writes what is there; without a key it signs nothing."""

    def __init__(self, brokers):
        self._brokers = brokers

    def records(self, *, last=None):
        """Of the log's topic: all, or the last so many."""
        return asyncio.run(self._records(last))

    async def _records(self, last):
        consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([LOG_ITSELF])
            begin = (await consumer.beginning_offsets([LOG_ITSELF]))[LOG_ITSELF]
            end = (await consumer.end_offsets([LOG_ITSELF]))[LOG_ITSELF]
            begin = begin if last is None else max(begin, end - last)
            consumer.seek(LOG_ITSELF, begin)
            found = []
            while len(found) < end - begin:
                found += (await consumer.getmany(timeout_ms=500)).get(LOG_ITSELF, [])
            return found
        finally:
            await consumer.stop()

    def send(self, *records):
        """Headers and value of each, to the log's topic."""
        asyncio.run(self._send([(EVENTS, value, headers) for headers, value in records]))

    def send_to(self, topic, *values):
        asyncio.run(self._send([(topic, value, []) for value in values]))

    async def _send(self, records):
        producer = AIOKafkaProducer(bootstrap_servers=self._brokers, max_request_size=2 * TEN_MEGABYTES, request_timeout_ms=3000)
        await producer.start()
        try:
            for topic, value, headers in records:
                await producer.send_and_wait(topic, value, partition=0, headers=headers)
        finally:
            await producer.stop()
