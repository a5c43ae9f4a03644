"""A bridge: chunks are answered by a classifier that is silent on errors, and recorded once."""

import asyncio

import msgspec
import pytest

from application.jobs.external_answers import ImageKey
from application.jobs.topics import EXTERNAL
from domain.classification import Verdict
from domain.errors import Unavailable
from infrastructure.bridge.bridge import BridgeIntervals
from tests.rigs.bridges import DECLARATION, LABELS, LONG_LEASE, SHORT_LEASE, BridgeRig
from tests.rigs.waiting import wait_until_async
from tests.twins.external_answers import MemoryExternalAnswers

pytestmark = pytest.mark.anyio


@pytest.fixture
def rig():
    return BridgeRig()


def outcomes(event):
    return {one.image_id: one.reason for one in event.failures} | {one.image_id: one.label for one in event.results}


# ---- answers -----------------------------------------------------------------------------------------------------------------------
async def test_a_chunk_is_recorded_as_one_event_in_the_order_of_its_images(rig):
    task, images = rig.job(3, threshold=0.6)
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images[:1])
        await rig.answer(task, images[2], label="flat", confidence=0.9)
        await rig.answer(task, images[0], confidence=0.59)
        assert rig.recorded(task) is None
        await rig.answer(task, images[1], confidence=0.6, model_name=None)
        event = await rig.until_recorded(task)
    assert [(one.image_id, one.label, one.confidence, one.verdict) for one in event.results] == [
        (images[0], "round", 0.59, Verdict.NEEDS_REVIEW),
        (images[1], "round", 0.6, Verdict.CLEAR),
        (images[2], "flat", 0.9, Verdict.CLEAR),
    ]
    assert {(one.scores, tuple(one.signals), one.warnings, one.value) for one in event.results} == {((), (), (), None)}
    assert (event.labels, event.failures) == (LABELS, ())
    said = event.provenance
    assert (said.model_sha256, said.runtime, said.worker) == (DECLARATION, "external", "bench")
    assert 0 <= said.seconds < 60


async def test_a_request_names_job_dataset_image_and_model(rig):
    task, images = rig.job(1)
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images)
    (request,) = rig.requests
    assert request["dataset_id"] == str(rig.log.decode(rig.log.event(task.job, 1)).dataset_id)
    assert (request["classification_id"], request["image_id"], request["model_name"]) == (str(task.job), str(images[0]), "cells")


async def test_a_single_image_names_no_dataset_and_is_sent_beyond_the_window_of_a_dataset(rig):
    whole, images_of_whole = rig.job(12)
    single, images = rig.job(1, single=True)
    async with rig.bridge() as bridge, rig.handling(bridge, whole):
        await rig.until_asked(whole, images_of_whole[:1])
        async with rig.handling(bridge, single):
            await rig.until_asked(single, images)
            assert rig.requests[-1]["dataset_id"] is None
            assert sum(rig.asked(whole).values()) <= 4, "at first two images in each of two partitions"
            await rig.answer(single, images[0])
            assert len((await rig.until_recorded(single)).results) == 1


async def test_the_first_answer_to_an_image_counts_also_in_one_batch(rig):
    task, images = rig.job(2)
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images[:1])
        await rig.answer(task, images[0], images[0], label="round")
        await rig.answer(task, images[0], label="flat")
        await rig.answer(task, images[1], label="flat")
        event = await rig.until_recorded(task)
    assert outcomes(event) == {images[0]: "round", images[1]: "flat"}


async def test_two_tasks_for_one_chunk_send_its_images_once_and_leave_one_event(rig):
    task, images = rig.job(2)
    async with rig.bridge() as bridge, rig.handling(bridge, task, task) as work:
        await rig.until_asked(task, images[:1])
        await wait_until_async(lambda: sum(one.done() for one in work) == 1)
        await rig.answer(task, *images)
        assert len((await rig.until_recorded(task)).results) == 2
        await asyncio.gather(*work)
    assert max(rig.asked(task).values()) == 1


# ---- what is not sent --------------------------------------------------------------------------------------------------------------
async def test_a_chunk_that_has_results_is_not_sent_again(rig):
    task, images = rig.job(1)
    async with rig.bridge() as bridge:
        async with rig.handling(bridge, task):
            await rig.until_asked(task, images)
            await rig.answer(task, *images)
            await rig.until_recorded(task)
        await bridge.handle(EXTERNAL, task)
    assert rig.asked(task) == {str(images[0]): 1}


@pytest.mark.parametrize("external", [True, False])
async def test_only_planned_chunks_of_external_jobs_are_sent(rig, external):
    task, _ = rig.job(1, external=external)
    task = msgspec.structs.replace(task, number=5) if external else task
    async with rig.bridge() as bridge:
        await bridge.handle(EXTERNAL, task)
    assert (rig.requests, rig.answers.jobs()) == ([], set())


async def test_deleted_and_rejected_images_are_settled_without_being_sent(rig):
    task, images = rig.job(3)
    rig.delete(images[0])
    rig.reject(images[1])
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images[2:])
        await rig.answer(task, images[2])
        event = await rig.until_recorded(task)
    assert outcomes(event) == {images[0]: "image_deleted", images[1]: "image_rejected", images[2]: "round"}
    assert set(rig.asked(task)) == {str(images[2])}


async def test_a_chunk_whose_images_were_all_deleted_fails_without_a_classifier(rig):
    task, images = rig.job(2)
    for one in images:
        rig.delete(one)
    async with rig.bridge() as bridge:
        await bridge.handle(EXTERNAL, task)
    event = rig.recorded(task)
    assert (outcomes(event), event.provenance, rig.requests) == (dict.fromkeys(images, "image_deleted"), None, [])


async def test_an_image_that_is_deleted_while_it_is_out_is_settled_at_once(rig):
    task, images = rig.job(2)
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images[:1])
        rig.delete(images[0])
        await wait_until_async(lambda: images[0] not in {key.image for key in bridge._waiting.keys})
        await rig.answer(task, images[1])
        event = await rig.until_recorded(task)
    assert outcomes(event) == {images[0]: "image_deleted", images[1]: "round"}


async def test_a_job_that_is_cancelled_while_images_are_out_records_nothing_and_is_forgotten(rig):
    task, images = rig.job(2)
    async with rig.bridge() as bridge:
        async with rig.handling(bridge, task) as work:
            await rig.until_asked(task, images[:1])
            rig.cancel(task.job)
            await asyncio.gather(*work)
        await wait_until_async(lambda: rig.answers.jobs() == set())
        await rig.answer(task, *images)
    assert (rig.recorded(task), rig.dead_letters) == (None, [])


# ---- silence -----------------------------------------------------------------------------------------------------------------------
async def test_images_without_an_answer_are_sent_three_times_and_then_fail(rig):
    task, images = rig.job(2)
    async with rig.bridge(SHORT_LEASE) as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images[:1])
        await rig.answer(task, images[0])
        event = await rig.until_recorded(task)
    assert outcomes(event) == {images[0]: "round", images[1]: "no_answer"}
    assert rig.asked(task)[str(images[1])] == SHORT_LEASE.attempts
    (failure,) = event.failures
    assert "sent 3 times, and nothing came within 0.3 s" in failure.detail


async def test_a_late_answer_to_an_image_that_failed_changes_nothing(rig):
    task, images = rig.job(1)
    async with rig.bridge(SHORT_LEASE) as bridge, rig.handling(bridge, task):
        await rig.until_recorded(task)
        await rig.answer(task, *images)
    assert (outcomes(rig.recorded(task)), rig.dead_letters) == ({images[0]: "no_answer"}, [])


async def test_images_wait_while_kafka_is_away(rig):
    task, images = rig.job(1)
    async with rig.bridge() as bridge:
        rig.is_away = True
        with pytest.raises(Unavailable):
            await bridge.handle(EXTERNAL, task)
        rig.is_away = False
        async with rig.handling(bridge, task):
            await rig.until_asked(task, images)
            await rig.answer(task, *images)
            assert outcomes(await rig.until_recorded(task)) == {images[0]: "round"}


async def test_an_image_that_kafka_did_not_take_is_sent_when_it_is_back_and_the_attempt_does_not_count(rig, monkeypatch):
    task, images = rig.job(1)
    send, failures = rig.send, []

    async def fail_at_first(topic, key, value):
        if len(failures) < 3:
            failures.append(key)
            raise TimeoutError
        await send(topic, key, value)

    monkeypatch.setattr(rig, "send", fail_at_first)
    async with rig.bridge() as bridge, rig.handling(bridge, task):
        await rig.until_asked(task, images)
        await wait_until_async(lambda: rig.known(task, images)[images[0]].attempts == 1)
    assert (len(failures), rig.asked(task)) == (3, {str(images[0]): 1})


# ---- several bridges ---------------------------------------------------------------------------------------------------------------
async def test_a_bridge_continues_what_another_one_began(rig):
    task, images = rig.job(3)
    async with rig.bridge() as first, rig.handling(first, task):
        await rig.until_asked(task, images[:1])
        await rig.answer(task, images[0])
        await rig.until_asked(task, images[1:2])
        await wait_until_async(lambda: rig.known(task, images)[images[1]].attempts == 1)
    before = rig.asked(task)
    async with rig.bridge() as second, rig.handling(second, task):
        await rig.answer(task, images[1], label="flat")
        await rig.until_asked(task, images[2:])
        await rig.answer(task, images[2])
        event = await rig.until_recorded(task)
    assert outcomes(event) == {images[0]: "round", images[1]: "flat", images[2]: "round"}
    assert rig.asked(task) == {str(one): 1 for one in images}
    assert str(images[1]) in before, "it was sent by the first bridge alone"


async def test_attempts_count_over_all_bridges(rig):
    task, images = rig.job(1)
    rig.answers.expect(task.job, 0, "cells", images)
    for attempt in (1, 2):
        rig.answers.mark_sent({ImageKey(task.job, images[0]): attempt})
    async with rig.bridge(SHORT_LEASE) as bridge, rig.handling(bridge, task):
        assert outcomes(await rig.until_recorded(task)) == {images[0]: "no_answer"}
    assert rig.asked(task) == {str(images[0]): 1}


async def test_answers_that_another_bridge_reads_wake_the_one_that_waits(rig):
    task, images = rig.job(2)
    intervals = BridgeIntervals(check_seconds=60.0, forget_seconds=60.0)
    async with rig.bridge(intervals=intervals) as first, rig.bridge(intervals=intervals), rig.handling(first, task):
        await rig.until_asked(task, images[:1])
        await rig.answer(task, *images, reader=1)
        assert outcomes(await rig.until_recorded(task)) == dict.fromkeys(images, "round")


async def test_two_bridges_on_one_chunk_leave_one_event_with_the_first_answers(rig):
    task, images = rig.job(2)
    async with rig.bridge() as first, rig.bridge() as second, rig.handling(first, task) as one, rig.handling(second, task) as other:
        await wait_until_async(lambda: first._waiting.keys and second._waiting.keys)
        await rig.answer(task, images[0], label="round", reader=0)
        await rig.answer(task, images[0], label="flat", reader=1)
        await rig.answer(task, images[1], label="flat", reader=1)
        await asyncio.gather(*one, *other)
    assert outcomes(rig.recorded(task)) == {images[0]: "round", images[1]: "flat"}


async def test_an_answer_that_another_bridge_heard_begins_the_lease_again():
    clock = Clock()
    rig = BridgeRig(answers=MemoryExternalAnswers(clock=clock))
    task, images = rig.job(1)
    other, others = rig.job(1)
    async with rig.bridge(clock=clock) as first, rig.bridge(clock=clock) as second, rig.handling(first, task), rig.handling(second, other):
        await rig.until_asked(task, images)
        await rig.until_asked(other, others)
        clock.now = 50.0
        await rig.answer(other, *others, reader=1)
        clock.now = 100.0
        first.deliver([])
        await wait_until_async(lambda: first._waiting.next_overdue_at() == 50.0 + LONG_LEASE.lease_seconds)
        assert rig.asked(task) == {str(images[0]): 1}
        clock.now = 50.0 + LONG_LEASE.lease_seconds
        first.deliver([])
        await rig.until_asked(task, images, times=2)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now
