"""Jobs: requested, cancelled, deleted; and the results of their chunks."""

from uuid import uuid4

import pytest

from application import classifications, datasets, images
from application.classifications import load_job
from application.jobs.chunk_results import ChunkAnswers, JobPlans, record_chunk_results
from domain.access import Grant, Role
from domain.classification import ChunkJudged, JobStatus
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.values import chunk_id
from tests.given import actor, command
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
    def run(by, *, dataset=None, image=None, model="shapes", threshold=None):
        about = {"dataset_id": dataset, "image_id": image, "model_name": model, "threshold": threshold, "known_models": ["shapes"]}
        return classifications.run(**about, command=command(by), log=log).id

    return run


def test_a_job_over_one_image_is_planned_at_once_and_one_over_a_dataset_later(log, scenario, ada, cells, run):
    single, whole = run(ada, image=scenario.image(ada, cells)), run(ada, dataset=cells)
    assert load_job(log, single, command(ada), Grant.VIEWER).phase is JobStatus.RUNNING
    assert load_job(log, whole, command(ada), Grant.VIEWER).phase is JobStatus.PENDING


def test_a_job_names_exactly_one_of_dataset_and_image(scenario, ada, cells, run):
    for both in ({}, {"dataset": cells, "image": scenario.image(ada, cells)}):
        with pytest.raises(Invalid, match="exactly one"):
            run(ada, **both)


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
