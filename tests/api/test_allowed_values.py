"""A value that is none of the allowed ones is answered with those, under the name that requests use."""

import pytest

from tests.api.http_calls import assert_refused, dataset
from tests.api.worker_events import WorkerEvents

pytestmark = pytest.mark.anyio
HOME = "74e02ed7-defc-5b5f-96eb-de056419e140"


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"priority": "urgent"}, ["priority"], "must be low, normal or high, not 'urgent'"),
        ({"filter": {"verdict": "good"}}, ["filter", "verdict"], "must be clear, needs_review or out_of_domain, not 'good'"),
        ({"planes": {"z": "first"}}, ["planes", "z"], "must be max, mean or a whole number, not 'first'"),
        ({"priority": "x" * 1000}, ["priority"], "must be low, normal or high"),
        ({"priority": "<b>"}, ["priority"], "must be low, normal or high"),
        ({"planes": {"c": [{}]}}, ["planes", "c[0]"], "Expected `int`, got `object`"),
    ],
)
async def test_a_field_of_a_body_lists_its_values(api, body, path, message):
    answer = await (await api.client()).post("/api/classifications/run", json={"dataset_id": HOME} | body)
    assert_refused(answer, 422, "invalid")
    assert answer.json()["errors"] == [{"loc": ["body", *path], "msg": message}]
    assert answer.json()["detail"] == f"{'.'.join(path)}: {message}"


@pytest.mark.parametrize(
    ("path", "source", "name", "message"),
    [
        ("/api/classification-results/?verdict=good", "query", "verdict", "must be clear, needs_review or out_of_domain, not 'good'"),
        ("/api/classification-results/export?format=xml", "query", "format", "must be csv or json, not 'xml'"),
        ("/api/classification-results/?versions=old", "query", "versions", "must be newest or all, not 'old'"),
        ("/api/policies?scope=image", "query", "scope", "must be job, dataset or model, not 'image'"),
        (f"/api/policies/image/{HOME}", "path", "policy_scope", "must be job, dataset or model, not 'image'"),
    ],
)
async def test_a_parameter_lists_its_values(api, path, source, name, message):
    answer = await (await api.client()).get(path)
    assert_refused(answer, 422, "invalid")
    assert answer.json()["errors"] == [{"loc": [source, name], "msg": message}]


async def test_other_refusals_stay_as_they_are(api):
    http = await api.client()
    answer = await http.post("/api/classifications/run", json={"dataset_id": HOME, "priority": 3})
    assert answer.json()["errors"] == [{"loc": ["body", "priority"], "msg": "Expected `str`, got `int`"}]
    answer = await http.get("/api/classification-results/?min_confidence=high")
    assert answer.json()["errors"] == [{"loc": ["query", "min_confidence"], "msg": "Expected `float | null`, got `str`"}]


async def test_policies_are_listed_by_scope(api):
    http = await api.client()
    await WorkerEvents(api).model()
    home = await dataset(http)
    rules = {"rules": {"review_below": 0.9}, "reason": "A trial"}
    await http.put(f"/api/policies/dataset/{home}", json=rules)
    assert [one["target_id"] for one in (await http.get("/api/policies?scope=dataset")).json()] == [home]
    assert (await http.get("/api/policies?scope=job")).json() == []
