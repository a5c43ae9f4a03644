"""The record, read over HTTP."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def told(laboratory):
    """A dataset that was described and shared, and how far the log was after each."""
    ada = await laboratory.client("researcher")
    created = await ada.post("/api/datasets", json={"name": "cells"})
    dataset = created.json()["id"]
    described = await ada.patch(f"/api/datasets/{dataset}", json={"name": "better cells"})
    bob = (await (await laboratory.client("analyst")).get("/api/users/me")).json()["id"]
    shared = await ada.put(f"/api/datasets/{dataset}/shares/{bob}", json={"grant": "viewer"})
    return ada, dataset, [int(answer.headers["x-event-position"]) for answer in (created, described, shared)]


async def test_a_trail_tells_everything_in_order(laboratory, told):
    _, dataset, positions = told
    admin = await laboratory.client("admin")
    trail = (await admin.get(f"/api/audit/{dataset}/trail")).json()
    assert [entry["type"] for entry in trail] == ["DatasetCreated", "DatasetDescribed", "DatasetShared"]
    assert [entry["position"] for entry in trail] == positions
    assert [entry["version"] for entry in trail] == [1, 2, 3]
    assert trail[0]["data"]["name"] == "cells"
    assert trail[0]["actor"]["kind"] == "user"
    assert "originator_id" not in trail[0]["data"]


async def test_a_long_trail_comes_in_pages(laboratory, told):
    _, dataset, positions = told
    admin = await laboratory.client("admin")
    first = await admin.get(f"/api/audit/{dataset}/trail", params={"limit": 2})
    assert len(first.json()) == 2
    assert first.headers["x-next-cursor"] == str(positions[1])
    rest = await admin.get(f"/api/audit/{dataset}/trail", params={"after": first.headers["x-next-cursor"]})
    assert [entry["position"] for entry in rest.json()] == positions[2:]
    assert "x-next-cursor" not in rest.headers


async def test_a_thing_is_shown_as_it_stood(laboratory, told):
    _, dataset, positions = told
    admin = await laboratory.client("admin")
    names = []
    for as_of in (positions[0], positions[1], None, datetime.now(UTC).isoformat()):
        asked = {} if as_of is None else {"as_of": as_of}
        names.append((await admin.get(f"/api/audit/{dataset}/state", params=asked)).json()["name"])
    assert names == ["cells", "better cells", "better cells", "better cells"]
    before = await admin.get(f"/api/audit/{dataset}/state", params={"as_of": "2001-01-01T00:00:00Z"})
    assert before.status_code == 404
    wrong = await admin.get(f"/api/audit/{dataset}/state", params={"as_of": "yesterday"})
    assert (wrong.status_code, wrong.json()["errors"][0]["loc"]) == (422, ["query", "as_of"])


@pytest.mark.parametrize("what", ["trail", "state"])
async def test_the_record_is_for_administrators_and_knows_what_it_does_not_know(laboratory, told, what):
    ada, dataset, _ = told
    assert (await ada.get(f"/api/audit/{dataset}/{what}")).status_code == 403
    assert (await laboratory.anonymous().get(f"/api/audit/{dataset}/{what}")).status_code == 401
    admin = await laboratory.client("admin")
    assert (await admin.get(f"/api/audit/{uuid4()}/{what}")).status_code == 404
