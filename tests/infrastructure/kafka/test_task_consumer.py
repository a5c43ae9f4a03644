"""The task consumer: no task is lost or begun twice, and offsets are committed in order."""

import asyncio
from typing import NamedTuple
from uuid import uuid4

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from application.jobs.tasks import Kind, Task, encode
from application.jobs.topics import BULK, DEAD_LETTERS, URGENT
from domain.errors import Unavailable, UpgradeNeeded
from domain.values import chunk_id
from infrastructure.kafka.batches import OffsetRange, RecordBatch
from infrastructure.kafka.task_consumer import OffsetTracker, TaskConsumer, TaskConsumerLimits
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio
HERE, THERE = TP(BULK, 0), TP(URGENT, 3)
QUICK = TaskConsumerLimits(retry_delay_seconds=0.01, upgrade_retry_delay_seconds=0.01)


class Record(NamedTuple):
    offset: int
    value: bytes | None
    key: bytes = b"key"


class TaskConsumerRig:
    """Lanes whose tasks end when they are told to; what was committed and sent."""

    def __init__(self, limits=QUICK):
        self.begun, self.ends, self.committed, self.sent, self.away = [], {}, {}, [], 0
        self.lanes = TaskConsumer(self.handle, send=self.send, concurrency={BULK: 2, URGENT: 1}, limits=limits)

    async def handle(self, _topic, task):
        self.begun.append(task.attempt)
        ended = self.ends.setdefault(task.attempt, asyncio.get_running_loop().create_future())
        await ended

    async def send(self, topic, key, value):
        if self.away:
            self.away -= 1
            raise KafkaConnectionError("away")
        self.sent.append((topic, key, value))

    async def commit(self, offsets):
        self.committed |= offsets

    async def joined(self, **spans):
        return await self.lanes.starting_offsets("one", {HERE: OffsetRange(0, 100, None), THERE: OffsetRange(0, 100, None)} | spans)

    async def come(self, tp, *offsets, value=None):
        """Tasks whose attempt is their offset, so that they can be told apart."""
        await self.lanes.process(RecordBatch("one", tp, [Record(offset, value or task(offset)) for offset in offsets]))
        await asyncio.sleep(0.01)

    async def end(self, *offsets, error=None):
        for offset in offsets:
            ended = self.ends[offset]
            ended.set_result(None) if error is None else ended.set_exception(error)
        await asyncio.sleep(0.01)
        await self.lanes._commit(self.commit)


def task(number):
    return encode(Task(kind=Kind.CLASSIFY, attempt=number, job=uuid4(), number=0))


async def test_the_number_of_concurrent_tasks_is_limited():
    rig = TaskConsumerRig()
    await rig.joined()
    await rig.come(HERE, 0, 1, 2, 3)
    assert rig.begun == [0, 1]
    await rig.end(1)
    assert rig.begun == [0, 1, 2]


async def test_a_lane_does_not_wait_for_the_other():
    rig = TaskConsumerRig()
    await rig.joined()
    await rig.come(HERE, 0, 1, 2, 3)
    await rig.come(THERE, 10)
    assert 10 in rig.begun
    await rig.end(10)
    assert rig.committed == {THERE: 11}


async def test_offsets_are_committed_up_to_the_first_task_in_progress():
    rig = TaskConsumerRig()
    await rig.joined()
    await rig.come(HERE, 0, 1, 2)
    await rig.end(1)
    assert rig.committed == {}
    await rig.end(2)
    await rig.end(0)
    assert rig.committed == {HERE: 3}


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("broken")])
async def test_a_task_that_cannot_be_answered_is_let_go_for_the_scheduler_to_give_out_again(error):
    rig = TaskConsumerRig()
    await rig.joined()
    await rig.come(HERE, 0)
    await rig.end(0, error=error)
    assert rig.committed == {HERE: 1}
    assert rig.sent == []


async def test_a_task_is_tried_again_while_what_it_needs_is_away():
    rig, tried = TaskConsumerRig(), []

    async def away_at_first(topic, task):
        tried.append(task.attempt)
        if len(tried) < 3:
            raise Unavailable("away")

    rig.lanes = TaskConsumer(away_at_first, send=rig.send, concurrency={BULK: 1}, retry_seconds=5.0, limits=QUICK)
    await rig.lanes.starting_offsets("one", {HERE: OffsetRange(0, 9, None)})
    await rig.come(HERE, 7)
    await wait_until_async(lambda: len(tried) == 3)
    await asyncio.sleep(0.01)
    await rig.lanes._commit(rig.commit)
    assert tried == [7, 7, 7]
    assert rig.committed == {HERE: 8}


async def test_while_all_tasks_lack_something_none_is_let_go():
    rig, tried, asked = TaskConsumerRig(), [], []

    async def away(topic, task):
        tried.append(task.attempt)
        raise Unavailable("away")

    async def away_for_a_while():
        asked.append(len(tried))
        return len(asked) < 4

    rig.lanes = TaskConsumer(away, send=rig.send, concurrency={BULK: 1}, retry_seconds=0.02, is_unavailable=away_for_a_while, limits=QUICK)
    await rig.lanes.starting_offsets("one", {HERE: OffsetRange(0, 9, None)})
    await rig.come(HERE, 7)
    assert len(rig.lanes.leased_work()) == 1
    await wait_until_async(lambda: not rig.lanes.leased_work())
    assert len(asked) == 4
    assert len(tried) > len(asked), "it is tried more than once before the store is asked about"


async def test_a_task_that_waits_for_an_upgrade_is_kept_in_hand_and_holds_up_no_other():
    rig, tried = TaskConsumerRig(), []

    async def some_wait(topic, task):
        tried.append(task.attempt)
        if task.attempt < 5:
            raise UpgradeNeeded("position 17", "ImageTagged", 1)

    rig.lanes = TaskConsumer(some_wait, send=rig.send, concurrency={BULK: 1}, retry_seconds=0.0, limits=QUICK)
    await rig.lanes.starting_offsets("one", {HERE: OffsetRange(0, 9, None)})
    await rig.come(HERE, *range(7))
    await wait_until_async(lambda: {5, 6} <= set(tried) and len(tried) > 20)
    assert len(rig.lanes.leased_work()) == 5
    await rig.lanes._commit(rig.commit)
    assert rig.committed == {}
    for task in rig.lanes._in_progress:
        task.cancel()


async def test_what_is_waited_for_or_done_is_held_until_it_is_done():
    rig = TaskConsumerRig()
    await rig.joined()
    job, pictures = uuid4(), (uuid4(), uuid4())
    classify = Task(kind=Kind.CLASSIFY, attempt=0, job=job, number=3)
    await rig.come(HERE, 0, value=encode(classify))
    await rig.come(HERE, 1, 2)
    await rig.come(HERE, 3, value=encode(Task(kind=Kind.INSPECT, image_ids=pictures, attempt=3)))
    held = rig.lanes.leased_work()
    assert held[0] == chunk_id(job, 3)
    assert held[-2:] == list(pictures)
    assert len(held) == 5
    await rig.end(0, error=RuntimeError("broken"))
    assert rig.lanes.leased_work() == held[1:]


async def test_the_end_does_not_wait_for_a_kafka_that_is_away():
    rig = TaskConsumerRig(TaskConsumerLimits(last_commit_timeout_seconds=0.05))
    await rig.joined()
    await rig.come(HERE, 0)
    rig.ends[0].set_result(None)

    tried = []

    async def for_ever(offsets):
        tried.append(offsets)
        await asyncio.Event().wait()

    await asyncio.wait_for(rig.lanes.finish(for_ever), 10)
    assert tried == [{HERE: 1}]


async def test_a_dead_letter_of_a_large_record_fits_its_topic():
    rig = TaskConsumerRig()
    await rig.joined()
    await rig.come(HERE, 0, value=b"x" * 10_000_000)
    await wait_until_async(lambda: rig.sent)
    assert len(rig.sent[0][2]) < 1_000_000


@pytest.mark.parametrize("value", [b"\x80pickle", b"{}", b'{"kind":"dance","images":[]}', b"null"])
async def test_what_is_no_task_becomes_a_dead_letter_and_the_rest_goes_on(value):
    rig = TaskConsumerRig()
    rig.away = 2
    await rig.joined()
    await rig.come(HERE, 0, value=value)
    await wait_until_async(lambda: rig.sent)
    topic, key, told = rig.sent[0]
    said = msgspec.json.decode(told)
    assert (topic, key, said["topic"], said["partition"], said["offset"]) == (DEAD_LETTERS, b"key", BULK, 0, 0)
    await rig.come(HERE, 1)
    await rig.end(1)
    assert rig.committed == {HERE: 2}


async def test_who_joins_reads_on_where_the_group_was():
    rig = TaskConsumerRig()
    spans = {
        HERE: OffsetRange(2, 9, 5),
        THERE: OffsetRange(2, 9, None),
        TP(BULK, 1): OffsetRange(7, 9, 3),
        TP(BULK, 2): OffsetRange(0, 4, 8),
    }
    assert await rig.lanes.starting_offsets("one", spans) == {HERE: 5, THERE: 2, TP(BULK, 1): 7, TP(BULK, 2): 4}


async def test_tasks_that_come_again_after_a_rebalance_are_not_begun_again():
    rig = TaskConsumerRig()
    await rig.joined()
    await rig.come(HERE, 0, 1)
    await rig.joined()
    await rig.come(HERE, 0, 1)
    await rig.end(0, 1)
    assert rig.begun == [0, 1]
    assert rig.committed == {HERE: 2}


async def test_a_topic_made_anew_is_read_from_its_beginning():
    rig = TaskConsumerRig()
    await rig.joined()
    await rig.come(HERE, 0, 1)
    await rig.lanes.starting_offsets("two", {HERE: OffsetRange(0, 1, None)})
    await rig.end(0, 1)
    rig.ends.clear()
    await rig.come(HERE, 0)
    assert rig.begun == [0, 1, 0]


async def test_at_the_end_what_is_nearly_done_is_waited_for():
    rig = TaskConsumerRig(TaskConsumerLimits(finish_timeout_seconds=0.2))
    await rig.joined()
    await rig.come(HERE, 0, 1)
    asyncio.get_running_loop().call_later(0.05, rig.ends[0].set_result, None)
    await rig.lanes.finish(rig.commit)
    assert rig.committed == {HERE: 1}
    rig.ends[1].set_result(None)
    await asyncio.sleep(0.01)


@given(st.lists(st.integers(0, 12), max_size=60), st.randoms())
def test_the_place_moves_past_what_is_done_and_nothing_else(offsets, chance):
    done, begun, ended = OffsetTracker(0), [], set()
    for offset in offsets:
        assert done.begin(offset) == (offset > max(begun, default=-1))
        if offset > max(begun, default=-1):
            begun.append(offset)
        if begun and chance.random() < 0.5:
            one = chance.choice(begun)
            done.end(one)
            ended.add(one)
        open_ones = [one for one in begun if one not in ended]
        assert done.next_offset <= min(open_ones, default=max(begun, default=-1) + 1)
        if not open_ones and begun:
            assert done.next_offset == begun[-1] + 1
