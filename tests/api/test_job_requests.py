"""Jobs over lists and filters, with options, and jobs that retry others."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.api.http_calls import assert_refused, dataset, events_of, image_in, run, share
from tests.api.test_classifications import JOBS, desk
from tests.api.worker_events import now

__all__ = ["desk"]

pytestmark = pytest.mark.anyio


async def one(http, job):
    return (await http.get(JOBS + job)).json()


def in_future(**passed):
    return (datetime.now(UTC) + timedelta(**passed)).isoformat()


# ---- lists -------------------------------------------------------------------------------------------------------------------------
async def test_a_list_of_images_of_one_dataset_is_run_and_shown_as_a_number(desk):
    http, _, cells, images = desk
    body = await one(http, await run(http, image_ids=[images[0], images[2], images[0]]))
    assert (body["dataset_id"], body["image_id"], body["listed"], body["filter"]) == (cells, None, 2, None)
    (listed,) = (await http.get(JOBS)).json()
    assert listed == {name: value for name, value in body.items() if name != "failures"}


async def test_a_list_is_refused_unless_all_its_images_can_be_run_together(api, desk):
    http, workers, _, images = desk
    elsewhere, stranger = await image_in(http, await dataset(http)), await api.client()
    foreign, torn = await image_in(stranger, await dataset(stranger)), await image_in(http, desk[2])
    await workers.reject(torn)
    before = events_of(api, "ClassificationRequested")
    for ids, status, named in (
        ([], 422, ""),
        ([str(uuid4()) for _ in range(1001)], 422, ""),
        ([images[0], "x"], 422, ""),
        ([images[0], elsewhere], 422, "one dataset"),
        ([images[0], absent := str(uuid4())], 404, absent),
        ([images[0], foreign], 404, foreign),
        ([images[0], torn], 409, torn),
    ):
        answer = await http.post(f"{JOBS}run", json={"image_ids": ids})
        assert_refused(answer, status)
        assert named in answer.json()["detail"]
    assert events_of(api, "ClassificationRequested") == before


async def test_a_viewer_may_not_run_a_list_and_the_absent_look_like_the_foreign(api, desk):
    owner, _, cells, images = desk
    viewer, stranger = await api.client("analyst"), await api.client()
    await share(owner, cells, viewer)
    assert_refused(await viewer.post(f"{JOBS}run", json={"image_ids": images}), 403)
    foreign, absent = images[0], str(uuid4())
    answers = [await stranger.post(f"{JOBS}run", json={"image_ids": [one]}) for one in (foreign, absent)]
    assert [answer.json()["detail"] for answer in answers] == [f"Image {foreign} not found", f"Image {absent} not found"]


# ---- filters -----------------------------------------------------------------------------------------------------------------------
async def test_a_filter_is_shown_as_it_was_sent(desk):
    http, _, cells, _ = desk
    asked = {"path": "A?/*.tif", "uploaded_from": "2026-03-01T00:00:00Z", "verdict": "needs_review", "label": "round"}
    body = await one(http, await run(http, dataset_id=cells, filter=asked))
    nothing = {"uploaded_before": None, "device_id": None, "without_result": False}
    assert (body["dataset_id"], body["filter"]) == (cells, asked | nothing)


async def test_the_path_of_a_filter_is_private_in_the_log(api, desk):
    http, _, cells, _ = desk
    job = await run(http, dataset_id=cells, filter={"path": "Byron*"})
    (requested,) = (one for one in api.services.log.read(0, 1000) if str(one.stream) == job)
    assert b"Byron" not in requested.data
    assert (await one(http, job))["filter"]["path"] == "Byron*"


@pytest.mark.parametrize(
    ("asked", "loc"),
    [
        ({"label": "unknown"}, ["body", "filter", "label"]),
        ({"verdict": "fine"}, None),
        ({"path": ""}, None),
        ({"path": "x" * 513}, None),
        ({"path": "a\x01b"}, ["body", "filter", "path"]),
        ({"uploaded_from": "2026-03-01T00:00:00"}, None),
        ({"uploaded_from": "2026-03-02T00:00:00Z", "uploaded_before": "2026-03-01T00:00:00Z"}, ["body", "filter", "uploaded_before"]),
        ({"without_result": True, "label": "round"}, ["body", "filter", "without_result"]),
        ({"colour": "red"}, None),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(desk, asked, loc):
    http, _, cells, _ = desk
    answer = await http.post(f"{JOBS}run", json={"dataset_id": cells, "filter": asked})
    assert_refused(answer, 422)
    assert loc is None or answer.json()["errors"][0]["loc"] == loc


async def test_a_filter_needs_a_dataset(desk):
    http, _, _, images = desk
    for covered in ({"image_id": images[0]}, {"image_ids": images}):
        assert_refused(await http.post(f"{JOBS}run", json=covered | {"filter": {"path": "*"}}), 422)


# ---- options -----------------------------------------------------------------------------------------------------------------------
async def test_options_are_kept_and_shown(desk):
    http, _, cells, _ = desk
    asked = {"priority": "high", "deadline": in_future(hours=1), "top_k": 2, "fresh": True}
    body = await one(http, await run(http, dataset_id=cells, **asked))
    assert datetime.fromisoformat(body["deadline"]) == datetime.fromisoformat(asked["deadline"])
    assert {name: body[name] for name in ("priority", "top_k", "fresh")} == {"priority": "high", "top_k": 2, "fresh": True}
    plain = await one(http, await run(http, dataset_id=cells))
    assert [plain[name] for name in ("priority", "deadline", "top_k", "fresh", "retry_of")] == ["normal", None, None, False, None]


@pytest.mark.parametrize(
    "asked",
    [
        {"priority": "urgent"},
        {"deadline": "2020-01-01T00:00:00Z"},
        {"deadline": in_future(days=31)},
        {"deadline": in_future(hours=1)[:19]},
        {"top_k": 0},
        {"top_k": 1001},
        {"top_k": 1.5},
        {"fresh": "yes"},
    ],
)
async def test_options_out_of_bounds_are_refused(desk, asked):
    http, _, cells, _ = desk
    assert_refused(await http.post(f"{JOBS}run", json={"dataset_id": cells, **asked}), 422)


async def test_the_name_of_a_model_may_name_its_version_too(desk):
    http, workers, cells, _ = desk
    await workers.model(sha256="cd" * 32, review_below=0.8)
    for name, number in (("shapes", 1), ("shapes@1", 1), ("shapes@2", 2), ("shapes@candidate", 2), ("shapes@production", 1)):
        assert (await one(http, await run(http, dataset_id=cells, model_name=name)))["model_version"] == number
    for wrong in (
        {"model_name": "shapes@"},
        {"model_name": "shapes@9"},
        {"model_name": "shapes@2", "model_version": 2},
        {"model_name": "@2"},
    ):
        assert_refused(await http.post(f"{JOBS}run", json={"dataset_id": cells, **wrong}), 422)


# ---- retries -----------------------------------------------------------------------------------------------------------------------
async def test_a_retry_is_a_new_job_like_the_one_that_left_images_without_a_result(desk):
    http, workers, cells, images = desk
    job = await run(http, dataset_id=cells, threshold=0.25, priority="low", top_k=1, deadline=in_future(hours=1))
    await workers.plan(job, images)
    assert_refused(await http.post(f"{JOBS}{job}/retry"), 409)
    await workers.judge(job, images[:2], images[2:])
    await workers.complete(job, succeeded=2, failed=1)
    answer = await http.post(f"{JOBS}{job}/retry", headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()) == (201, {"id": answer.json()["id"], "status": "pending", "retry_of": job})
    assert (await http.post(f"{JOBS}{job}/retry", headers={"Idempotency-Key": "once"})).json() == answer.json()
    retry, first = await one(http, answer.json()["id"]), await one(http, job)
    assert (retry["retry_of"], retry["status"], retry["deadline"]) == (job, "pending", None)
    same = ("dataset_id", "model_id", "model_version", "model_sha256", "threshold", "planes", "priority", "top_k", "fresh")
    assert [retry[name] for name in same] == [first[name] for name in same]


async def test_a_job_with_a_result_for_every_image_is_not_retried(desk):
    http, workers, _, images = desk
    job = await run(http, image_id=images[0])
    await workers.judge(job, images[:1])
    await workers.complete(job, succeeded=1)
    answer = await http.post(f"{JOBS}{job}/retry")
    assert_refused(answer, 409)
    assert "has a result" in answer.json()["detail"]


async def test_a_retried_job_over_one_image_is_one_again(desk):
    http, workers, _, images = desk
    job = await run(http, image_id=images[0])
    await workers.judge(job, (), images[:1])
    await workers.complete(job, succeeded=0, failed=1)
    retry = await one(http, (await http.post(f"{JOBS}{job}/retry")).json()["id"])
    assert (retry["dataset_id"], retry["image_id"], retry["retry_of"], retry["status"]) == (None, images[0], job, "running")
    assert (await http.delete(f"/api/images/{images[0]}")).status_code == 204
    assert_refused(await http.post(f"{JOBS}{job}/retry"), 404)


# ---- progress ----------------------------------------------------------------------------------------------------------------------
async def test_a_running_job_shows_its_rate_and_how_long_it_still_takes(desk):
    http, workers, cells, images = desk
    job = await run(http, dataset_id=cells)
    body = await one(http, job)
    assert (body["rate"], body["remaining_seconds"], body["started_at"], body["last_result_at"]) == (None, None, None, None)
    await workers.plan(job, images)
    body = await one(http, job)
    assert (body["rate"], body["remaining_seconds"]) == (0.0, None)
    await workers.judge(job, images[:2], at=now())
    body = await one(http, job)
    assert 0 < body["rate"] <= 2
    assert body["remaining_seconds"] == pytest.approx(1 / body["rate"], abs=0.1)
    await workers.complete(job, succeeded=2)
    body = await one(http, job)
    assert body["rate"] > 0
    assert body["remaining_seconds"] is None
    assert body["started_at"] <= body["last_result_at"]
