"""Jobs: planned in chunks, and ended once."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import classification
from domain.classification import (
    MAX_CHUNK_IMAGES,
    MAX_PART_IMAGES,
    JobStatus,
    PlaneSelection,
    PlannedImage,
    Projection,
    ReviewRules,
    Verdict,
)
from domain.errors import Conflict, Invalid
from tests.given import LATER, NOW, state_after

ME = uuid4()


def a_job(image=None, *, planes=None, **chosen):
    asked = classification.request(
        uuid4(),
        dataset=uuid4(),
        image=image,
        model_id=uuid4(),
        model_name="pbc8",
        model_version=1,
        model_sha256="ab",
        threshold=0.5,
        planes=planes,
        **chosen,
        by=ME,
        at=NOW,
    )
    return state_after(classification.evolve, asked), asked


def pictures(count):
    return [PlannedImage(uuid4(), f"{number:064x}") for number in range(count)]


def _requested(job):
    return classification.ClassificationRequested(
        originator_id=job.id,
        originator_version=1,
        at=NOW,
        by=ME,
        dataset_id=job.dataset_id,
        image_id=None,
        model_id=job.model_id,
        model_name=job.model_name,
        model_version=1,
        model_sha256="ab",
        threshold=0.5,
    )


def test_a_job_over_one_image_is_planned_at_once():
    job, asked = a_job(pictures(1)[0])
    assert [type(event).__name__ for event in asked] == ["ClassificationRequested", "ClassificationPlanned"]
    assert (job.planned, job.chunks, job.images) == (True, 1, 1)


@given(st.integers(1, 3 * MAX_PART_IMAGES))
def test_a_plan_covers_every_image_once_in_parts_and_chunks(count):
    job, _ = a_job()
    images = pictures(count)
    parts = classification.plan(job, images, by=ME, at=LATER)
    assert [one for part in parts for one in part.images] == images
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(part.images) <= MAX_PART_IMAGES for part in parts)
    chunks = [len(chunk) for part in parts for chunk in classification.chunks_of(part.images)]
    assert sum(chunks) == count
    assert max(chunks) <= MAX_CHUNK_IMAGES
    assert state_after(classification.evolve, [_requested(job), *parts]).chunks == len(chunks)
    for part in parts[1:]:
        before = parts[: part.part]
        assert part.first_chunk == sum(len(classification.chunks_of(one.images)) for one in before)


def test_a_job_over_nothing_fails_with_a_reason():
    job, _ = a_job()
    (failed,) = classification.plan(job, [], by=ME, at=LATER)
    assert classification.evolve(job, failed).phase is JobStatus.FAILED
    assert "no image" in failed.reason


def test_a_job_in_which_nothing_succeeded_has_failed():
    job, _ = a_job(pictures(1)[0])
    assert classification.evolve(job, *classification.complete(job, succeeded=0, failed=1, by=ME, at=LATER)).phase is JobStatus.FAILED
    assert classification.evolve(job, *classification.complete(job, succeeded=1, failed=0, by=ME, at=LATER)).phase is JobStatus.COMPLETED


def test_an_ended_job_takes_no_other_end():
    job, _ = a_job(pictures(1)[0])
    ended = classification.evolve(job, classification.cancel(job, by=ME, at=LATER))
    assert classification.complete(ended, succeeded=1, failed=0, by=ME, at=LATER) == []
    with pytest.raises(Conflict):
        classification.cancel(ended, by=ME, at=LATER)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_result_below_the_threshold_needs_review(confidence, threshold):
    rules = ReviewRules(below=threshold)
    assert (verdict(confidence, rules) is Verdict.CLEAR) == (confidence >= threshold)
    assert verdict(confidence, rules, out_of_domain=True) is Verdict.OUT_OF_DOMAIN


def verdict(confidence, rules, *, label="a", scores=(), value=None, out_of_domain=False):
    return classification.verdict_on(label, confidence, scores=dict(scores), value=value, out_of_domain=out_of_domain, rules=rules)


def test_a_label_can_have_a_threshold_of_its_own():
    rules = ReviewRules(below=0.5, below_for={"rare": 0.9})
    assert verdict(0.8, rules, label="rare") is Verdict.NEEDS_REVIEW
    assert verdict(0.8, rules, label="common") is Verdict.CLEAR


def test_a_threshold_of_the_caller_replaces_those_of_all_labels():
    rules = ReviewRules(below=0.5, below_for={"rare": 0.9})
    assert verdict(0.8, rules.with_threshold(0.6), label="rare") is Verdict.CLEAR
    assert verdict(0.55, rules.with_threshold(0.6), label="common") is Verdict.NEEDS_REVIEW
    assert verdict(0.8, rules.with_threshold(0.5), label="rare") is Verdict.NEEDS_REVIEW, "the default of the version was kept"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [({"a": 0.95, "b": 0.02}, Verdict.CLEAR), ({"a": 0.95, "b": 0.4}, Verdict.NEEDS_REVIEW), ({"a": 0.6, "b": 0.1}, Verdict.NEEDS_REVIEW)],
)
def test_where_several_labels_can_apply_each_must_be_certain(scores, expected):
    assert verdict(scores["a"], ReviewRules(below=0.8, every_label=True), scores=scores) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [(3.0, Verdict.CLEAR), (9.0, Verdict.CLEAR), (9.1, Verdict.NEEDS_REVIEW), (-1.0, Verdict.NEEDS_REVIEW)]
)
def test_a_number_needs_review_outside_of_its_bounds_whatever_the_threshold(value, expected):
    rules = ReviewRules(below=0.9, outside=(0.0, 9.0))
    assert verdict(0.0, rules, value=value) is expected
    assert verdict(0.0, ReviewRules(below=0.9), value=value) is Verdict.CLEAR


@pytest.mark.parametrize(
    "planes", [{"z": 0}, {"z": Projection.MAX}, {"c": (3, 0)}, {"c": tuple(range(16))}, {"t": 7}, {"z": Projection.MEAN, "c": (1,), "t": 0}]
)
def test_a_job_keeps_the_planes_that_its_caller_chose(planes):
    job, asked = a_job(planes=PlaneSelection(**planes))
    assert job.planes == asked[0].planes == PlaneSelection(**planes)


@pytest.mark.parametrize("planes", [None, PlaneSelection()])
def test_a_job_without_a_choice_of_planes_leaves_it_to_the_model(planes):
    job, asked = a_job(planes=planes)
    assert job.planes is asked[0].planes is None


@pytest.mark.parametrize(
    ("planes", "axis"),
    [
        ({"z": -1}, "z"),
        ({"z": 10**9}, "z"),
        ({"t": -1}, "t"),
        ({"t": 10**9}, "t"),
        ({"c": ()}, "c"),
        ({"c": (0, 0)}, "c"),
        ({"c": (0, -1)}, "c"),
        ({"c": (10**9,)}, "c"),
        ({"c": tuple(range(17))}, "c"),
    ],
)
def test_planes_that_no_image_can_have_are_refused(planes, axis):
    with pytest.raises(Invalid) as refused:
        a_job(planes=PlaneSelection(**planes))
    assert refused.value.errors[0]["loc"] == ["body", "planes", axis]
