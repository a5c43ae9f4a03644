"""What a caller chooses for a job, plans with reused images, deadlines and retries."""

from datetime import datetime, timedelta
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import classification
from domain.classification import (
    MAX_PART_IMAGES,
    ImageFilter,
    JobStatus,
    Priority,
    RunOptions,
    Verdict,
    checked_filter,
    listed_images,
    path_pattern,
)
from domain.errors import Conflict, Invalid
from tests.domain.test_classification import ME, a_job, pictures
from tests.given import LATER, NOW, state_after

DAY = timedelta(days=1)


# ---- choices -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("deadline", [NOW, NOW - DAY, NOW + 30 * DAY + timedelta(seconds=1), datetime(2026, 3, 2, 12, 0)])
def test_a_deadline_lies_within_thirty_days_after_the_request_and_has_a_time_zone(deadline):
    with pytest.raises(Invalid, match="deadline"):
        a_job(options=RunOptions(deadline=deadline))


@pytest.mark.parametrize("top_k", [0, -1, 1001])
def test_a_number_of_scores_out_of_bounds_is_refused(top_k):
    with pytest.raises(Invalid, match="top_k"):
        a_job(options=RunOptions(top_k=top_k))


def test_choices_are_recorded_and_kept_in_the_state():
    images, options = (uuid4(), uuid4()), RunOptions(priority=Priority.HIGH, deadline=NOW + 30 * DAY, top_k=1000, fresh=True)
    job, (requested,) = a_job(images=images, filter=ImageFilter(label="round"), path="A*", external=True, options=options)
    assert (job.selected, job.filter, job.path, job.external) == (images, requested.filter, "A*", True)
    assert RunOptions(priority=job.priority, deadline=job.deadline, top_k=job.top_k, fresh=job.fresh) == options


def test_a_list_names_each_image_once_and_at_most_a_thousand():
    one, other = uuid4(), uuid4()
    assert listed_images([one, other, one]) == (one, other)
    assert len(listed_images([uuid4() for _ in range(1000)])) == 1000
    for wrong in ([], [uuid4() for _ in range(1001)]):
        with pytest.raises(Invalid, match="image_ids"):
            listed_images(wrong)


def test_a_filter_that_asks_nothing_is_none():
    assert checked_filter(ImageFilter(), labels=["round"]) is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"label": "square"}, "flat, round"),
        ({"uploaded_from": LATER, "uploaded_before": NOW}, "later than uploaded_from"),
        ({"uploaded_from": NOW, "uploaded_before": NOW}, "later than uploaded_from"),
        ({"uploaded_from": NOW.replace(tzinfo=None)}, "time zone"),
        ({"without_result": True, "verdict": Verdict.CLEAR}, "without_result"),
        ({"without_result": True, "label": "round"}, "without_result"),
    ],
)
def test_a_filter_that_can_match_nothing_is_refused(asked, message):
    with pytest.raises(Invalid, match=message):
        checked_filter(ImageFilter(**asked), labels=["round", "flat"])


def test_a_pattern_is_recorded_with_slashes_and_in_one_unicode_form():
    assert path_pattern(" Pra\u0308parat\\*.tif ") == "Pr\u00e4parat/*.tif"
    for wrong in ("", "  ", "x" * 513, "a\x07"):
        with pytest.raises(Invalid, match=r"filter\.path"):
            path_pattern(wrong)


# ---- plans -------------------------------------------------------------------------------------------------------------------------
@given(st.integers(0, 2 * MAX_PART_IMAGES), st.integers(0, 2 * MAX_PART_IMAGES), st.booleans())
def test_reusable_images_form_parts_of_their_own_and_every_image_is_planned_once(reusable, others, more):
    job, _ = a_job()
    known, new = pictures(reusable), pictures(others)
    events = classification.plan(job, new, reusable=known, more=more, by=ME, at=LATER)
    if not (known or new or more):
        assert [type(event) for event in events] == [classification.ClassificationFailed]
        return
    assert [image for event in events for image in event.images] == [*known, *new]
    assert all(set(event.images) <= set(known) or set(event.images) <= set(new) for event in events)
    assert [event.last for event in events] == [False] * (len(events) - 1) + [not more]
    state = state_after(classification.evolve, events, job)
    assert (state.images, state.planned) == (reusable + others, not more)
    assert [event.part for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    ("covers", "reason"),
    [
        ({}, "The dataset holds no image"),
        ({"images": (uuid4(),)}, "None of the listed images"),
        ({"filter": ImageFilter(label="round")}, "matches the filter"),
        ({"path": "A*"}, "matches the filter"),
        ({"retry_of": uuid4()}, "earlier job left without a result"),
    ],
)
def test_a_job_without_images_fails_with_its_own_reason(covers, reason):
    job, _ = a_job(**covers)
    (failed,) = classification.plan(job, [], by=ME, at=LATER)
    assert reason in failed.reason


# ---- deadlines ---------------------------------------------------------------------------------------------------------------------
def test_a_job_that_has_ended_does_not_end_again_at_its_deadline():
    job, _ = a_job(pictures(1)[0])
    (failed,) = classification.expire(job, answered=0, failed=0, by=ME, at=LATER)
    assert failed.reason == "The deadline passed before every image had an answer: 0 of 1 have one"
    ended = classification.evolve(job, failed)
    assert (ended.phase, ended.failed) == (JobStatus.FAILED, 0)
    assert classification.expire(ended, answered=0, failed=0, by=ME, at=LATER) == []
    deleted = classification.evolve(job, classification.delete(job, by=ME, at=LATER))
    assert classification.expire(deleted, answered=0, failed=0, by=ME, at=LATER) == []


# ---- retries -----------------------------------------------------------------------------------------------------------------------
def ended_job(*, failed=1, **chosen):
    job, _ = a_job(**chosen)
    events = classification.plan(job, pictures(2), by=ME, at=LATER)
    job = state_after(classification.evolve, events, job)
    return state_after(classification.evolve, classification.complete(job, succeeded=2 - failed, failed=failed, by=ME, at=LATER), job)


def test_a_retry_asks_for_the_same_again_but_for_the_deadline_and_the_selection():
    options = RunOptions(priority=Priority.LOW, deadline=NOW + DAY, top_k=3, fresh=True)
    earlier = ended_job(options=options, path="A*", external=True)
    (requested,) = classification.retry(uuid4(), earlier, None, by=ME, at=LATER)
    same = ("dataset_id", "model_id", "model_name", "model_version", "model_sha256", "threshold", "planes", "external", "top_k", "fresh")
    assert [getattr(requested, name) for name in same] == [getattr(earlier, name) for name in same]
    assert (requested.priority, requested.deadline, requested.path, requested.retry_of) == (Priority.LOW, None, None, earlier.id)


def test_a_retry_of_a_job_over_one_image_is_planned_at_once():
    (image,) = pictures(1)
    job, _ = a_job(image)
    earlier = state_after(classification.evolve, classification.complete(job, succeeded=0, failed=1, by=ME, at=LATER), job)
    requested, planned = classification.retry(uuid4(), earlier, image, by=ME, at=LATER)
    assert (requested.image_id, planned.images, planned.last) == (image.id, (image,), True)


def test_only_a_planned_job_that_has_ended_with_images_left_is_retried():
    running, _ = a_job(pictures(1)[0])
    unplanned, _ = a_job()
    cancelled = classification.evolve(unplanned, classification.cancel(unplanned, by=ME, at=LATER))
    for job, message in ((running, "running"), (cancelled, "run it again"), (ended_job(failed=0), "has a result")):
        with pytest.raises(Conflict, match=message):
            classification.retry(uuid4(), job, None, by=ME, at=LATER)


def test_a_cancelled_job_that_was_planned_can_be_retried():
    job, _ = a_job(pictures(1)[0])
    cancelled = classification.evolve(job, classification.cancel(job, by=ME, at=LATER))
    assert classification.retry(uuid4(), cancelled, None, by=ME, at=LATER)[0].retry_of == job.id


def test_priorities_have_an_order():
    assert sorted(Priority, key=lambda one: one.rank) == [Priority.LOW, Priority.NORMAL, Priority.HIGH]
    assert msgspec.json.decode(b'"high"', type=Priority) is Priority.HIGH
