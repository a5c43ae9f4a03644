"""Classifications over HTTP: requested, watched, cancelled, deleted."""

import asyncio
from uuid import uuid4

import msgspec
import pytest

from tests.api.http_calls import assert_refused, dataset, events_of, id_of, image_in, run, share
from tests.api.worker_events import WorkerEvents
from tests.infrastructure.inference.test_input_check import record

pytestmark = pytest.mark.anyio

JOBS = "/api/classifications/"
CONTRACT = {"id", "dataset_id", "image_id", "model_name", "status", "created_by_id", "created_at", "updated_at"}
CHOSEN = {"planes", "listed", "filter", "external", "priority", "deadline", "top_k", "fresh", "retry_of", "threshold"}
PROGRESS = {"planned", "images", "succeeded", "failed", "reason", "started_at", "last_result_at", "rate", "remaining_seconds"}
OURS = {"model_id", "model_version", "model_sha256"} | CHOSEN | PROGRESS


@pytest.fixture
async def desk(api):
    """Somebody with a dataset of three images and a model to run."""
    workers = WorkerEvents(api)
    await workers.model()
    http = await api.client()
    cells = await dataset(http)
    return http, workers, cells, [await image_in(http, cells, filename=f"{number}.jpg") for number in range(3)]


# ---- asking ------------------------------------------------------------------------------------------------------------------------
async def test_a_run_is_pending_and_shown_as_the_contract_says(desk):
    http, _, cells, images = desk
    for query, image in (({"image_id": images[0]}, images[0]), ({"dataset_id": cells}, None)):
        answer = await http.post(f"{JOBS}run", json=query)
        assert (answer.status_code, set(answer.json()), answer.json()["status"]) == (201, {"id", "status"}, "pending")
        body = (await http.get(f"{JOBS}{answer.json()['id']}")).json()
        assert set(body) == CONTRACT | OURS | {"failures"}
        assert (body["dataset_id"], body["image_id"], body["model_name"]) == (None if image else cells, image, "shapes")
        assert (body["created_by_id"], body["threshold"], body["model_version"]) == (await id_of(http), 0.6, 1)
        assert body["created_at"].endswith("Z")


async def test_the_model_is_the_one_asked_for_or_the_default_or_the_first(api, desk):
    http, workers, cells, _ = desk

    async def chosen(**query):
        return (await http.get(JOBS + await run(http, dataset_id=cells, **query))).json()["model_name"]

    await workers.model("cells")
    assert await chosen() == "cells"
    await workers.model(api.options.default_model)
    assert await chosen() == await chosen(model_name=None) == api.options.default_model
    assert await chosen(model_name="shapes") == "shapes"


async def test_a_model_without_a_version_in_production_is_no_default_and_says_what_to_name(api, desk):
    http, workers, cells, _ = desk
    await workers.model("cells", alias="candidate", digest="cd" * 32)
    assert (await http.get(JOBS + await run(http, dataset_id=cells))).json()["model_name"] == "shapes"
    refused = await http.post(f"{JOBS}run", json={"dataset_id": cells, "model_name": "cells"})
    assert_refused(refused, 422, "invalid")
    assert "no version in production. Versions: 1. Aliases: candidate (version 1)" in refused.json()["detail"]
    assert refused.json()["errors"][0]["loc"] == ["body", "model_version"]


# ---- the version -------------------------------------------------------------------------------------------------------------------
async def test_a_job_names_its_version_by_number_or_alias(desk):
    http, workers, cells, images = desk
    await workers.model(sha256="cd" * 32, review_below=0.8)
    for wanted, number, threshold in (
        (None, 1, 0.6),
        ("production", 1, 0.6),
        ("1", 1, 0.6),
        ("2", 2, 0.8),
        (2, 2, 0.8),
        ("candidate", 2, 0.8),
    ):
        for query in ({"dataset_id": cells}, {"image_id": images[0]}):
            job = (await http.get(JOBS + await run(http, **query, model_version=wanted))).json()
            assert (job["model_version"], job["threshold"]) == (number, threshold)
    for wanted in ("3", "stable", "", "x" * 51, 3, 0, 2.5, True, ["2"]):
        refused = await http.post(f"{JOBS}run", json={"dataset_id": cells, "model_version": wanted})
        assert_refused(refused, 422, "invalid")
        assert refused.json()["errors"][0]["loc"] == ["body", "model_version"]


async def test_an_analyst_runs_what_is_in_production(api, desk):
    owner, workers, cells, images = desk
    await workers.model(sha256="cd" * 32)
    analyst = await api.client("analyst")
    await share(owner, cells, analyst, "analyst")
    assert await run(analyst, image_id=images[0], model_version="1")
    refused = await analyst.post(f"{JOBS}run", json={"image_id": images[0], "model_version": "candidate"})
    assert_refused(refused, 403, "forbidden")
    assert refused.json()["detail"] == "Version 2 of the model shapes is not in production. It needs the role researcher or higher"


# ---- the planes --------------------------------------------------------------------------------------------------------------------
@pytest.fixture
async def grey_model(desk):
    """A package whose model takes one channel of 32 x 32 pixels."""
    _, workers, _, _ = desk
    await workers.model("nuclei", package="cd" * 32, record=msgspec.json.encode(record(channels=["dapi"])).decode())
    return {"model_name": "nuclei"}


@pytest.mark.parametrize("planes", [{"z": "max"}, {"z": "mean", "c": [2]}, {"z": 3, "c": [0], "t": 1}, {"c": [1]}])
async def test_a_job_shows_the_planes_that_were_chosen(desk, grey_model, planes):
    http, _, cells, _ = desk
    job = await run(http, dataset_id=cells, planes=planes, **grey_model)
    assert (await http.get(JOBS + job)).json()["planes"] == planes
    assert [one["planes"] for one in (await http.get(JOBS)).json()] == [planes]


@pytest.mark.parametrize("planes", [None, {}, {"z": None, "c": None}])
async def test_a_job_without_a_choice_shows_none(desk, grey_model, planes):
    http, _, cells, _ = desk
    assert (await http.get(JOBS + await run(http, dataset_id=cells, planes=planes, **grey_model))).json()["planes"] is None


@pytest.mark.parametrize(
    ("planes", "field"),
    [
        ({"z": -1}, "z"),
        ({"z": "first"}, "z"),
        ({"z": 1.5}, "z"),
        ({"z": True}, "z"),
        ({"z": 10**30}, "z"),
        ({"t": "max"}, "t"),
        ({"t": -1}, "t"),
        ({"c": 0}, "c"),
        ({"c": []}, "c"),
        ({"c": [0, 0]}, "c"),
        ({"c": [-1]}, "c"),
        ({"c": ["red"]}, "c"),
        ({"c": list(range(17))}, "c"),
        ({"y": 0}, "y"),
    ],
)
async def test_planes_that_no_image_can_have_are_refused(desk, grey_model, planes, field):
    http, _, cells, _ = desk
    refused = await http.post(f"{JOBS}run", json={"dataset_id": cells, "planes": planes, **grey_model})
    assert_refused(refused, 422, "invalid")
    assert ".".join(refused.json()["errors"][0]["loc"]).startswith(f"body.planes.{field}")


async def test_an_image_that_does_not_fit_is_refused_with_what_is_expected_and_found(api, desk, grey_model):
    http, workers, cells, images = desk
    before = events_of(api, "ClassificationRequested")
    await workers.accept(images[0])
    refused = await http.post(f"{JOBS}run", json={"image_id": images[0], **grey_model})
    assert_refused(refused, 422, "input_mismatch")
    message = "The model takes 1 (dapi) channels, and the image has 3. Choose 1 of them with planes, such as c=0"
    assert refused.json()["detail"] == f"This does not fit version 1 of the model nuclei. {message}"
    assert refused.json()["errors"] == [
        {"loc": ["body", "image_id"], "msg": message, "axis": "channel", "expected": "1 (dapi)", "found": "3"}
    ]
    absent = await http.post(f"{JOBS}run", json={"image_id": images[0], "planes": {"c": [3]}, **grey_model})
    assert_refused(absent, 422, "input_mismatch")
    assert absent.json()["errors"][0]["loc"] == ["body", "planes", "c"]
    two = await http.post(f"{JOBS}run", json={"dataset_id": cells, "planes": {"c": [0, 1]}, **grey_model})
    assert_refused(two, 422, "input_mismatch")
    of_pictures = await http.post(f"{JOBS}run", json={"dataset_id": cells, "model_name": "shapes", "planes": {"c": [0, 1]}})
    assert_refused(of_pictures, 422, "input_mismatch")
    assert events_of(api, "ClassificationRequested") == before
    assert await run(http, image_id=images[0], planes={"c": [2]}, **grey_model)


async def test_of_a_pending_image_and_of_a_dataset_the_worker_finds_out(desk, grey_model):
    http, _, cells, images = desk
    assert await run(http, image_id=images[0], **grey_model)
    assert await run(http, dataset_id=cells, **grey_model)


async def test_the_same_key_with_other_planes_is_another_request(desk, grey_model):
    http, _, cells, _ = desk
    key = {"Idempotency-Key": "once"}
    first = {"dataset_id": cells, "planes": {"c": [1]}, **grey_model}
    answers = [await http.post(f"{JOBS}run", json=first, headers=key) for _ in range(2)]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert_refused(await http.post(f"{JOBS}run", json=first | {"planes": {"c": [0]}}, headers=key), 422, "idempotency_key_reused")


async def test_a_threshold_of_ones_own_is_kept(desk):
    http, _, cells, _ = desk
    for threshold in (0, 1, 0.25):
        job = await run(http, dataset_id=cells, threshold=threshold)
        assert (await http.get(JOBS + job)).json()["threshold"] == threshold


async def test_what_cannot_be_run_is_refused_with_a_sentence(api, desk):
    http, workers, cells, images = desk
    before = events_of(api, "ClassificationRequested")
    torn = await image_in(http, cells)
    await workers.reject(torn)
    wrong = [
        ({}, 422),
        ({"image_id": images[0], "dataset_id": cells}, 422),
        ({"image_id": None, "dataset_id": None}, 422),
        ({"image_id": "x"}, 422),
        ({"dataset_id": cells, "threshold": 1.1}, 422),
        ({"dataset_id": cells, "threshold": -0.1}, 422),
        ({"dataset_id": cells, "threshold": "high"}, 422),
        ({"dataset_id": cells, "model_name": ""}, 422),
        ({"dataset_id": cells, "model_name": "x" * 300}, 422),
        ({"dataset_id": cells, "priority": 9}, 422),
        ({"dataset_id": str(uuid4())}, 404),
        ({"image_id": str(uuid4())}, 404),
        ({"dataset_id": images[0]}, 404),
        ({"image_id": torn}, 409),
    ]
    for body, status in wrong:
        assert_refused(await http.post(f"{JOBS}run", json=body), status), body
    unknown = await http.post(f"{JOBS}run", json={"dataset_id": cells, "model_name": "nothing"})
    assert_refused(unknown, 422, "invalid")
    assert "shapes" in unknown.json()["detail"]
    assert unknown.json()["errors"][0]["loc"] == ["body", "model_name"]
    assert events_of(api, "ClassificationRequested") == before


async def test_without_any_model_the_answer_says_so(api):
    http = await api.client()
    answer = await http.post(f"{JOBS}run", json={"dataset_id": await dataset(http)})
    assert_refused(answer, 422)
    assert "none yet" in answer.json()["detail"]


async def test_the_same_key_in_parallel_asks_once(api, desk):
    http, _, cells, _ = desk
    key = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(http.post(f"{JOBS}run", json={"dataset_id": cells}, headers=key) for _ in range(10)))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    assert events_of(api, "ClassificationRequested") == 1
    assert_refused(await http.post(f"{JOBS}run", json={"dataset_id": cells, "threshold": 0.1}, headers=key), 422)


# ---- watching ----------------------------------------------------------------------------------------------------------------------
async def test_a_job_is_watched_to_its_end_with_what_it_could_not_do(desk):
    http, workers, cells, images = desk
    job = await run(http, dataset_id=cells)
    await workers.plan(job, images)
    body = (await http.get(JOBS + job)).json()
    assert (body["status"], body["images"], body["succeeded"], body["failed"], body["failures"]) == ("running", 3, 0, 0, [])
    await workers.judge(job, images[:2], images[2:])
    await workers.complete(job, succeeded=2, failed=1)
    body = (await http.get(JOBS + job)).json()
    assert (body["status"], body["succeeded"], body["failed"]) == ("completed", 2, 1)
    assert [(one["image_id"], one["reason"], one["detail"]) for one in body["failures"]] == [(images[2], "damaged_image", "It is torn.")]
    listed = await http.get(f"{JOBS}{job}/failures")
    assert listed.json() == body["failures"]


async def test_failures_are_read_a_page_at_a_time(desk):
    http, workers, cells, images = desk
    job = await run(http, dataset_id=cells)
    await workers.plan(job, images)
    await workers.judge(job, (), images)
    observed, path = [], f"{JOBS}{job}/failures?page_size=2"
    while path:
        answer = await http.get(path)
        observed += [one["image_id"] for one in answer.json()]
        path = answer.links.get("next", {}).get("url")
    assert sorted(observed) == sorted(images)


async def test_a_list_is_narrowed_by_each_filter_newest_first(desk):
    http, _, cells, images = desk
    other = await dataset(http, "other")
    first, second = await run(http, image_id=images[0]), await run(http, dataset_id=cells)
    third = await run(http, dataset_id=other)
    await http.post(f"{JOBS}{third}/cancel")
    expected_value = [
        ({}, [third, second, first]),
        ({"status_filter": "pending"}, [second]),
        ({"status_filter": "running"}, [first]),
        ({"status_filter": "cancelled"}, [third]),
        ({"status_filter": "failed"}, []),
        ({"dataset_id": cells}, [second, first]),
        ({"dataset_id": str(uuid4())}, []),
        ({"image_id": images[0]}, [first]),
        ({"created_by": await id_of(http)}, [third, second, first]),
        ({"created_by": str(uuid4())}, []),
        ({"created_by": str(uuid4()), "mine": True}, [third, second, first]),
        ({"dataset_id": cells, "image_id": images[1]}, []),
        ({"page_size": 2}, [third, second]),
    ]
    for query, expected in expected_value:
        for path in (JOBS, JOBS.rstrip("/")):
            assert [job["id"] for job in (await http.get(path, params=query)).json()] == expected, query
    page = await http.get(JOBS, params={"page_size": 2})
    assert [job["id"] for job in (await http.get(page.links["next"]["url"])).json()] == [first]
    for query in ({"status_filter": "ready"}, {"dataset_id": "x"}, {"page_size": 0}, {"page_size": 201}, {"cursor": "x"}):
        assert_refused(await http.get(JOBS, params=query), 422), query


# ---- ending ------------------------------------------------------------------------------------------------------------------------
async def test_a_job_is_cancelled_once_and_stays_readable(desk):
    http, workers, cells, images = desk
    job = await run(http, dataset_id=cells)
    await workers.plan(job, images)
    answer = await http.post(f"{JOBS}{job}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert "etag" in answer.headers
    assert (await http.get(JOBS + job)).json()["status"] == "cancelled"
    assert_refused(await http.post(f"{JOBS}{await run(http, dataset_id=cells)}/cancel", headers={"If-Match": '"9"'}), 412)


async def test_a_deleted_job_takes_its_results_with_it(desk):
    http, workers, _, images = desk
    job = await run(http, image_id=images[0])
    await workers.judge(job, images[:1])
    assert len((await http.get("/api/classification-results/")).json()) == 1
    assert (await http.delete(JOBS + job)).status_code == 204
    assert (await http.get("/api/classification-results/")).json() == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/failures")):
        assert_refused(await http.request(method, JOBS + job + path), 404)


# ---- whose it is -------------------------------------------------------------------------------------------------------------------
async def test_a_foreign_job_looks_like_one_that_is_not_there(api, desk):
    owner, workers, cells, images = desk
    job, stranger = await run(owner, image_id=images[0]), await api.client()
    await workers.judge(job, (), images[:1])
    for method, path in (("GET", ""), ("GET", "/failures"), ("POST", "/cancel"), ("DELETE", "")):
        foreign = await stranger.request(method, JOBS + job + path)
        absent = await stranger.request(method, JOBS + str(uuid4()) + path)
        assert_refused(foreign, 404, "not_found")
        assert foreign.json() | {"instance": ""} == absent.json() | {"instance": ""}
    assert (await stranger.get(JOBS)).json() == []
    for query in ({"image_id": images[0]}, {"dataset_id": cells}):
        assert_refused(await stranger.post(f"{JOBS}run", json=query), 404)


async def test_a_viewer_watches_and_an_analyst_runs_and_cancels(api, desk):
    owner, _, cells, images = desk
    viewer, analyst = await api.client("viewer"), await api.client("analyst")
    await share(owner, cells, viewer)
    await share(owner, cells, analyst, "analyst")
    job = await run(analyst, image_id=images[0])
    assert [one["id"] for one in (await viewer.get(JOBS)).json()] == [job]
    for method, path in (("POST", f"{job}/cancel"), ("DELETE", job)):
        assert_refused(await viewer.request(method, JOBS + path), 403)
    assert_refused(await viewer.post(f"{JOBS}run", json={"image_id": images[0]}), 403)
    assert (await analyst.post(f"{JOBS}{job}/cancel")).status_code == 200
    assert (await analyst.delete(JOBS + job)).status_code == 204, "it created the job"
