"""The relay's publisher: every event, in order, whatever fails."""

import asyncio
import random
import threading
import time
from uuid import uuid4

import psycopg
import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from domain import dataset
from infrastructure.postgres.system.relay_checkpoint import RelayCheckpoint
from infrastructure.relay.checkpoint_store import PostgresCheckpointStore
from infrastructure.relay.errors import CheckpointBeyondLog, Fenced, TopicReset, Unpublishable
from infrastructure.relay.publisher import RelayLimits, RelaySession
from tests.given import NOW, actor, command

pytestmark = pytest.mark.anyio

LIMITS = RelayLimits(events_per_batch=40, republished_events=10)


class Topic:
    """Kafka as the relay sees it, in memory. `refuse` says of a position why it is not taken."""

    def __init__(self, cluster="one"):
        self.cluster, self.records, self.refuse = cluster, [], lambda _: None

    async def end(self):
        return self.cluster, len(self.records)

    async def publish(self, events):
        outcomes = []
        for event, _ in events:
            if error := self.refuse(event.position):
                outcomes.append(error)
            else:
                outcomes.append(len(self.records))
                self.records.append(event)
        return outcomes

    @property
    def positions(self):
        return [event.position for event in self.records]

    def lose(self, cluster=None):
        self.records, self.cluster = [], cluster or self.cluster


@pytest.fixture
def happen(log):
    """Append events, one a command."""

    def append(number=1):
        for _ in range(number):
            log.append(command(), dataset.create(uuid4(), name="cells", description=None, by=actor().id, at=NOW))

    return append


@pytest.fixture
async def connected(app_url):
    """Connections of relays."""
    opened = []

    async def connect():
        opened.append(await psycopg.AsyncConnection.connect(app_url, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


async def leading(connected, topic):
    relay = RelaySession(PostgresCheckpointStore(await connected()), topic, LIMITS)
    await relay.take_over()
    return relay


async def stored_checkpoint(app_url):
    async with await psycopg.AsyncConnection.connect(app_url) as connection:
        return RelayCheckpoint(*await (await connection.execute("select position, cluster, next_offset from ops.relay")).fetchone())


def project(owner_url, position):
    with psycopg.connect(owner_url) as connection:
        connection.execute("update read.checkpoint set position = %s", (position,))


async def test_everything_is_published_in_order_with_its_bytes_as_stored(connected, log, happen, app_url):
    happen(30)
    topic = Topic()
    relay = await leading(connected, topic)
    assert await relay.publish() == 30
    assert await relay.publish() == 0
    assert topic.records == log.read(0, 100)
    assert await stored_checkpoint(app_url) == relay.checkpoint == RelayCheckpoint(30, "one", 30)


async def test_a_restarted_relay_goes_on_behind_what_was_acked(connected, happen):
    topic = Topic()
    happen(3)
    await (await leading(connected, topic)).publish()
    happen(2)
    await (await leading(connected, topic)).publish()
    assert topic.positions == [1, 2, 3, 4, 5]


async def test_one_that_ends_between_sending_and_remembering_repeats_and_skips_nothing(connected, happen, app_url):
    topic = Topic()
    happen(4)
    connection = await connected()
    relay = RelaySession(PostgresCheckpointStore(connection), topic, LIMITS)
    await relay.take_over()
    publish = topic.publish

    async def then_killed(events):
        outcomes = await publish(events)
        await connection.close()
        return outcomes

    topic.publish = then_killed
    with pytest.raises(psycopg.Error):
        await relay.publish()
    topic.publish = publish
    await (await leading(connected, topic)).publish()
    assert topic.positions == [1, 2, 3, 4, 1, 2, 3, 4]
    assert (await stored_checkpoint(app_url)).position == 4


async def test_what_was_taken_behind_one_that_was_not_counts_for_nothing(connected, happen, app_url):
    topic = Topic()
    happen(5)
    relay = await leading(connected, topic)
    topic.refuse = lambda position: KafkaConnectionError("away") if position == 3 else None
    with pytest.raises(KafkaConnectionError):
        await relay.publish()
    assert (await stored_checkpoint(app_url)).position == 2
    topic.refuse = lambda _: None
    await (await leading(connected, topic)).publish()
    assert topic.positions == [1, 2, 4, 5, 3, 4, 5]


async def test_an_event_that_kafka_refuses_for_good_stops_everything_behind_it(connected, happen, app_url):
    topic = Topic()
    happen(3)
    relay = await leading(connected, topic)
    topic.refuse = lambda position: MessageSizeTooLargeError() if position == 2 else None
    for _ in range(2):
        with pytest.raises(Unpublishable, match="position 2"):
            await relay.publish()
    assert (await stored_checkpoint(app_url)).position == 1


async def test_a_relay_that_was_outlived_cannot_move_the_checkpoint(connected, happen, app_url):
    topic = Topic()
    old = await leading(connected, topic)
    happen(2)
    new = await leading(connected, topic)
    with pytest.raises(Fenced):
        await old.publish()
    await new.publish()
    assert await stored_checkpoint(app_url) == new.checkpoint


@pytest.mark.parametrize("cluster", ["one", "two"])
async def test_where_kafka_lost_its_log_it_gets_again_what_the_projector_may_need(connected, happen, owner_url, cluster):
    topic = Topic()
    happen(LIMITS.republished_events + 30)
    relay = await leading(connected, topic)
    await relay.publish()
    project(owner_url, LIMITS.republished_events + 20)
    topic.lose(cluster)
    relay = await leading(connected, topic)
    await relay.publish()
    assert topic.positions == list(range(21, LIMITS.republished_events + 31))


async def test_a_topic_made_anew_under_a_running_relay_is_noticed(connected, happen, owner_url):
    topic = Topic()
    happen(3)
    relay = await leading(connected, topic)
    await relay.publish()
    topic.lose()
    happen()
    with pytest.raises(TopicReset):
        await relay.publish()
    project(owner_url, 2)
    await (await leading(connected, topic)).publish()
    assert topic.positions == [4, 1, 2, 3, 4]


async def test_many_events_go_in_batches(connected, happen, owner_url):
    with psycopg.connect(owner_url) as connection:
        connection.execute("select set_config('es.appending', 'with streams', true)")
        connection.execute(
            "insert into es.events select n, gen_random_uuid(), 1, 'DatasetDeleted', 1, '{}', '{}', gen_random_uuid(), now(), '' "
            "from generate_series(1, %s) n",
            (LIMITS.events_per_batch + 5,),
        )
    topic = Topic()
    relay = await leading(connected, topic)
    assert [await relay.publish() for _ in range(3)] == [LIMITS.events_per_batch, 5, 0]
    assert topic.positions == list(range(1, LIMITS.events_per_batch + 6))


async def test_a_hole_in_the_log_is_never_published_over(connected, happen, owner_url):
    happen(5)
    with psycopg.connect(owner_url) as connection:
        connection.execute("alter table es.events disable trigger append_only")
        connection.execute("delete from es.events where notification_id = 3")
    topic = Topic()
    relay = await leading(connected, topic)
    with pytest.raises(LookupError, match="from 0 to 5"):
        await relay.publish()
    assert topic.records == []


async def test_no_committed_event_is_skipped_while_writers_delay_and_roll_back(connected, log, app_url):
    """Eight writers; some hold their transaction open after appending, some roll it back."""
    topic = Topic()
    relay = await leading(connected, topic)
    writers = [threading.Thread(target=write_badly, args=(app_url, seed)) for seed in range(8)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        await relay.publish()
        await asyncio.sleep(0.001)
    while await relay.publish():
        pass
    assert topic.positions == list(range(1, log.head() + 1))
    assert topic.records == [event for after in range(0, log.head(), 500) for event in log.read(after, 500)]
    assert log.head() > 150


APPEND = """select es.append(array[gen_random_uuid()], array[null]::bytea[], array[null]::uuid[], array['{}'::bytea],
  array[1], array[gen_random_uuid()], array[1], array['DatasetDeleted'], array[1], array['{}'::bytea], array[gen_random_uuid()],
  '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')"""


def write_badly(url, seed):
    """25 appends, each in a transaction that may dawdle, or come to nothing."""
    chance = random.Random(seed)
    with psycopg.connect(url) as connection:
        for _ in range(25):
            connection.execute(APPEND)
            if chance.random() < 0.3:
                time.sleep(chance.random() * 0.02)
            connection.rollback() if chance.random() < 0.1 else connection.commit()


async def test_one_whose_checkpoint_was_moved_beyond_the_log_publishes_nothing(connected, happen, app_url, owner_url):
    happen(3)
    topic = Topic()
    await (await leading(connected, topic)).publish()
    with psycopg.connect(owner_url) as connection:
        connection.execute("update ops.relay set position = 500")
    happen(3)
    relay = await leading(connected, topic)
    with pytest.raises(CheckpointBeyondLog, match="no event at position 500"):
        await relay.publish()
    assert topic.positions == [1, 2, 3]
    assert (await stored_checkpoint(app_url)).position == 500
