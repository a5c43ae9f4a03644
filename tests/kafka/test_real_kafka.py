"""The Kafka fixture gives a working Apache Kafka."""

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

pytestmark = pytest.mark.anyio


async def test_a_real_kafka_takes_a_topic_and_gives_back_its_records_in_order(kafka_url):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_url)
    await admin.start()
    await admin.create_topics([NewTopic("fixture-check", num_partitions=1, replication_factor=1)])
    await admin.close()
    sent = [str(number).encode() for number in range(100)]
    async with AIOKafkaProducer(bootstrap_servers=kafka_url, enable_idempotence=True) as producer:
        for value in sent:
            await producer.send("fixture-check", value, partition=0)
    async with AIOKafkaConsumer("fixture-check", bootstrap_servers=kafka_url, auto_offset_reset="earliest") as consumer:
        got = [(await consumer.getone()).value for _ in sent]
    assert got == sent
