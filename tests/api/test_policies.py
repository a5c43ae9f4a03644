"""Policies over HTTP."""

import asyncio
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest

from domain.events import SEALED_PREFIX
from domain.values import model_id
from projections import policy_preview
from projections.process.policies import apply_policies
from tests.api.http_calls import assert_refused, dataset, id_of, image_in, run, share
from tests.api.worker_events import WorkerEvents

pytestmark = pytest.mark.anyio

WHY = "Too many false alarms"
STRICT, FLAT = {"review_below": 0.99}, {"label_at": {"flat": 0.1}, "review_below": 0.1}
NOTHING_ELSE = {"review_below_for": {}, "label_at": {}, "applies_at": None, "applies_at_for": {}, "review_outside": None}
STRICT_SHOWN = STRICT | NOTHING_ELSE
SHAPES = f"/api/policies/model/{model_id('shapes')}"
SAID = {"label": "round", "confidence": 0.75, "verdict": "clear"}


class Lab(NamedTuple):
    """A researcher with one result: round with 0.75, clear."""

    api: Any
    http: httpx.AsyncClient
    workers: WorkerEvents
    cells: str
    job: str
    result: str

    @property
    def of_job(self):
        return f"/api/policies/job/{self.job}"

    @property
    def of_dataset(self):
        return f"/api/policies/dataset/{self.cells}"

    async def put(self, path, rules, *, http=None, reason=WHY, **headers):
        return await (http or self.http).put(path, json={"rules": rules, "reason": reason}, headers=headers)

    async def withdraw(self, path, *, http=None, **headers):
        return await (http or self.http).request("DELETE", path, json={"reason": "Not needed"}, headers=headers)

    async def shown(self, **query):
        answer = await self.http.get(f"/api/classification-results/{self.result}", params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return body["label"], body["confidence"], body["verdict"]


@pytest.fixture
async def lab(api):
    workers, http = WorkerEvents(api), await api.client()
    await workers.model()
    cells = await dataset(http)
    image = await image_in(http, cells)
    job = await run(http, image_id=image)
    await workers.judge(job, [image], confidence=0.75)
    [result] = (await http.get("/api/classification-results/")).json()
    return Lab(api, http, workers, cells, job, result["id"])


@pytest.fixture
def applied(settings):
    async def applied():
        await asyncio.to_thread(apply_policies, settings.postgres_url, lambda: False)

    return applied


async def test_a_policy_is_set_applied_and_withdrawn(lab, applied):
    answer = await lab.put(lab.of_job, STRICT)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"'), answer.text
    body = answer.json()
    assert (body["scope"], body["target_id"], body["dataset_id"], body["rules"]) == ("job", lab.job, lab.cells, STRICT_SHOWN)
    assert (body["set_by"], body["applied_at"]) == (await id_of(lab.http), None)
    assert await lab.shown() == ("round", 0.75, "clear")
    await applied()
    assert await lab.shown() == ("round", 0.75, "needs_review")
    found = await lab.http.get(lab.of_job)
    assert found.headers["etag"] == '"1"'
    assert found.json()["applied_at"] is not None
    assert (await lab.withdraw(lab.of_job)).status_code == 204
    assert (await lab.http.get(lab.of_job)).json()["rules"] is None
    await applied()
    assert await lab.shown() == ("round", 0.75, "clear")


async def test_equal_rules_change_nothing_and_an_older_version_is_refused(lab):
    assert "x-event-position" in (await lab.put(lab.of_job, STRICT)).headers
    again = await lab.put(lab.of_job, STRICT)
    assert (again.status_code, again.headers["etag"]) == (200, '"1"')
    assert "x-event-position" not in again.headers
    assert_refused(await lab.put(lab.of_job, FLAT, **{"If-Match": '"2"'}), 412)
    assert_refused(await lab.withdraw(lab.of_job, **{"If-Match": '"2"'}), 412)
    assert (await lab.put(lab.of_job, FLAT, **{"If-Match": '"1"'})).headers["etag"] == '"2"'


async def test_the_answer_of_a_result_is_read_as_of_any_time(lab, applied):
    before = lab.api.services.log.head()
    strict = int((await lab.put(lab.of_dataset, STRICT)).headers["x-event-position"])
    flat = int((await lab.put(lab.of_job, FLAT)).headers["x-event-position"])
    assert await lab.shown(as_of=before) == ("round", 0.75, "clear")
    assert await lab.shown(as_of=strict) == ("round", 0.75, "needs_review")
    assert await lab.shown(as_of=flat) == ("flat", 0.25, "clear")
    await applied()
    assert await lab.shown() == ("flat", 0.25, "clear")
    assert await lab.shown(as_of=before) == ("round", 0.75, "clear")
    assert_refused(await lab.http.get(f"/api/classification-results/{lab.result}", params={"as_of": 1}), 404)


async def test_a_result_names_the_policy_in_force_and_what_its_model_said(lab, applied):
    path = f"/api/classification-results/{lab.result}/policy"
    assert (await lab.http.get(path)).json() == {"answer": SAID, "original": SAID, "policy": None}
    await lab.put(lab.of_dataset, STRICT)
    position = int((await lab.put(lab.of_job, FLAT)).headers["x-event-position"])
    await applied()
    found = (await lab.http.get(path)).json()
    assert (found["original"], found["answer"]["label"], found["policy"]["scope"]) == (SAID, "flat", "job")
    found = (await lab.http.get(path, params={"as_of": position - 1})).json()
    assert (found["answer"]["verdict"], found["policy"]["scope"]) == ("needs_review", "dataset")


async def test_the_history_tells_who_changed_a_policy_when_and_why(lab):
    first = int((await lab.put(lab.of_job, STRICT)).headers["x-event-position"])
    await lab.withdraw(lab.of_job)
    changes = (await lab.http.get(f"{lab.of_job}/history")).json()
    assert [(one["rules"], one["reason"]) for one in changes] == [(STRICT_SHOWN, WHY), (None, "Not needed")]
    assert {one["by"] for one in changes} == {await id_of(lab.http)}
    page = await lab.http.get(f"{lab.of_job}/history", params={"limit": 1})
    assert page.headers["x-next-cursor"] == str(first)
    rest = await lab.http.get(f"{lab.of_job}/history", params={"after": page.headers["x-next-cursor"]})
    assert page.json() + rest.json() == changes
    assert (await lab.http.get(f"{lab.of_job}/history", params={"as_of": first})).json() == changes[:1]
    assert (await lab.http.get(lab.of_job, params={"as_of": first})).json()["rules"] == STRICT_SHOWN
    assert (await lab.http.get(lab.of_job)).json()["rules"] is None
    assert_refused(await lab.http.get(lab.of_job, params={"as_of": first - 1}), 404)


async def test_a_reason_is_stored_encrypted(lab):
    position = int((await lab.put(lab.of_job, STRICT)).headers["x-event-position"])
    data = lab.api.services.log.read(position - 1, 1)[0].data
    assert WHY.encode() not in data
    assert SEALED_PREFIX.encode() in data


async def test_policies_are_listed_newest_first_and_only_those_that_are_visible(lab):
    admin, other = await lab.api.client("admin"), await lab.api.client()
    for path, http in ((SHAPES, admin), (lab.of_dataset, lab.http), (lab.of_job, lab.http)):
        assert (await lab.put(path, STRICT, http=http)).status_code == 200

    async def scopes(http=lab.http, **query):
        answer = await http.get("/api/policies/", params=query)
        assert answer.status_code == 200, answer.text
        return [one["scope"] for one in answer.json()]

    assert await scopes() == await scopes(admin) == ["job", "dataset", "model"]
    assert await scopes(other) == ["model"]
    assert await scopes(scope="dataset") == ["dataset"]
    assert await scopes(dataset_id=lab.cells) == ["job", "dataset"]
    page = await lab.http.get("/api/policies/", params={"page_size": 2})
    assert await scopes(page_size=2, cursor=page.headers["x-next-cursor"]) == ["model"]
    await lab.withdraw(lab.of_dataset)
    assert await scopes() == ["job", "model"]
    assert await scopes(withdrawn=True) == ["dataset", "job", "model"]
    assert_refused(await other.get(lab.of_job), 404)
    assert_refused(await other.get(f"{lab.of_job}/history"), 404)
    await lab.http.delete(f"/api/classifications/{lab.job}")
    assert await scopes() == ["model"]
    assert_refused(await lab.http.get("/api/policies/", params={"scope": "person"}), 422)


async def test_a_policy_of_a_model_is_set_by_administrators_and_promoters(lab):
    admin, promoter = await lab.api.client("admin"), await lab.api.client("viewer")
    assert_refused(await lab.put(SHAPES, STRICT), 403)
    assert_refused(await lab.put(SHAPES, STRICT, http=promoter), 403)
    await admin.put(f"/api/models/shapes/promoters/{await id_of(promoter)}")
    assert (await lab.put(SHAPES, STRICT, http=promoter)).status_code == 200
    assert (await lab.withdraw(SHAPES, http=admin)).status_code == 204


async def test_a_policy_of_a_dataset_needs_the_grant_editor(lab):
    colleague = await lab.api.client()
    for grant, status in (("analyst", 403), ("editor", 200)):
        await share(lab.http, lab.cells, colleague, grant)
        assert (await lab.put(lab.of_dataset, STRICT, http=colleague)).status_code == status
        assert (await lab.put(lab.of_job, STRICT, http=colleague)).status_code == status


@pytest.mark.parametrize(
    ("rules", "place", "message"),
    [
        ({}, ["body", "rules"], "at least one rule"),
        ({"label_at": {"square": 0.5}}, ["body", "rules", "label_at", "square"], "Labels: flat, round"),
        ({"review_below": 1.5}, ["body", "rules", "review_below"], ""),
        ({"label_at": {"flat": 0}}, None, ""),
        ({"applies_at": 0.5}, ["body", "rules", "applies_at"], "use label_at"),
        ({"review_outside": [1, 0]}, ["body", "rules", "review_outside"], "lower one first"),
        ({"review_outside": [1]}, None, ""),
        ({"threshold": 0.5}, None, ""),
        ({"review_below": "high"}, None, ""),
    ],
)
async def test_rules_that_make_no_sense_are_refused_at_their_place(lab, rules, place, message):
    answer = await lab.put(lab.of_job, rules)
    assert_refused(answer, 422, "invalid")
    assert message in answer.json()["detail"]
    if place is not None:
        assert [error["loc"] for error in answer.json()["errors"]] == [place]


async def test_what_does_not_exist_is_not_found(lab):
    for scope in ("job", "dataset", "model"):
        path = f"/api/policies/{scope}/{uuid4()}"
        assert_refused(await lab.http.get(path), 404)
        assert_refused(await lab.put(path, STRICT), 404)
        assert_refused(await lab.withdraw(path), 404)
    assert_refused(await lab.withdraw(lab.of_job), 404)
    assert_refused(await lab.http.get(f"/api/policies/person/{uuid4()}"), 422)
    assert_refused(await lab.http.get(f"/api/classification-results/{uuid4()}/policy"), 404)


async def test_a_preview_counts_what_would_change_and_changes_nothing(lab, applied):
    answer = await lab.http.post(f"{lab.of_dataset}/preview", json={"rules": STRICT})
    assert answer.status_code == 200, answer.text
    before, after = ({"label": "round", "verdict": verdict, "count": 1} for verdict in ("clear", "needs_review"))
    assert answer.json() == {"results": 1, "complete": True, "of_each_dataset": None, "changed": 1, "before": [before], "after": [after]}
    assert_refused(await lab.http.get(lab.of_dataset), 404)
    assert_refused(await lab.http.post(f"{lab.of_dataset}/preview", json={"rules": {"label_at": {"square": 0.1}}}), 422)
    await lab.put(lab.of_job, FLAT)
    await applied()
    assert (await lab.http.post(f"{lab.of_dataset}/preview", json={"rules": STRICT})).json()["results"] == 0, "that of the job precedes"
    found = (await lab.http.post(f"{lab.of_job}/preview", json={"rules": STRICT})).json()
    assert (found["before"][0]["label"], found["after"]) == ("flat", [after])


async def test_a_preview_for_a_model_looks_through_the_newest_results_of_each_dataset_only(lab, monkeypatch):
    admin = await lab.api.client("admin")
    monkeypatch.setattr(policy_preview, "MAX_EXAMINED", 1)
    answer = (await admin.post(f"{SHAPES}/preview", json={"rules": STRICT})).json()
    assert (answer["results"], answer["complete"], answer["of_each_dataset"]) == (1, True, None), "there is no other result"
    image = await image_in(lab.http, lab.cells)
    await lab.workers.judge(await run(lab.http, image_id=image), [image])
    answer = (await admin.post(f"{SHAPES}/preview", json={"rules": STRICT})).json()
    assert (answer["results"], answer["complete"], answer["of_each_dataset"]) == (1, False, 1)


async def test_a_promoter_previews_a_policy_with_results_that_the_promoter_may_read(lab):
    admin, promoter = await lab.api.client("admin"), await lab.api.client("viewer")
    await admin.put(f"/api/models/shapes/promoters/{await id_of(promoter)}")
    assert (await promoter.post(f"{SHAPES}/preview", json={"rules": STRICT})).json()["results"] == 0
    assert (await admin.post(f"{SHAPES}/preview", json={"rules": STRICT})).json()["changed"] == 1
    await lab.put(lab.of_dataset, STRICT)
    assert (await admin.post(f"{SHAPES}/preview", json={"rules": STRICT})).json()["results"] == 0
