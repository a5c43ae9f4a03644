"""The projector's background tasks: jobs to Kafka, notifications to Redis, also when one of them is away."""

import asyncio
import json
import threading
from uuid import uuid4

import psycopg
import pytest
import redis.asyncio

from application import policies
from application.jobs.job_scheduler import Scheduler
from application.jobs.tasks import Kind, decode
from application.jobs.topics import BULK, DEAD_LETTERS
from application.services import CHANNEL
from domain.errors import Unavailable
from domain.policy import PolicyRules, PolicyScope
from infrastructure.postgres.advisory_locks import AdvisoryLock, try_lock
from infrastructure.postgres.profiles import READ_MODELS
from infrastructure.postgres.system.work_queue import PostgresWorkQueue
from projections.engine import postgres_store
from projections.engine.batches import BatchResult, PoisonEvent
from projections.process.background import BackgroundLimits, BackgroundTasks
from projections.process.live_notifier import LiveNotifier, notification
from projections.process.policies import apply_policies
from tests.rigs.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.anyio
DEADLINE_SECONDS = 5.0
PROJECTOR = READ_MODELS.arguments["application_name"]


class Topics:
    """Kafka, as far as a sender sees it: in memory, and sometimes away."""

    def __init__(self):
        self.sent, self.away, self.came = [], 0, threading.Event()

    async def send(self, topic, key, value):
        if self.away:
            self.away -= 1
            raise ConnectionError
        self.sent.append((topic, key, value))
        self.came.set()


async def published(_channel, _message):
    return 0


@pytest.fixture
def topics():
    return Topics()


class ObservedScheduler(Scheduler):
    """Counts the ticks that ended."""

    ticks = 0

    def tick(self):
        outgoing = super().tick()
        self.ticks += 1
        return outgoing


@pytest.fixture
def scheduler(app_url, log):
    return ObservedScheduler(lambda: PostgresWorkQueue(postgres_store.connect(app_url)), log, lease=60, attempts=2)


async def test_a_task_that_could_not_be_sent_is_sent_when_kafka_is_back(scenario, scheduler, topics):
    image = scenario.image(ada := scenario.user(), scenario.dataset(ada))
    scenario.follow()
    topics.away = 2
    background = BackgroundTasks(scheduler, LiveNotifier(published), topics.send)
    background.start()
    assert await asyncio.to_thread(topics.came.wait, DEADLINE_SECONDS)
    (topic, key, value) = topics.sent[0]
    task = decode(value)
    assert (topic, key, task.kind, list(task.image_ids)) == (BULK, image.bytes, Kind.INSPECT, [image])
    await asyncio.to_thread(background.stop)
    assert len(topics.sent) == 1


async def test_a_committed_batch_wakes_the_scheduler_at_once(scenario, scheduler, topics):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    scenario.follow()
    background = BackgroundTasks(scheduler, LiveNotifier(published), topics.send, limits=BackgroundLimits(poll_interval_seconds=60.0))
    background.start()
    await wait_until_async(lambda: scheduler.ticks)
    scenario.image(ada, cells)
    scenario.follow()
    background.on_applied(BatchResult(3, tables=frozenset({"images"})))
    assert await asyncio.to_thread(topics.came.wait, DEADLINE_SECONDS)
    await asyncio.to_thread(background.stop)


async def test_a_dead_letter_is_sent_to_its_topic(scheduler, topics):
    dead = PoisonEvent(7, uuid4(), "ImageUploaded", "Undecodable: torn")
    background = BackgroundTasks(scheduler, LiveNotifier(published), topics.send)
    background.start()
    background.on_applied(BatchResult(7, dead_letters=(dead,)))
    assert await asyncio.to_thread(topics.came.wait, DEADLINE_SECONDS)
    topic, key, value = topics.sent[0]
    assert (topic, key, json.loads(value)["reason"]) == (DEAD_LETTERS, dead.stream.bytes, dead.reason)
    await asyncio.to_thread(background.stop)


async def test_a_scheduler_that_lost_its_database_goes_on_when_it_is_back(scenario, scheduler, topics, owner_url):
    background = BackgroundTasks(scheduler, LiveNotifier(published), topics.send, limits=BackgroundLimits(retry_delay_seconds=0.05))
    background.start()
    await wait_until_async(lambda: scheduler.ticks)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        ended = owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", (PROJECTOR,)).fetchall()
        assert ended
    scenario.image(ada := scenario.user(), scenario.dataset(ada))
    scenario.follow()
    assert await asyncio.to_thread(topics.came.wait, DEADLINE_SECONDS)
    await asyncio.to_thread(background.stop)


async def test_notifications_reach_subscribers_through_redis(redis_url):
    client = redis.asyncio.Redis.from_url(redis_url)
    listener = client.pubsub()
    await listener.subscribe(CHANNEL)
    await listener.get_message(timeout=10)
    dataset, user = uuid4(), uuid4()
    await LiveNotifier(client.publish).notify(BatchResult(9, frozenset({dataset}), frozenset({user})))
    message = await listener.get_message(ignore_subscribe_messages=True, timeout=10)
    assert json.loads(message["data"]) == {"position": 9, "datasets": [str(dataset)], "users": [str(user)]}
    await listener.aclose()
    await client.aclose()


async def test_without_redis_nothing_breaks_and_it_is_left_alone_for_a_while():
    tries = []

    async def away(channel, told):
        tries.append((channel, told))
        raise ConnectionError

    notifier = LiveNotifier(away)
    for position in range(3):
        await notifier.notify(BatchResult(position))
    assert tries == [(CHANNEL, notification(BatchResult(0)))]


def test_the_results_of_several_batches_are_merged_into_one_notification():
    first, second = uuid4(), uuid4()
    both = BatchResult(1, frozenset({first}), tables=frozenset({"work"})).merge(BatchResult(2, frozenset({second})))
    assert (both.position, both.datasets, both.wakes_scheduler) == (2, {first, second}, True)


async def test_every_chore_is_done_again_and_again_whatever_went_wrong_before(scheduler, topics):
    done, enough = [], threading.Event()

    def fails():
        done.append("fails")
        raise (Unavailable("away"), RuntimeError("unforeseen"), psycopg.OperationalError("away"))[done.count("fails") % 3]

    def works():
        done.append("works")
        if done.count("works") > 3:
            enough.set()

    background = BackgroundTasks(
        scheduler, LiveNotifier(published), topics.send, chores=(fails, works), limits=BackgroundLimits(housekeeping_interval_seconds=0.01)
    )
    background.start()
    assert await asyncio.to_thread(enough.wait, DEADLINE_SECONDS)
    await asyncio.to_thread(background.stop)


async def test_a_changed_policy_is_applied_at_once(scheduler, topics):
    applied = []
    background = BackgroundTasks(scheduler, LiveNotifier(published), topics.send, apply_policies=lambda _: applied.append(1))
    background.start()
    await wait_until_async(lambda: len(applied) == 1)
    background.on_applied(BatchResult(3, tables=frozenset({"results"})))
    background.on_applied(BatchResult(4, tables=frozenset({"policies"})))
    await wait_until_async(lambda: len(applied) == 2)
    await asyncio.to_thread(background.stop)
    assert len(applied) == 2


async def test_the_application_of_a_policy_ends_with_the_process(scheduler, topics):
    began, ended = threading.Event(), threading.Event()

    def apply(stopped):
        began.set()
        wait_until(stopped)
        ended.set()

    background = BackgroundTasks(scheduler, LiveNotifier(published), topics.send, apply_policies=apply)
    background.start()
    assert await asyncio.to_thread(began.wait, DEADLINE_SECONDS)
    await asyncio.to_thread(background.stop)
    assert ended.is_set()


async def test_policies_are_applied_by_one_process_and_by_another_once_that_one_died(scenario, log, app_url, connection):
    scenario.model()
    ada = scenario.user()
    cells = scenario.dataset(ada)
    image = scenario.image(ada, cells)
    scenario.judge(scenario.job(ada, image=image), 0, [image], confidence=0.75)
    rules = PolicyRules(review_below=0.9)
    policies.set_policy(
        PolicyScope.DATASET, cells, rules=rules, reason="A trial", known_models=["shapes"], command=scenario.command(ada), log=log
    )
    scenario.follow()
    with postgres_store.connect(app_url) as elsewhere:
        assert try_lock(elsewhere, AdvisoryLock.POLICIES)
        await asyncio.to_thread(apply_policies, app_url, lambda: False)
        assert connection.execute("select verdict from results").fetchall() == [("clear",)]
    await asyncio.to_thread(apply_policies, app_url, lambda: False)
    assert connection.execute("select verdict from results").fetchall() == [("needs_review",)]
