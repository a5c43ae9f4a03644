"""The audit trail and earlier states over HTTP."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from tests.rigs.scenario import Scenario

pytestmark = pytest.mark.anyio


@pytest.fixture
async def described_dataset(api):
    """A dataset that was described and shared, and how far the log was after each."""
    ada = await api.client("researcher")
    created = await ada.post("/api/datasets", json={"name": "cells"})
    dataset = created.json()["id"]
    described = await ada.patch(f"/api/datasets/{dataset}", json={"name": "better cells"})
    bob = (await (await api.client("analyst")).get("/api/users/me")).json()["id"]
    shared = await ada.put(f"/api/datasets/{dataset}/shares/{bob}", json={"grant": "viewer"})
    return ada, dataset, [int(answer.headers["x-event-position"]) for answer in (created, described, shared)]


async def test_a_trail_has_every_event_in_order(api, described_dataset):
    _, dataset, positions = described_dataset
    admin = await api.client("admin")
    trail = (await admin.get(f"/api/audit/{dataset}/trail")).json()
    assert [entry["type"] for entry in trail] == ["DatasetCreated", "DatasetDescribed", "DatasetShared"]
    assert [entry["position"] for entry in trail] == positions
    assert [entry["version"] for entry in trail] == [1, 2, 3]
    assert trail[0]["data"]["name"] == "cells"
    assert trail[0]["actor"]["kind"] == "user"
    assert [entry["sentence"] for entry in trail] == [
        "Ada Byron created the dataset better cells",
        "Ada Byron changed the dataset better cells: name",
        "Ada Byron shared the dataset better cells with Ada Byron as viewer",
    ]
    assert "originator_id" not in trail[0]["data"]


async def test_a_long_trail_comes_in_pages(api, described_dataset):
    _, dataset, positions = described_dataset
    admin = await api.client("admin")
    first = await admin.get(f"/api/audit/{dataset}/trail", params={"limit": 2})
    assert len(first.json()) == 2
    assert first.headers["x-next-cursor"] == str(positions[1])
    others = await admin.get(f"/api/audit/{dataset}/trail", params={"after": first.headers["x-next-cursor"]})
    assert [entry["position"] for entry in others.json()] == positions[2:]
    assert "x-next-cursor" not in others.headers


async def test_a_thing_is_shown_as_it_stood(api, described_dataset):
    _, dataset, positions = described_dataset
    admin = await api.client("admin")
    names = []
    for as_of in (positions[0], positions[1], None, datetime.now(UTC).isoformat()):
        query = {} if as_of is None else {"as_of": as_of}
        names.append((await admin.get(f"/api/audit/{dataset}/state", params=query)).json()["name"])
    assert names == ["cells", "better cells", "better cells", "better cells"]
    before = await admin.get(f"/api/audit/{dataset}/state", params={"as_of": "2001-01-01T00:00:00Z"})
    assert before.status_code == 404
    wrong = await admin.get(f"/api/audit/{dataset}/state", params={"as_of": "yesterday"})
    assert (wrong.status_code, wrong.json()["errors"][0]["loc"]) == (422, ["query", "as_of"])


MEANINGLESS = {
    "2001-01-01T00:00:00Z": (404, "Nothing had been recorded"),
    "2026-03-01T12:00:00": (422, "has no time zone"),
    "2999-01-01T00:00:00Z": (422, "in the future"),
    "-4": (422, "must be a time with a time zone"),
    "0": (422, "from 1 on"),
    "999999999": (422, "beyond the end of the log"),
}


async def test_a_moment_that_means_nothing_is_answered_with_a_sentence(api, described_dataset):
    _, dataset, _ = described_dataset
    admin = await api.client("admin")
    for what in ("state", "images", "results"):
        for as_of, (status, words) in MEANINGLESS.items():
            answer = await admin.get(f"/api/audit/{dataset}/{what}", params={"as_of": as_of})
            assert (answer.status_code, answer.json()["code"]) == (status, "not_found" if status == 404 else "invalid")
            assert words in answer.json()["detail"]


@pytest.fixture
def past(api):
    """A dataset with two images that were judged; then one is deleted. The dataset, the job, the images, and positions."""
    scenario = Scenario(api.services.log, None)
    ada = scenario.user()
    cells = scenario.dataset(ada)
    kept, lost = scenario.image(ada, cells, "kept.png"), scenario.image(ada, cells, "lost.png")
    for one in (kept, lost):
        scenario.accept(one)
    uploaded = scenario.log.head()
    scenario.model()
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, [kept, lost])
    scenario.judge(job, 0, [kept, lost])
    judged = scenario.log.head()
    scenario.delete_image(ada, lost)
    return cells, job, kept, lost, uploaded, judged


async def test_a_dataset_is_listed_as_it_stood_with_what_was_known_of_its_images(api, past):
    cells, job, kept, lost, uploaded, judged = past
    admin = await api.client("admin")

    async def listed(about, what, as_of):
        answer = await admin.get(f"/api/audit/{about}/{what}", params={"as_of": as_of} if as_of else {})
        assert answer.status_code == 200, answer.text
        assert not as_of or answer.headers["x-as-of-position"] == str(as_of)
        return answer.json()

    assert [one["filename"] for one in await listed(cells, "images", judged)] == ["kept.png", "lost.png"]
    assert [one["filename"] for one in await listed(cells, "images", None)] == ["kept.png"]
    assert [one["image_id"] for one in await listed(job, "results", judged)] == [str(kept), str(lost)]
    assert [one["image_id"] for one in await listed(job, "results", None)] == [str(kept)]
    assert await listed(kept, "results", uploaded) == []
    (result,) = await listed(kept, "results", judged)
    assert (result["label"], result["position"], result["outdated"]) == ("round", judged, False)
    for about, what in ((cells, "results"), (kept, "images"), (lost, "results"), (uuid4(), "images")):
        assert (await admin.get(f"/api/audit/{about}/{what}")).status_code == 404


async def test_a_long_list_of_images_comes_in_pages_of_uploads(api, past):
    cells, _, _, _, _, judged = past
    admin = await api.client("admin")
    first = await admin.get(f"/api/audit/{cells}/images", params={"as_of": judged, "limit": 1})
    assert [one["filename"] for one in first.json()] == ["kept.png"]
    others = await admin.get(f"/api/audit/{cells}/images", params={"as_of": judged, "after": first.headers["x-next-cursor"]})
    assert [one["filename"] for one in others.json()] == ["lost.png"]
    assert "x-next-cursor" not in others.headers


async def test_lists_that_show_what_is_there_now_say_so(api):
    admin = await api.client("admin")
    for path in ("images", "datasets", "classification-results", "classifications", "devices"):
        assert (await admin.get(f"/api/{path}")).status_code == 200
        answer = await admin.get(f"/api/{path}", params={"as_of": "2026-03-01T12:00:00Z"})
        assert (answer.status_code, answer.json()["code"]) == (422, "as_of_not_available")
        assert "/api/audit/" in answer.json()["detail"]


async def test_no_route_passes_over_a_moment_that_it_does_not_know(api, described_dataset):
    ada, dataset, _ = described_dataset
    admin = await api.client("admin")
    query = {"as_of": "2026-03-01T12:00:00Z"}
    for client, path in ((admin, f"audit/{dataset}/trail"), (admin, "events"), (ada, f"datasets/{dataset}"), (ada, "users/me")):
        assert (await client.get(f"/api/{path}")).status_code == 200
        assert (await client.get(f"/api/{path}", params=query)).json()["code"] == "as_of_not_available", path
    changed = await ada.post("/api/datasets", params=query, json={"name": "of then"})
    assert (changed.status_code, changed.json()["code"]) == (422, "as_of_not_available")


@pytest.mark.parametrize("what", ["trail", "state", "images", "results"])
async def test_the_record_is_for_administrators_and_knows_what_it_does_not_know(api, described_dataset, what):
    ada, dataset, _ = described_dataset
    assert (await ada.get(f"/api/audit/{dataset}/{what}")).status_code == 403
    assert (await api.anonymous().get(f"/api/audit/{dataset}/{what}")).status_code == 401
    admin = await api.client("admin")
    assert (await admin.get(f"/api/audit/{uuid4()}/{what}")).status_code == 404
