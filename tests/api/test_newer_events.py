"""An API of an older release, over events that a newer release wrote."""

import pytest

from domain.events import SEALED_PREFIX
from infrastructure.eventstore.state_cache import StateCache
from tests.chaos.workload import PICTURES
from tests.older_release import at_version, without

pytestmark = pytest.mark.anyio


@pytest.fixture
async def described(api):
    """An administrator, and a dataset of theirs whose second event an older release does not know."""
    admin = await api.client("admin")
    dataset = (await admin.post("/api/datasets", json={"name": "cells"})).json()["id"]
    answer = await admin.patch(f"/api/datasets/{dataset}", json={"name": "better cells"})
    assert answer.status_code == 200
    api.services.log._states = StateCache()
    return admin, dataset, int(answer.headers["x-event-position"])


@pytest.mark.parametrize("sealed", [False, True])
async def test_the_feed_gives_an_unknown_event_as_it_is_stored_and_the_others_as_ever(api, described, sealed):
    admin, dataset, position = described
    with without("DatasetDescribed"):
        answer = await admin.get("/api/events", params={"after": position - 2, "sealed": sealed})
    assert answer.status_code == 200
    created, unknown, *_ = answer.json()["events"]
    assert (created["type"], unknown["type"], unknown["schema_version"]) == ("DatasetCreated", "DatasetDescribed", 1)
    assert (unknown["position"], unknown["stream"], unknown["version"]) == (position, dataset, 2)
    assert unknown["data"]["name"].startswith(SEALED_PREFIX)
    assert created["data"]["name"].startswith(SEALED_PREFIX) == sealed


async def test_the_feed_gives_an_unknown_schema_version_as_it_is_stored(api):
    admin = await api.client("admin")
    about = {"name": "scope", "hostname": "scope-1", "location": "Room 1", "firmware_version": "1.0"}
    answer = await admin.post("/api/devices", json=about)
    with at_version("DeviceRegistered", 1):
        (event,) = (await admin.get("/api/events", params={"after": int(answer.headers["x-event-position"]) - 1})).json()["events"]
    assert event["schema_version"] == 2
    assert event["data"]["hostname"].startswith(SEALED_PREFIX)


async def test_a_trail_gives_an_unknown_event_as_it_is_stored(api, described):
    admin, dataset, position = described
    with without("DatasetDescribed"):
        trail = (await admin.get(f"/api/audit/{dataset}/trail")).json()
    assert [entry["type"] for entry in trail][:2] == ["DatasetCreated", "DatasetDescribed"]
    assert trail[0]["data"]["name"] == "cells"
    assert trail[1]["position"] == position
    assert trail[1]["data"]["name"].startswith(SEALED_PREFIX)
    assert trail[1]["at"]


async def test_where_an_unknown_event_would_have_to_be_folded_the_answer_says_so(api, described):
    admin, dataset, _ = described
    with without("DatasetDescribed"):
        refused = [
            await admin.post("/api/images/upload", data={"dataset_id": dataset}, files={"file": ("cell.png", PICTURES[0].read_bytes())}),
            await admin.delete(f"/api/datasets/{dataset}"),
            await admin.get(f"/api/audit/{dataset}/state"),
        ]
        read = await admin.get(f"/api/datasets/{dataset}")
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (503, "upgrade_needed")
        assert "holds DatasetDescribed version 1, which a newer release wrote; upgrade this process" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert (read.status_code, read.json()["name"]) == (200, "better cells")
    assert (await admin.patch(f"/api/datasets/{dataset}", json={"name": "best cells"})).status_code == 200


async def test_a_thing_that_begins_with_an_unknown_event_has_no_state_here(api, described):
    admin, dataset, _ = described
    with without("DatasetCreated"):
        answer = await admin.get(f"/api/audit/{dataset}/state")
        trail = await admin.get(f"/api/audit/{dataset}/trail")
    assert (answer.status_code, answer.json()["code"]) == (503, "upgrade_needed")
    assert [entry["type"] for entry in trail.json()] == ["DatasetCreated", "DatasetDescribed"]


async def test_a_newer_version_of_an_event_that_names_things_leaves_them_their_earlier_names(api, described):
    admin, dataset, _ = described
    await admin.delete(f"/api/datasets/{dataset}")
    with at_version("DatasetDescribed", 0):
        answer = await admin.get(f"/api/audit/{dataset}/trail")
    assert answer.status_code == 200
    assert answer.json()[2]["sentence"].endswith(" deleted the dataset cells")
