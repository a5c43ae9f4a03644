"""A refused field or parameter is named as requests name it, with what it must be. No other text that was sent is repeated."""

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
        ({"planes": {"c": [{}]}}, ["planes", "c[0]"], "must be a whole number"),
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
        ("/api/classification-results/?min_confidence=high", "query", "min_confidence", "must be a number"),
        ("/api/keys?page_size=0", "query", "page_size", "must be at least 1"),
        (f"/api/policies/image/{HOME}", "path", "policy_scope", "must be job, dataset or model, not 'image'"),
    ],
)
async def test_a_parameter_lists_its_values_or_its_type_in_plain_words(api, path, source, name, message):
    answer = await (await api.client()).get(path)
    assert_refused(answer, 422, "invalid")
    assert answer.json()["errors"] == [{"loc": [source, name], "msg": message}]


FIELDS_OF_A_KEY = "the fields are name, scopes, dataset_ids, days"
KEY = {"name": "night run", "scopes": ["images:read"]}


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"scopes": ["images:read"]}, ["name"], "is missing"),
        (KEY | {"name": 3}, ["name"], "must be a text"),
        (KEY | {"scopes": []}, ["scopes"], "must have at least 1 entry"),
        (KEY | {"name": "x" * 1000}, ["name"], "must have at most 255 characters"),
        (KEY | {"days": 367}, ["days"], "must be at most 366"),
        (KEY | {"days": "many"}, ["days"], "must be a whole number"),
        (KEY | {"dataset_ids": ["cells"]}, ["dataset_ids[0]"], "must be an id, such as 74e02ed7-defc-5b5f-96eb-de056419e140"),
        ([], [], "must be a JSON object"),
        (KEY | {"dayz": 1}, ["dayz"], f"is not known; {FIELDS_OF_A_KEY}"),
        (KEY | {"k" * 900_000: 1}, [], f"has a field that is not known; {FIELDS_OF_A_KEY}"),
        (KEY | {"my secret password is fourteen": 1}, [], f"has a field that is not known; {FIELDS_OF_A_KEY}"),
        (KEY | {"a\r\nb<script>\u202e": 1}, [], f"has a field that is not known; {FIELDS_OF_A_KEY}"),
        (KEY | {"a - b": 1}, [], f"has a field that is not known; {FIELDS_OF_A_KEY}"),
        (KEY | {"x y` - at `$.secret": 1}, [], f"has a field that is not known; {FIELDS_OF_A_KEY}"),
    ],
    ids=lambda value: "" if len(str(value)) > 200 else None,
)
async def test_a_field_is_refused_in_plain_words_and_its_name_is_repeated_only_if_it_is_short_and_plain(api, body, path, message):
    answer = await (await api.client()).post("/api/keys", json=body)
    assert_refused(answer, 422, "invalid")
    assert answer.json()["errors"] == [{"loc": ["body", *path], "msg": message}]
    assert answer.json()["detail"] == f"{'.'.join(path) or 'body'}: {message}"


@pytest.mark.parametrize(
    ("fields", "loc", "message"),
    [
        ({"filter": {"verdicts": 1}}, ["filter", "verdicts"], "is not known; "),
        ({"filter": {"two words": 1}}, ["filter"], "has a field that is not known; "),
        ({"filter": {"x y` - at `$.secret": 1}}, [], "has a field that is not known; "),
        ({f"x y` - at `$.filter{'[' * 99}": 1}, [], "has a field that is not known; "),
    ],
)
async def test_an_unknown_field_of_an_inner_object_is_refused_in_its_place(api, fields, loc, message):
    answer = await (await api.client()).post("/api/classifications/run", json={"dataset_id": HOME} | fields)
    assert_refused(answer, 422, "invalid")
    [error] = answer.json()["errors"]
    assert error["loc"] == ["body", *loc]
    assert error["msg"].startswith(message)
    assert "secret" not in answer.text
    assert "[[" not in answer.text


async def test_policies_are_listed_by_scope(api):
    http = await api.client()
    await WorkerEvents(api).model()
    home = await dataset(http)
    rules = {"rules": {"review_below": 0.9}, "reason": "A trial"}
    await http.put(f"/api/policies/dataset/{home}", json=rules)
    assert [one["target_id"] for one in (await http.get("/api/policies?scope=dataset")).json()] == [home]
    assert (await http.get("/api/policies?scope=job")).json() == []
