"""The reader of answers: false ones become dead letters with a reason, and nothing stops it."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from domain.errors import Unavailable
from infrastructure.kafka.batches import OffsetRange
from infrastructure.observability.metrics import EXTERNAL_ANSWERS
from tests.rigs.bridges import HERE, BridgeRig
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio


@pytest.fixture
def rig():
    return BridgeRig()


class Counts:
    """How often each outcome was counted since this was made."""

    def __init__(self):
        self._before = self._now()

    def since(self):
        return {outcome: number for outcome, value in self._now().items() if (number := value - self._before[outcome])}

    def _now(self):
        return {outcome: EXTERNAL_ANSWERS.labels(outcome)._value.get() for outcome in ("taken", "duplicate", "ended", "refused")}


def good(task, image, **changed):
    about = {"classification_id": str(task.job), "image_id": str(image), "model_name": "cells", "label": "round", "confidence": 0.5}
    return json.dumps(about | changed).encode()


async def test_false_answers_become_dead_letters_with_a_reason_and_good_ones_beside_them_are_taken(rig):
    task, images = rig.job(2)
    inner, (inside,) = rig.job(1, external=False)
    counts = Counts()
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images[:1])
        false = {
            b"garbage": "no answer",
            good(task, images[0], confidence=1.5): "confidence",
            good(task, images[0], label="oval"): "label",
            good(task, images[0], model_name="bones"): "model_name",
            good(task, uuid4()): "not sent for this job",
            good(inner, inside): "no job of an external model",
            json.dumps(json.loads(good(task, images[0])) | {"classification_id": str(uuid4())}).encode(): "no job of an external model",
            json.dumps(json.loads(good(task, images[0])) | {"classification_id": str(images[0])}).encode(): "no job of an external model",
        }
        await rig.read(good(task, images[0]), *false, good(task, images[1]))
        event = await rig.until_recorded(task)
    assert [one.image_id for one in event.results] == images
    assert len(rig.dead_letters) == len(false)
    for reason in false.values():
        assert any(reason in letter["reason"] for letter in rig.dead_letters), reason
    assert {letter["topic"] for letter in rig.dead_letters} == {"classification-result"}
    assert counts.since() == {"taken": 2, "refused": len(false)}


async def test_answers_to_jobs_that_do_not_exist_cost_one_query_together_and_a_job_that_is_requested_later_is_found(rig, monkeypatch):
    task, images = rig.job(1)
    read, looked_up = rig.log.event, []
    monkeypatch.setattr(rig.log, "event", lambda stream, version: looked_up.append(stream) or read(stream, version))
    forged = [good(task, images[0], classification_id=str(uuid4())) for _ in range(50)]
    later = classification_id_of(forged[0])
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images)
        await rig.read(*forged, good(task, images[0]))
        await rig.until_recorded(task)
        assert not set(map(classification_id_of, forged)) & set(looked_up)
        assert len(rig.dead_letters) == len(forged)
        requested, others = rig.job(1, stream=later)
        async with rig.handling(bridge, requested):
            await rig.until_asked(requested, others)
            await rig.answer(requested, *others)
            assert len((await rig.until_recorded(requested)).results) == 1


def classification_id_of(answer):
    return UUID(json.loads(answer)["classification_id"])


async def test_duplicates_and_answers_of_jobs_that_ended_are_counted_and_dropped(rig):
    task, images = rig.job(1)
    ended, others = rig.job(1)
    counts = Counts()
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images)
        rig.cancel(ended.job)
        await rig.answer(task, images[0], images[0])
        await rig.answer(ended, *others)
        await rig.until_recorded(task)
        await rig.answer(task, *images)
    assert counts.since() == {"taken": 1, "duplicate": 2, "ended": 1}
    assert rig.dead_letters == []


async def test_dead_letters_wait_while_kafka_is_away(rig):
    async with rig.bridge():
        rig.is_away = True
        reading = asyncio.create_task(rig.read(b"garbage"))
        await asyncio.sleep(0.05)
        assert not reading.done()
        rig.is_away = False
        await reading
    assert len(rig.dead_letters) == 1


async def test_answers_wait_while_the_database_is_away_and_the_watchdog_accepts_that(rig, monkeypatch):
    task, images = rig.job(1)
    take, is_away = rig.answers.take, True

    def away(*given, **named):
        if is_away:
            raise Unavailable("away")
        return take(*given, **named)

    monkeypatch.setattr(rig.answers, "take", away)
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images)
        reading = asyncio.create_task(rig.answer(task, *images))
        reader = rig.readers[0]
        await wait_until_async(lambda: reader.is_waiting)
        is_away = False
        await reading
        assert not reader.is_waiting
        assert len((await rig.until_recorded(task)).results) == 1


async def test_offsets_are_committed_after_the_answers_are_stored_and_once(rig):
    committed = []

    async def commit(offsets):
        committed.append(dict(offsets))

    async with rig.bridge():
        reader = rig.readers[0]
        assert await reader.starting_offsets("one", {HERE: OffsetRange(0, 9, None)}) == {HERE: 0}
        await reader.commit(commit)
        await rig.read(b"garbage", b"more")
        await reader.commit(commit)
        await reader.commit(commit)
    assert committed == [{HERE: 2}]


async def test_a_commit_that_kafka_refuses_is_repeated(rig):
    committed = []

    async def refuse(_offsets):
        raise TimeoutError

    async def commit(offsets):
        committed.append(dict(offsets))

    async with rig.bridge():
        await rig.readers[0].starting_offsets("one", {HERE: OffsetRange(0, 9, None)})
        await rig.read(b"garbage")
        await rig.readers[0].commit(refuse)
        await rig.readers[0].commit(commit)
    assert committed == [{HERE: 1}]


@pytest.mark.parametrize(("committed", "start"), [(None, 3), (5, 5), (1, 3), (99, 9)])
async def test_reading_begins_at_the_committed_offset_and_at_the_beginning_in_a_new_group(rig, committed, start):
    async with rig.bridge():
        assert await rig.readers[0].starting_offsets("one", {HERE: OffsetRange(3, 9, committed)}) == {HERE: start}
