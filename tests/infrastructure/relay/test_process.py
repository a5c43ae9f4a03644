"""The relay process: leadership, publishing, signed heads, and its end."""

import asyncio
from datetime import datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from application.jobs.topics import EVENTS
from application.ports import AppendRejected
from infrastructure.audit.log_verification import verify_log
from infrastructure.configuration.settings import Settings
from infrastructure.kafka import topics
from infrastructure.kafka.cloud_events import RecordKey, authenticated
from infrastructure.kafka.topics import all_topics, create_topics, create_topics_when_reachable
from infrastructure.security.keys import RootKey
from tests.kafka.system_processes import SystemProcesses, busy

pytestmark = pytest.mark.anyio


@pytest.fixture
def processes(settings):
    processes = SystemProcesses(settings)
    yield processes
    processes.close()


def published(processes):
    return processes.row("select position from ops.relay")[0]


def until_published(processes, **within):
    head = processes.log.head()
    processes.until(lambda: published(processes) >= head, **within)


def consumed(processes, count):
    async def read():
        consumer = AIOKafkaConsumer(bootstrap_servers=processes.settings.kafka_url, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([TopicPartition(EVENTS, 0)])
            await consumer.seek_to_beginning()
            async with asyncio.timeout(20):
                return [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()

    return asyncio.run(read())


def test_a_consumer_gets_cloud_events_with_the_bytes_as_stored(processes):
    done = processes.dataset()
    processes.start("relay")
    until_published(processes)
    record = consumed(processes, 2)[1]
    event = processes.log.read(1, 1)[0]
    told = {name: value.decode() for name, value in record.headers}
    assert (record.key.decode(), record.value) == (str(done.id), event.data)
    assert (told["ce_specversion"], told["content-type"], told["ce_type"]) == ("1.0", "application/json", "DatasetCreated")
    assert (told["ce_id"], told["ce_subject"], told["ce_position"]) == (str(event.event_id), str(done.id), "2")
    assert (told["ce_streamversion"], told["ce_schemaversion"]) == ("1", "1")
    assert datetime.fromisoformat(told["ce_time"]) == event.recorded_at
    assert UUID(told["ce_correlationid"]) == UUID(told["ce_causationid"])
    assert "traceparent" not in told
    assert told["ce_meta"].encode() == event.meta
    linked = authenticated(record, RecordKey(RootKey.read(processes.settings.root_key_path)))
    assert linked == (event, processes.log.read(0, 1)[0].hash)
    with pytest.raises(AppendRejected, match="comes from b'urn:uuid"):
        authenticated(record, RecordKey(RootKey(b"y" * 32)))


def test_it_ends_in_time_and_signs_what_it_leaves(processes):
    processes.start("relay")
    for _ in range(3):
        processes.dataset()
    until_published(processes)
    assert processes.stop("relay", within=5.0) == [0]
    found = verify_log(processes.settings, processes.log)
    assert (found.finding, found.events, found.heads) == (None, 4, 1)
    with psycopg.connect(processes.settings.postgres_owner_url, autocommit=True) as owner:
        owner.execute("delete from ops.heads")
    assert verify_log(processes.settings, processes.log).heads == 1


def test_another_one_stands_by_and_leads_when_the_first_is_gone(processes):
    processes.start("relay-1")
    processes.until(lambda: processes.row("select epoch from ops.relay")[0] == 1)
    processes.start("relay-2")
    with busy(processes):
        until_published(processes)
        assert processes.row("select epoch from ops.relay")[0] == 1
        processes.kill("relay-1")
        processes.until(lambda: processes.row("select epoch from ops.relay")[0] == 2)
    until_published(processes)
    head = processes.log.head()
    positions = [int(dict(record.headers)["ce_position"]) for record in consumed(processes, head)]
    assert list(dict.fromkeys(positions)) == list(range(1, max(positions) + 1))


def test_it_leads_again_after_the_database_closed_its_connections(processes):
    processes.start("relay")
    until_published(processes)
    with psycopg.connect(processes.settings.postgres_owner_url, autocommit=True) as owner:
        owner.execute("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
    processes.dataset()
    until_published(processes, within=10)
    assert processes.stop("relay") == [0]


async def test_topics_are_made_once_with_the_partitions_that_they_need(kafka_url):
    wanted = all_topics(Settings())
    assert await create_topics(kafka_url, wanted) == await create_topics(kafka_url) == await create_topics_when_reachable(kafka_url, wanted)
    described = await partitions(kafka_url)
    assert described["bioscope.events"] == described["bioscope.dead-letters"] == 1
    assert {described[f"bioscope.inference-{lane}"] for lane in ("tasks", "urgent", "external")} == {12}
    assert (described["classification-job"], described["classification-result"]) == (12, 4)


async def test_the_embedded_broker_has_the_topics_of_external_classifiers_before_these_start(broker_url):
    names = dict.fromkeys([str(uuid4()), str(uuid4())], 12)
    await create_topics(broker_url, names)
    assert names.keys() <= (await partitions(broker_url)).keys()


async def test_topics_that_were_made_can_be_used_at_once(kafka_url):
    for _ in range(5):
        fresh = {str(uuid4()): width for width in (1, 12)}
        await create_topics(kafka_url, fresh)
        assert fresh.items() <= (await partitions(kafka_url)).items()


async def partitions(kafka_url):
    """How many each topic has that the broker knows of."""
    async with topics._admin(kafka_url) as admin:
        return {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics()}
