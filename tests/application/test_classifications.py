"""Jobs: requested, cancelled, deleted; and the results of their chunks."""

from uuid import uuid4

import pytest

from application import classifications, datasets, images, models
from application.classifications import ImageSelection, load_job
from application.jobs.chunk_results import ChunkAnswers, JobPlans, record_chunk_results
from application.ports import Mismatch
from domain import classification
from domain.access import Grant, Role
from domain.classification import ChunkJudged, ImageFilter, JobStatus, PlaneSelection
from domain.errors import Conflict, Forbidden, InputMismatch, Invalid, NotFound
from domain.values import chunk_id
from tests.given import NOW, actor, add_model, command
from tests.rigs.scenario import Scenario

SYSTEM = actor(None, kind="system")


@pytest.fixture
def scenario(log):
    scenario = Scenario(log, None)
    scenario.model()
    return scenario


@pytest.fixture
def ada(scenario):
    return scenario.user()


@pytest.fixture
def cells(scenario, ada):
    return scenario.dataset(ada)


@pytest.fixture
def run(log):
    def run(by, *, dataset=None, image=None, images=None, where=None, path=None, model="shapes", threshold=None, **more):
        selection = ImageSelection(dataset_id=dataset, image_id=image, image_ids=images, filter=where, path=path)
        about = {"selection": selection, "model_name": model, "threshold": threshold, "known_models": ["shapes"]}
        return classifications.run(**about, **more, command=command(by), log=log).id

    return run


def test_a_job_over_one_image_is_planned_at_once_and_one_over_a_dataset_later(log, scenario, ada, cells, run):
    single, whole = run(ada, image=scenario.image(ada, cells)), run(ada, dataset=cells)
    assert load_job(log, single, command(ada), Grant.VIEWER).phase is JobStatus.RUNNING
    assert load_job(log, whole, command(ada), Grant.VIEWER).phase is JobStatus.PENDING


def test_a_job_names_exactly_one_of_dataset_and_image(scenario, ada, cells, run):
    for both in ({}, {"dataset": cells, "image": scenario.image(ada, cells)}):
        with pytest.raises(Invalid, match="exactly one"):
            run(ada, **both)


def test_a_job_of_an_external_classifier_chooses_no_planes_and_its_images_are_not_compared(log, scenario, ada, cells, run):
    scenario.external(ada)

    def compare(*_):
        raise AssertionError("nothing is known of what the classifier can read")

    job = run(ada, dataset=cells, model="vesicles", input_check=compare)
    assert load_job(log, job, command(ada), Grant.VIEWER).external
    assert not load_job(log, run(ada, dataset=cells), command(ada), Grant.VIEWER).external
    with pytest.raises(Invalid, match="planes cannot be chosen for vesicles: an external classifier reads the image itself") as refused:
        run(ada, dataset=cells, model="vesicles", planes=PlaneSelection(z=1))
    assert refused.value.errors[0]["loc"] == ["body", "planes"]


def test_an_unknown_model_a_wrong_threshold_and_a_rejected_image_are_refused(scenario, ada, cells, run):
    with pytest.raises(Invalid, match="Models: shapes"):
        run(ada, dataset=cells, model="unknown")
    with pytest.raises(Invalid, match="threshold"):
        run(ada, dataset=cells, threshold=1.5)
    torn = scenario.image(ada, cells)
    scenario.reject(torn)
    with pytest.raises(Conflict, match="rejected"):
        run(ada, image=torn)


def test_a_job_needs_a_role_and_a_grant(scenario, ada, cells, run):
    with pytest.raises(Forbidden):
        run(actor(Role.VIEWER), dataset=cells)
    with pytest.raises(NotFound):
        run(actor(), dataset=cells)


# ---- the version ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def two_versions(log, scenario):
    """A second version with another threshold is the candidate."""
    about = {"sha256": "cd" * 32, "size": 10, "labels": ("round", "flat"), "review_below": 0.8, "record": "{}"}
    add_model(name="shapes", **about, command=command(actor(Role.ADMIN)), log=log)


def asked_for(log, job):
    found = load_job(log, job, command(actor(Role.ADMIN)), Grant.VIEWER)
    return found.model_version, found.model_sha256[:2], found.threshold


@pytest.mark.usefixtures("two_versions")
def test_a_job_records_the_version_that_it_names_with_its_threshold(log, ada, cells, run):
    first, second = (1, "ab", 0.6), (2, "cd", 0.8)
    for wanted, version in ((None, first), ("production", first), ("1", first), ("2", second), ("candidate", second)):
        assert asked_for(log, run(ada, dataset=cells, model_version=wanted)) == version
    assert asked_for(log, run(ada, dataset=cells, model_version="2", threshold=0.1)) == (2, "cd", 0.1)


@pytest.mark.usefixtures("two_versions")
def test_a_job_keeps_its_version_when_the_alias_moves(log, ada, cells, run):
    job = run(ada, dataset=cells)
    models.move_alias(name="shapes", alias="production", number=2, command=command(actor(Role.ADMIN)), log=log)
    assert asked_for(log, job) == (1, "ab", 0.6)
    assert asked_for(log, run(ada, dataset=cells)) == (2, "cd", 0.8)


@pytest.mark.usefixtures("two_versions")
def test_an_analyst_runs_only_the_version_in_production(log, scenario, ada, cells, run):
    bob = scenario.user(Role.ANALYST, name="bob")
    scenario.share(ada, cells, bob, Grant.ANALYST)
    for wanted in (None, "production", "1"):
        assert run(bob, dataset=cells, model_version=wanted)
    for wanted in ("2", "candidate"):
        with pytest.raises(Forbidden, match="not in production"):
            run(bob, dataset=cells, model_version=wanted)


def test_a_version_that_does_not_exist_and_a_retired_model_are_refused(log, ada, cells, run):
    for wanted in ("2", "candidate", "x"):
        with pytest.raises(Invalid, match="Versions: 1"):
            run(ada, dataset=cells, model_version=wanted)
    models.retire(name="shapes", reason="Old", command=command(actor(Role.ADMIN)), log=log)
    with pytest.raises(Invalid, match="The model shapes is retired and accepts no new jobs") as refused:
        run(ada, dataset=cells, model_version="1")
    assert refused.value.errors[0]["loc"] == ["body", "model_name"]


# ---- whether an image fits -----------------------------------------------------------------------------------------------------------
class ChecksInput:
    """An input check that remembers what it was asked, and finds these mismatches."""

    def __init__(self, *found):
        self.found, self.asked = found, []

    def __call__(self, version, image, planes):
        self.asked.append((version.number, image and image.id, planes))
        return self.found


def test_the_image_of_a_job_is_compared_with_the_model_before_the_job_begins(log, scenario, ada, cells, run):
    image, planes, check = scenario.image(ada, cells), PlaneSelection(c=(0,)), ChecksInput()
    assert load_job(log, run(ada, image=image, planes=planes, input_check=check), command(ada), Grant.VIEWER).planes == planes
    run(ada, dataset=cells, planes=planes, input_check=check)
    run(ada, image=image, input_check=check)
    assert check.asked == [(1, image, planes), (1, None, planes), (1, image, None)]


def test_an_image_that_does_not_fit_is_refused_with_what_is_expected_and_found(log, scenario, ada, cells, run):
    image, before = scenario.image(ada, cells), log.head()
    channels = Mismatch(("image_id",), "channel", "3 (red, green, blue)", "1", "The model takes 3 channels, and the image has 1")
    width = Mismatch(("image_id",), "x", "at least 64", "48", "The model takes at least 64 pixels in width, and the image has 48")
    with pytest.raises(InputMismatch) as refused:
        run(ada, image=image, input_check=ChecksInput(channels, width))
    assert refused.value.detail == (
        "This does not fit version 1 of the model shapes. The model takes 3 channels, and the image has 1."
        " The model takes at least 64 pixels in width, and the image has 48"
    )
    assert refused.value.errors == [
        {"loc": ["body", "image_id"], "msg": one.message, "axis": one.axis, "expected": one.expected, "found": one.found}
        for one in (channels, width)
    ]
    assert log.head() == before


def test_choices_are_refused_before_a_dataset_that_does_not_exist(ada, run):
    channels = Mismatch(("planes", "c"), "channel", "3", "1", "The model takes 3 channels, and the choice has 1")
    with pytest.raises(InputMismatch):
        run(ada, dataset=uuid4(), planes=PlaneSelection(c=(0,)), input_check=ChecksInput(channels))
    with pytest.raises(NotFound):
        run(ada, dataset=uuid4(), planes=PlaneSelection(c=(0,)), input_check=ChecksInput())


def test_nobody_learns_about_an_image_that_is_not_shared_with_them(scenario, ada, cells, run):
    check = ChecksInput()
    with pytest.raises(NotFound):
        run(actor(), image=scenario.image(ada, cells), input_check=check)
    assert check.asked == []


def test_a_job_over_a_deleted_image_or_dataset_is_refused(log, scenario, ada, cells, run):
    image = scenario.image(ada, cells)
    images.delete(image, command=command(ada), log=log)
    with pytest.raises(NotFound):
        run(ada, image=image)
    datasets.delete(cells, command=command(ada), log=log)
    with pytest.raises(NotFound):
        run(ada, dataset=cells)


def test_a_job_is_cancelled_once_and_deleted(log, ada, cells, run):
    job = run(ada, dataset=cells)
    classifications.cancel(job, command=command(ada), log=log)
    with pytest.raises(Conflict):
        classifications.cancel(job, command=command(ada), log=log)
    classifications.delete(job, command=command(ada), log=log)
    with pytest.raises(NotFound):
        load_job(log, job, command(ada), Grant.VIEWER)


def test_a_job_is_deleted_by_its_creator_and_by_researchers_who_edit_the_dataset(log, scenario, ada, cells, run):
    creator, other, researcher = scenario.user(Role.ANALYST), scenario.user(Role.ANALYST), scenario.user(Role.RESEARCHER)
    for person in (creator, other, researcher):
        scenario.share(ada, cells, person, Grant.EDITOR)
    jobs = [run(creator, dataset=cells) for _ in range(3)]
    with pytest.raises(Forbidden):
        classifications.delete(jobs[0], command=command(other), log=log)
    for person, job in zip((creator, researcher, ada), jobs, strict=True):
        classifications.delete(job, command=command(person), log=log)
    left = run(creator, dataset=cells)
    scenario.share(ada, cells, creator, Grant.VIEWER)
    classifications.delete(left, command=command(creator), log=log)
    lost = run(researcher, dataset=cells)
    datasets.withdraw(cells, user_id=researcher.id, command=command(ada), log=log)
    with pytest.raises(NotFound):
        classifications.delete(lost, command=command(researcher), log=log)


def test_results_of_a_chunk_are_recorded_once(log, scenario, ada, cells, run):
    job = run(ada, image=scenario.image(ada, cells))
    chunk = JobPlans(log).chunk(job, 0)
    failed = ChunkAnswers.failure_of_all(chunk, reason="worker_lost", detail="The worker was lost.")
    assert [record_chunk_results(chunk, failed, command=command(SYSTEM), log=log) for _ in range(2)] == [True, False]
    (recorded,) = log.history(chunk_id(job, 0))
    event = log.decode(recorded)
    assert isinstance(event, ChunkJudged)
    assert [one.image_id for one in event.failures] == [one.id for one in chunk.images]


def test_a_repeated_command_records_results_once(log, scenario, ada, cells, run):
    chunk = JobPlans(log).chunk(run(ada, image=scenario.image(ada, cells)), 0)
    failed, once = ChunkAnswers.failure_of_all(chunk, reason="worker_lost", detail="Lost."), command(SYSTEM, id=uuid4())
    assert [record_chunk_results(chunk, failed, command=once, log=log) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("end", [classifications.cancel, classifications.delete])
def test_results_of_an_ended_job_are_not_recorded(log, scenario, ada, cells, run, end):
    job = run(ada, image=scenario.image(ada, cells))
    chunk = JobPlans(log).chunk(job, 0)
    end(job, command=command(ada), log=log)
    assert JobPlans(log).has_ended(job)
    failed = ChunkAnswers.failure_of_all(chunk, reason="worker_lost", detail="Lost.")
    assert not record_chunk_results(chunk, failed, command=command(SYSTEM), log=log)


# ---- lists and filters ---------------------------------------------------------------------------------------------------------------
def test_a_list_is_recorded_with_the_dataset_of_its_images(log, scenario, ada, cells, run):
    images = [scenario.image(ada, cells) for _ in range(3)]
    job = load_job(log, run(ada, images=(images[2], images[0], images[2])), command(ada), Grant.VIEWER)
    assert (job.dataset_id, job.image_id, job.selected, job.phase) == (cells, None, (images[2], images[0]), JobStatus.PENDING)


def test_several_images_are_loaded_in_the_order_in_which_they_are_named(log, scenario, ada, cells):
    named = [scenario.image(ada, cells, filename=f"{number}.png") for number in range(3)][::-1]
    assert [image.filename for image in images.load_images(log, named, command(ada), Grant.VIEWER)] == ["2.png", "1.png", "0.png"]


def test_a_list_with_images_of_two_datasets_or_with_a_rejected_or_absent_one_is_refused(scenario, ada, cells, run):
    image, elsewhere, torn = scenario.image(ada, cells), scenario.image(ada, scenario.dataset(ada)), scenario.image(ada, cells)
    deleted, absent = scenario.image(ada, cells), uuid4()
    scenario.reject(torn)
    scenario.delete_image(ada, deleted)
    with pytest.raises(Invalid, match="one dataset"):
        run(ada, images=(image, elsewhere))
    with pytest.raises(Conflict, match=f"{torn} cannot be classified"):
        run(ada, images=(image, torn))
    for missing in (deleted, absent, cells):
        with pytest.raises(NotFound, match=str(missing)):
            run(ada, images=(image, missing))


def test_a_list_needs_a_grant_on_the_dataset_of_each_image(scenario, ada, cells, run):
    bob, eve = scenario.user(name="bob"), scenario.user(name="eve")
    image, other = scenario.image(ada, cells), scenario.image(bob, scenario.dataset(bob))
    scenario.share(ada, cells, eve, Grant.VIEWER)
    with pytest.raises(NotFound, match=str(image)):
        run(bob, images=(other, image))
    with pytest.raises(Forbidden):
        run(eve, images=(image,))


def test_a_filter_is_checked_against_the_labels_of_the_version_and_needs_a_dataset(log, scenario, ada, cells, run):
    job = load_job(log, run(ada, dataset=cells, where=ImageFilter(label="flat"), path="A*"), command(ada), Grant.VIEWER)
    assert (job.filter, job.path) == (ImageFilter(label="flat"), "A*")
    assert load_job(log, run(ada, dataset=cells, where=ImageFilter()), command(ada), Grant.VIEWER).filter is None
    with pytest.raises(Invalid, match="flat, round"):
        run(ada, dataset=cells, where=ImageFilter(label="square"))
    for covered in ({"image": scenario.image(ada, cells)}, {"images": (scenario.image(ada, cells),)}):
        with pytest.raises(Invalid, match="dataset_id"):
            run(ada, **covered, path="A*")


# ---- retries -------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def failed(scenario, ada, cells):
    """A job that failed for its image."""
    image = scenario.image(ada, cells)
    job = scenario.job(ada, image=image)
    scenario.judge(job, 0, (), [image])
    scenario.change(job, classification, lambda it: classification.complete(it, succeeded=0, failed=1, by=SYSTEM.id, at=NOW))
    return job


def test_a_retry_runs_the_version_of_the_earlier_job_though_another_is_in_production_now(log, scenario, ada, failed):
    scenario.model(sha256="cd" * 32)
    models.move_alias(name="shapes", alias="production", number=2, command=command(actor(Role.ADMIN)), log=log)
    retry = load_job(log, classifications.retry(failed, command=command(ada), log=log).id, command(ada), Grant.VIEWER)
    assert (retry.model_version, retry.retry_of, retry.images) == (1, failed, 1)


def test_a_retry_needs_what_a_run_needs(log, scenario, ada, cells, failed):
    viewer, stranger = scenario.user(Role.ANALYST, name="eve"), scenario.user(name="bob")
    scenario.share(ada, cells, viewer, Grant.VIEWER)
    with pytest.raises(Forbidden):
        scenario.retry(viewer, failed)
    with pytest.raises(NotFound):
        scenario.retry(stranger, failed)
    analyst = scenario.user(Role.ANALYST, name="kim")
    scenario.share(ada, cells, analyst, Grant.ANALYST)
    assert scenario.retry(analyst, failed)
    scenario.model(sha256="cd" * 32)
    models.move_alias(name="shapes", alias="production", number=2, command=command(actor(Role.ADMIN)), log=log)
    with pytest.raises(Forbidden, match="not in production"):
        scenario.retry(analyst, failed)
    models.retire(name="shapes", reason=None, command=command(actor(Role.ADMIN)), log=log)
    with pytest.raises(Invalid, match="retired"):
        scenario.retry(ada, failed)


def test_a_deleted_job_is_not_retried(scenario, ada, failed):
    scenario.delete_job(ada, failed)
    with pytest.raises(NotFound):
        scenario.retry(ada, failed)
