"""The subscription: events come from Kafka while it delivers, otherwise from the store, in one order."""

import asyncio
from typing import NamedTuple

import pytest

from application.poll_interval import PollInterval
from application.ports import AppendRejected
from domain.errors import Unavailable
from projections.engine.checkpoints import Checkpoint, CheckpointUnfit, FoldsDiffer
from projections.engine.sequencer import Sequencer
from projections.engine.subscription import CatchUpSubscription, SubscriptionLimits
from tests.projections.test_sequencer import Models, Store, linked
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio


class Frame(NamedTuple):
    cluster: str
    records: list
    next_offset: int


class Span(NamedTuple):
    begin: int
    end: int


class Looked(Store):
    looks = 0

    def head(self):
        self.looks += 1
        return super().head()


class Clock:
    """Stands still unless it is put forward."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


QUICK = SubscriptionLimits(
    poll_interval_seconds=0.01,
    max_poll_interval_seconds=0.01,
    owner_timeout_seconds=0.1,
    standby_timeout_seconds=0.4,
    retry_delay_seconds=0.02,
    paused_poll_interval_seconds=0.01,
)


class SubscriptionRig:
    """A follower with everything in memory; `owner` says whether the topic is its own."""

    def __init__(self, head=0, *, owner=True, limits=QUICK, **more):
        self.store, self.models, self.owner, self.counted, self.pauses = Looked(head), Models(), owner, {}, []
        self.feed = Sequencer(self.models, self.store)
        self.follower = CatchUpSubscription(
            self.feed,
            self.store,
            authenticated=self.authenticated,
            owns=lambda: self.owner,
            count=self.count,
            on_pause=self.pauses.append,
            limits=limits,
            **more,
        )

    def authenticated(self, record):
        if record in {"foreign", "forged"}:
            raise AppendRejected(record, "it is not ours")
        return linked(record)

    def count(self, name, numbers):
        for label, number in numbers.items():
            self.counted[name, label] = self.counted.get((name, label), 0) + number

    async def deliver(self, *positions):
        await self.follower.process(Frame("one", list(positions), 100 + len(positions)))

    async def applied(self, last):
        async with asyncio.timeout(5):
            while self.models.at.position < last:
                await asyncio.sleep(0.005)

    async def looked(self):
        """Until it has looked at the head, and done what follows from that."""
        looks = self.store.looks
        async with asyncio.timeout(5):
            while self.store.looks < looks + 2:
                await asyncio.sleep(0.005)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def follows():
    """Starts following the store; ended with the test."""
    tasks = []

    def start(rig):
        tasks.append(asyncio.create_task(rig.follower.follow_store()))

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_without_kafka_the_store_is_followed_at_once(clock, follows):
    rig = SubscriptionRig(1200, owner=None, clock=clock)
    follows(rig)
    await rig.applied(1200)
    rig.store.newest = 1201
    await rig.applied(1201)
    assert rig.feed.sources == {"store": 1201}


async def test_the_owner_waits_a_little_for_kafka_and_a_standby_longer(clock, follows):
    for owner, patience in ((True, 0.1), (False, 0.4)):
        rig = SubscriptionRig(3, owner=owner, clock=clock)
        follows(rig)
        await rig.looked()
        clock.now += patience + 0.01
        await rig.applied(3)
        rig.feed.process([linked(4)], cluster="one", next_offset=1)
        rig.store.newest = 6
        await rig.looked()
        clock.now += patience - 0.01
        await rig.looked()
        assert rig.models.at.position == 4
        clock.now += 0.02
        await rig.applied(6)


async def test_while_kafka_delivers_nothing_is_read_from_the_store(clock, follows):
    rig = SubscriptionRig(0, clock=clock)
    follows(rig)
    for position in range(1, 30):
        rig.store.newest = position
        clock.now += 0.05
        await rig.looked()
        await rig.deliver(position)
        await rig.looked()
    assert rig.feed.sources == {"kafka": 29}


async def test_kafka_takes_over_again_from_the_store(clock, follows):
    rig = SubscriptionRig(10, owner=None, clock=clock)
    follows(rig)
    await rig.applied(10)
    rig.owner = True
    rig.store.newest = 12
    await rig.deliver(9, 10, 11, 12)
    await rig.looked()
    for position in range(13, 30):
        rig.store.newest = position
        clock.now += 0.05
        await rig.looked()
        await rig.deliver(position)
        await rig.looked()
    assert rig.feed.sources["kafka"] >= 17


async def test_kafka_leads_again_once_it_has_delivered_what_was_read_from_the_store(clock, follows):
    """Each event reaches the store first, and is read there at once, until Kafka is level."""
    rig = SubscriptionRig(10, owner=None, clock=clock)
    follows(rig)
    await rig.applied(10)
    rig.owner = True
    await rig.deliver(7, 8, 9)
    rig.store.newest = 11
    await rig.applied(11)
    await rig.deliver(10, 11)
    rig.store.newest = 12
    await rig.looked()
    assert rig.models.at.position == 11
    await rig.deliver(12)
    assert rig.feed.sources == {"store": 11, "kafka": 1}


async def test_records_that_are_repeated_delay_no_event_for_longer_than_the_timeout(clock, follows):
    rig = SubscriptionRig(10, clock=clock)
    follows(rig)
    await rig.looked()
    clock.now += 0.11
    await rig.applied(10)
    rig.store.newest = 11
    for _ in range(3):
        await rig.deliver(10)
        await rig.looked()
        clock.now += 0.04
    await rig.applied(11)
    assert rig.feed.sources == {"store": 11}


async def test_a_rejected_record_is_counted_and_replaced_by_what_the_store_holds():
    rig = SubscriptionRig(3)
    await rig.deliver(1, "foreign", 2, "forged", "forged")
    assert rig.models.applied == [1, 2, 3]
    await rig.follower.finish()
    assert rig.counted == {
        ("projected_events", "kafka"): 2,
        ("projected_events", "store"): 1,
        ("rejected_records", "foreign"): 1,
        ("rejected_records", "forged"): 2,
    }


async def test_nothing_is_projected_while_the_read_models_do_not_fit_the_log():
    rig = SubscriptionRig(2)
    unfit = iter([CheckpointUnfit(7), CheckpointUnfit(7)])
    apply = rig.models.apply

    def apply_once_it_fits(batch, to):
        for error in unfit:
            assert rig.models.applied == []
            raise error
        return apply(batch, to)

    rig.models.apply = apply_once_it_fits
    await rig.deliver(1, 2)
    assert rig.models.applied == [1, 2]


async def test_read_models_of_another_log_wait_for_no_upgrade():
    rig = SubscriptionRig(2)
    errors = iter([CheckpointUnfit(7), FoldsDiffer("by other versions", is_newer=True)])
    apply = rig.models.apply

    def apply_in_the_end(batch, to):
        for error in errors:
            raise error
        return apply(batch, to)

    rig.models.apply = apply_in_the_end
    await rig.deliver(1, 2)
    assert rig.models.applied == [1, 2]
    assert rig.pauses == ["by other versions: upgrade this process"]


async def test_a_database_that_is_away_is_waited_for():
    rig = SubscriptionRig(1)
    away = iter([Unavailable("away"), Unavailable("away")])
    apply = rig.models.apply

    def sometimes(batch, to):
        for error in away:
            raise error
        return apply(batch, to)

    rig.models.apply = sometimes
    await rig.deliver(1)
    assert rig.models.applied == [1]


async def test_it_reads_on_where_the_checkpoint_says_if_that_is_this_log():
    rig = SubscriptionRig()
    rig.models.at = Checkpoint(5, "one", 7)
    assert await rig.follower.starting_offsets("one", {"tp": Span(0, 9)}) == {"tp": 7}
    assert await rig.follower.starting_offsets("two", {"tp": Span(2, 9)}) == {"tp": 2}
    assert await rig.follower.starting_offsets("one", {"tp": Span(0, 6)}) == {"tp": 0}
    assert await rig.follower.starting_offsets("one", {"tp": Span(8, 9)}) == {"tp": 8}


async def test_what_was_applied_is_counted_by_its_source_for_others_to_see(follows):
    rig = SubscriptionRig(3, owner=None, limits=QUICK._replace(metrics_interval_seconds=0.0))
    follows(rig)
    await rig.applied(3)
    rig.owner = True
    await rig.deliver(4)
    await rig.looked()
    assert rig.counted == {("projected_events", "store"): 3, ("projected_events", "kafka"): 1}


class LongInterval(PollInterval):
    """Once nothing happens it looks in an hour; counts how often it was asked."""

    taken = 0

    def take(self):
        self.taken += 1
        return 3600.0


async def test_a_wake_up_ends_a_long_rest(follows):
    interval = LongInterval(0.01)
    rig = SubscriptionRig(0, owner=None, poll_interval=interval)
    follows(rig)
    await wait_until_async(lambda: interval.taken)
    rig.store.newest = 2
    rig.follower.wake()
    await rig.applied(2)
    assert rig.models.applied == [1, 2]


async def test_a_wake_up_that_comes_while_the_head_is_read_is_not_lost(follows):
    rig = SubscriptionRig(0, owner=None, poll_interval=LongInterval(0.01))
    loop, head = asyncio.get_running_loop(), rig.store.head

    def appended_meanwhile():
        before = head()
        if rig.store.looks == 1:
            rig.store.newest = 2
            loop.call_soon_threadsafe(rig.follower.wake)
        return before

    rig.store.head = appended_meanwhile
    follows(rig)
    await rig.applied(2)
    assert rig.models.applied == [1, 2]


async def test_at_the_end_the_batch_under_way_is_ended_and_no_other_begun():
    rig = SubscriptionRig(4)
    await rig.deliver(1, 2)
    await rig.follower.finish()
    late = asyncio.create_task(rig.deliver(3))
    await asyncio.sleep(0.05)
    assert not late.done()
    assert rig.models.applied == [1, 2]
    assert rig.counted == {("projected_events", "kafka"): 2}
    late.cancel()
