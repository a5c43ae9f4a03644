"""From Kafka while it delivers, from the store while it does not: two sources, one order."""

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


class Bench:
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

    def start(bench):
        tasks.append(asyncio.create_task(bench.follower.follow_store()))

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_without_kafka_the_store_is_followed_at_once(clock, follows):
    bench = Bench(1200, owner=None, clock=clock)
    follows(bench)
    await bench.applied(1200)
    bench.store.newest = 1201
    await bench.applied(1201)
    assert bench.feed.sources == {"store": 1201}


async def test_the_owner_waits_a_little_for_kafka_and_a_standby_longer(clock, follows):
    for owner, patience in ((True, 0.1), (False, 0.4)):
        bench = Bench(3, owner=owner, clock=clock)
        follows(bench)
        await bench.looked()
        clock.now += patience + 0.01
        await bench.applied(3)
        bench.feed.process([linked(4)], cluster="one", next_offset=1)
        bench.store.newest = 6
        await bench.looked()
        clock.now += patience - 0.01
        await bench.looked()
        assert bench.models.at.position == 4
        clock.now += 0.02
        await bench.applied(6)


async def test_while_kafka_delivers_nothing_is_read_from_the_store(clock, follows):
    bench = Bench(0, clock=clock)
    follows(bench)
    for position in range(1, 30):
        bench.store.newest = position
        clock.now += 0.05
        await bench.looked()
        await bench.deliver(position)
        await bench.looked()
    assert bench.feed.sources == {"kafka": 29}


async def test_kafka_takes_over_again_from_the_store(clock, follows):
    bench = Bench(10, owner=None, clock=clock)
    follows(bench)
    await bench.applied(10)
    bench.owner = True
    bench.store.newest = 12
    await bench.deliver(9, 10, 11, 12)
    await bench.looked()
    for position in range(13, 30):
        bench.store.newest = position
        clock.now += 0.05
        await bench.looked()
        await bench.deliver(position)
        await bench.looked()
    assert bench.feed.sources["kafka"] >= 17


async def test_a_rejected_record_is_counted_and_replaced_by_what_the_store_holds():
    bench = Bench(3)
    await bench.deliver(1, "foreign", 2, "forged", "forged")
    assert bench.models.applied == [1, 2, 3]
    await bench.follower.finish()
    assert bench.counted == {
        ("projected_events", "kafka"): 2,
        ("projected_events", "store"): 1,
        ("rejected_records", "foreign"): 1,
        ("rejected_records", "forged"): 2,
    }


async def test_nothing_is_projected_while_the_read_models_do_not_fit_the_log():
    bench = Bench(2)
    unfit = iter([CheckpointUnfit(7), CheckpointUnfit(7)])
    apply = bench.models.apply

    def apply_once_it_fits(batch, to):
        for error in unfit:
            assert bench.models.applied == []
            raise error
        return apply(batch, to)

    bench.models.apply = apply_once_it_fits
    await bench.deliver(1, 2)
    assert bench.models.applied == [1, 2]


async def test_read_models_of_another_log_wait_for_no_upgrade():
    bench = Bench(2)
    errors = iter([CheckpointUnfit(7), FoldsDiffer("by other versions", is_newer=True)])
    apply = bench.models.apply

    def apply_in_the_end(batch, to):
        for error in errors:
            raise error
        return apply(batch, to)

    bench.models.apply = apply_in_the_end
    await bench.deliver(1, 2)
    assert bench.models.applied == [1, 2]
    assert bench.pauses == ["by other versions: upgrade this process"]


async def test_a_database_that_is_away_is_waited_for():
    bench = Bench(1)
    away = iter([Unavailable("away"), Unavailable("away")])
    apply = bench.models.apply

    def sometimes(batch, to):
        for error in away:
            raise error
        return apply(batch, to)

    bench.models.apply = sometimes
    await bench.deliver(1)
    assert bench.models.applied == [1]


async def test_it_reads_on_where_the_checkpoint_says_if_that_is_this_log():
    bench = Bench()
    bench.models.at = Checkpoint(5, "one", 7)
    assert await bench.follower.starting_offsets("one", {"tp": Span(0, 9)}) == {"tp": 7}
    assert await bench.follower.starting_offsets("two", {"tp": Span(2, 9)}) == {"tp": 2}
    assert await bench.follower.starting_offsets("one", {"tp": Span(0, 6)}) == {"tp": 0}
    assert await bench.follower.starting_offsets("one", {"tp": Span(8, 9)}) == {"tp": 8}


async def test_what_was_applied_is_counted_by_its_source_for_others_to_see(follows):
    bench = Bench(3, owner=None, limits=QUICK._replace(metrics_interval_seconds=0.0))
    follows(bench)
    await bench.applied(3)
    bench.owner = True
    await bench.deliver(4)
    await bench.looked()
    assert bench.counted == {("projected_events", "store"): 3, ("projected_events", "kafka"): 1}


class LongInterval(PollInterval):
    """Once nothing happens it looks in an hour."""

    def take(self):
        return 3600.0


async def test_a_wake_up_ends_a_long_rest(follows):
    bench = Bench(0, owner=None, poll_interval=LongInterval(0.01))
    follows(bench)
    async with asyncio.timeout(5):
        while not bench.store.looks:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)
    bench.store.newest = 2
    bench.follower.wake()
    await bench.applied(2)


async def test_a_wake_up_that_comes_while_the_head_is_read_is_not_lost(follows):
    bench = Bench(0, owner=None, poll_interval=LongInterval(0.01))
    loop, head = asyncio.get_running_loop(), bench.store.head

    def appended_meanwhile():
        before = head()
        if bench.store.looks == 1:
            bench.store.newest = 2
            loop.call_soon_threadsafe(bench.follower.wake)
        return before

    bench.store.head = appended_meanwhile
    follows(bench)
    await bench.applied(2)


async def test_at_the_end_the_batch_under_way_is_ended_and_no_other_begun():
    bench = Bench(4)
    await bench.deliver(1, 2)
    await bench.follower.finish()
    late = asyncio.create_task(bench.deliver(3))
    await asyncio.sleep(0.05)
    assert not late.done()
    assert bench.models.applied == [1, 2]
    assert bench.counted == {("projected_events", "kafka"): 2}
    late.cancel()
