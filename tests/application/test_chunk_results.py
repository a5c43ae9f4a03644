"""Chunks are found in plans of any length with few reads."""

from math import log2
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.jobs.chunk_results import JobPlans
from domain import classification
from domain.classification import ENDING, PlannedImage
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, command
from tests.twins.event_store import MemoryRecorder

BY = actor()


class CountingRecorder(MemoryRecorder):
    reads = 0

    def select_event(self, stream, version):
        self.reads += 1
        return super().select_event(stream, version)


def planned(parts):
    """A log with a job whose parts cover so many images."""
    log = RecorderEventStore(CountingRecorder(RootKey(bytes(32))), RootKey(bytes(32)))
    about = {"model_id": uuid4(), "model_name": "shapes", "model_version": 1, "model_sha256": "f" * 64, "threshold": 0.5}
    (requested,) = classification.request(uuid4(), dataset=uuid4(), image=None, **about, by=BY.id, at=NOW)
    log.append(command(), requested)
    state = classification.evolve(None, requested)
    for number, count in enumerate(parts):
        covered = [PlannedImage(uuid4(), "a" * 64) for _ in range(count)]
        (part,) = classification.plan(state, covered, more=number < len(parts) - 1, by=BY.id, at=NOW)
        log.append(command(), part)
        state = classification.evolve(state, part)
    return log, state


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_every_chunk_of_a_plan_is_found_and_no_other(parts):
    log, job = planned(parts)
    plans = JobPlans(log)
    found = [plans.chunk(job.id, number) for number in range(job.chunks)]
    events = [log.decode(one) for one in log.history(job.id)[1:]]
    assert [list(chunk.images) for chunk in found] == [list(chunk) for part in events for chunk in classification.chunks_of(part.images)]
    assert {chunk.job.id for chunk in found} == {job.id}
    assert [plans.chunk(job.id, number) for number in (-1, job.chunks, 777)] == [None] * 3
    assert plans.chunk(uuid4(), 0) is None


def test_a_long_plan_is_not_read_as_a_whole_and_chunks_of_one_part_are_read_once():
    log, job = planned([40] * 60)
    plans = JobPlans(log, max_parts=4)
    for number in (job.chunks - 1, 3, job.chunks // 2):
        log.recorder.reads = 0
        plans.chunk(job.id, number)
        assert log.recorder.reads <= 2 * log2(60) + 2
    log.recorder.reads = 0
    plans.chunk(job.id, job.chunks // 2 + 1)
    assert log.recorder.reads <= 1


@pytest.mark.parametrize("kind", ENDING)
def test_a_job_has_ended_after_each_of_its_ends(kind):
    log, job = planned([8])
    plans = JobPlans(log)
    assert not plans.has_ended(job.id)
    ends = {
        "ClassificationCancelled": lambda: classification.cancel(job, by=BY.id, at=NOW),
        "ClassificationCompleted": lambda: classification.complete(job, succeeded=1, failed=0, by=BY.id, at=NOW)[0],
        "ClassificationFailed": lambda: classification.fail(job, reason="", failed=0, by=BY.id, at=NOW),
        "ClassificationDeleted": lambda: classification.delete(job, by=BY.id, at=NOW),
    }
    log.append(command(), ends[kind.__name__]())
    assert plans.has_ended(job.id)
