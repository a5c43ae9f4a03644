"""Models over HTTP."""

import pytest

from tests.api.http_calls import assert_refused
from tests.api.worker_events import LABELS, SHA256, WorkerEvents

pytestmark = pytest.mark.anyio


async def test_models_are_listed_by_name_with_what_is_in_production(api):
    workers = WorkerEvents(api)
    for name in ("shapes", "cells", "shapes"):
        await workers.model(name)
    http = await api.client("viewer")
    listed = (await http.get("/api/models/")).json()
    assert [model["name"] for model in listed] == ["cells", "shapes"]
    shapes = listed[1]
    assert (shapes["labels"], shapes["review_below"], shapes["sha256"]) == (list(LABELS), 0.6, SHA256)
    assert shapes["aliases"] == {"production": shapes["production"]} == {"production": 1}
    assert [version["number"] for version in shapes["versions"]] == [1]
    by_name, by_id = await http.get("/api/models/shapes"), await http.get(f"/api/models/{shapes['id']}")
    assert by_name.json() == by_id.json() == shapes
    assert by_name.headers["etag"] == by_id.headers["etag"]


async def test_a_candidate_is_shown_beside_the_version_in_production(api):
    workers = WorkerEvents(api)
    for sha256 in (SHA256, "cd" * 32):
        await workers.model("shapes", sha256=sha256)
    http = await api.client("viewer")
    shapes = (await http.get("/api/models/shapes")).json()
    assert [version["sha256"] for version in shapes["versions"]] == [SHA256, "cd" * 32]
    assert shapes["aliases"] == {"production": 1, "candidate": 2}
    assert (shapes["production"], shapes["sha256"]) == (1, SHA256)


async def test_a_model_that_is_not_there_is_not_found(api):
    http = await api.client("viewer")
    assert (await http.get("/api/models")).json() == []
    for name in ("nothing", "7a6f3a8b-7231-4b93-a450-5cccfcaa22f1", "x" * 300, "' or 1=1 --"):
        assert_refused(await http.get(f"/api/models/{name}"), 404, "not_found")
    assert_refused(await api.anonymous().get("/api/models"), 401)
