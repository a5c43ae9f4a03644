"""Results and statistics over HTTP."""

import asyncio
import csv
import io
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from api.result_exports import ExportedResult
from domain.classification import chunks_of
from domain.model import OutputKind
from tests.api.http_calls import assert_refused, dataset, id_of, image_in, run, share
from tests.api.worker_events import SHA256, WorkerEvents, now

pytestmark = pytest.mark.anyio

RESULTS = "/api/classification-results/"
CONTRACT = {"id", "image_id", "classification_id", "label", "confidence", "model_name", "created_at"}
STATISTICS = RESULTS + "today/statistics"


class ResultsClient:
    def __init__(self, http, workers, cells):
        self.http, self.workers, self.cells = http, workers, cells

    async def result(self, *, image=None, **body):
        """An image, and the job that saw something in it."""
        image = image or await image_in(self.http, self.cells)
        job = await run(self.http, image_id=image)
        await self.workers.judge(job, [image], **body)
        return image, job

    async def ids(self, path="", **query):
        answer = await self.http.get(RESULTS + path, params=query)
        assert answer.status_code == 200, answer.text
        return [one["id"] for one in answer.json()]


@pytest.fixture
async def client(api):
    workers, http = WorkerEvents(api), await api.client()
    await workers.model()
    return ResultsClient(http, workers, await dataset(http))


async def test_a_result_is_shown_as_the_contract_says(client):
    image, job = await client.result(confidence=0.75)
    [body] = (await client.http.get(RESULTS)).json()
    more = {"labels", "verdict", "scores", "warnings", "model_version", "dataset_id", "value"}
    assert set(body) == CONTRACT | more | {"path", "filename", "result_version", "is_newest", "reused"}
    assert (body["filename"], body["path"], body["result_version"], body["is_newest"], body["reused"]) == ("cell.jpg", None, 1, True, None)
    assert body["value"] is None
    assert (body["image_id"], body["classification_id"], body["dataset_id"]) == (image, job, client.cells)
    assert (body["label"], body["confidence"], body["model_name"], body["model_version"]) == ("round", 0.75, "shapes", 1)
    assert (body["verdict"], body["scores"]) == ("clear", {"round": 0.75, "flat": 0.25})
    assert (await client.http.get(RESULTS + body["id"])).json() == body
    assert (await client.http.get(f"/api/images/{image}")).json()["analyzed"] is True


@pytest.mark.parametrize(("confidence", "verdict"), [(0.8, "clear"), (0.6, "needs_review")])
async def test_the_answer_of_an_external_classifier_has_no_scores(client, confidence, verdict):
    await client.http.post("/api/models/external", json={"name": "vesicles", "labels": ["round", "flat"], "review_below": 0.7})
    image = await image_in(client.http, client.cells)
    job = await run(client.http, image_id=image, model_name="vesicles", model_version="candidate")
    await client.workers.answer_externally(job, image, "flat", confidence)
    [body] = (await client.http.get(RESULTS)).json()
    assert (body["label"], body["confidence"], body["verdict"]) == ("flat", confidence, verdict)
    assert (body["scores"], body["value"], body["warnings"]) == ({}, None, [])


async def test_a_result_that_was_computed_from_other_pixels_carries_a_warning(client):
    image, _ = await client.result()
    [body] = (await client.http.get(RESULTS)).json()
    await client.workers.accept(image, reader=1)
    await client.workers.reinspect(image, reader=2, outdated=[UUID(body["id"])])
    warning = {
        "code": "other_pixels",
        "detail": "Reader 2 gives other pixels than this result was computed from. Run the model again",
    }
    assert (await client.http.get(RESULTS)).json() == [body | {"warnings": [warning]}]
    assert (await client.http.get(RESULTS + body["id"])).json()["warnings"] == [warning]


async def test_results_are_found_by_image_and_by_job_newest_first(client):
    (image, first), (_, _) = await client.result(), await client.result()
    _, again = await client.result(image=image)
    everything = await client.ids(versions="all")
    assert len(everything) == 3
    of_image = await client.ids(f"image/{image}", versions="all")
    assert of_image == await client.ids(image_id=image, versions="all") == [everything[0], everything[2]]
    assert await client.ids(f"image/{image}") == await client.ids(image_id=image) == everything[:1]
    assert await client.ids() == everything[:2]
    assert await client.ids(f"classification/{first}") == await client.ids(classification_id=first) == everything[2:]
    assert await client.ids(classification_id=again, image_id=image) == everything[:1]
    nobody = uuid4()
    for path in (f"image/{nobody}", f"classification/{nobody}"):
        assert await client.ids(path) == []
    assert await client.ids(image_id=str(nobody)) == []
    assert_refused(await client.http.get(f"{RESULTS}{nobody}"), 404)


async def test_following_the_links_leads_through_all_results_once(client):
    images = [await image_in(client.http, client.cells) for _ in range(5)]
    job = await run(client.http, dataset_id=client.cells)
    await client.workers.plan(job, images)
    await client.workers.judge(job, images)
    for start in ("?page_size=2", f"classification/{job}?page_size=2"):
        observed, path = [], RESULTS + start
        while path:
            answer = await client.http.get(path)
            observed += answer.json()
            path = answer.links.get("next", {}).get("url")
        assert sorted(one["image_id"] for one in observed) == sorted(images)
    for query in ({"page_size": 0}, {"page_size": 201}, {"cursor": "x"}, {"image_id": "x"}, {"classification_id": "x"}):
        assert_refused(await client.http.get(RESULTS, params=query), 422), query


async def test_results_are_seen_by_whom_the_dataset_is_shared_with_and_nobody_else(api, client):
    image, job = await client.result()
    [result] = await client.ids()
    viewer, stranger, admin = [await api.client(role) for role in ("viewer", "researcher", "admin")]
    await share(client.http, client.cells, viewer)
    for path in ("", f"image/{image}", f"classification/{job}"):
        assert [one["id"] for one in (await viewer.get(RESULTS + path)).json()] == [result]
        assert [one["id"] for one in (await admin.get(RESULTS + path)).json()] == [result]
        assert (await stranger.get(RESULTS + path)).json() == []
    foreign, absent = await stranger.get(RESULTS + result), await stranger.get(f"{RESULTS}{uuid4()}")
    assert_refused(foreign, 404)
    assert foreign.json() | {"instance": ""} == absent.json() | {"instance": ""}
    assert_refused(await api.anonymous().get(RESULTS), 401)


async def test_a_deleted_image_or_dataset_hides_its_results(client):
    image, job = await client.result()
    kept, _ = await client.result()
    await client.http.delete(f"/api/images/{image}")
    assert await client.ids(f"image/{image}") == await client.ids(f"classification/{job}") == []
    assert len(await client.ids()) == len(await client.ids(f"image/{kept}")) == 1
    await client.http.delete(f"/api/datasets/{client.cells}")
    assert await client.ids() == []
    assert (await client.http.get(STATISTICS)).json()["classified_last_24_hours"] == 0


async def test_statistics_have_25_hours_and_count_the_last_24(client):
    moment = now()
    for hours, confidence in ((0, 0.9), (0, 0.5), (3, 0.7), (23.9, 0.3), (24.1, 0.1), (30, 0.1)):
        await client.result(confidence=confidence, at=moment - timedelta(hours=hours))
    before = now()
    body = (await client.http.get(STATISTICS)).json()
    assert set(body) == {"classified_last_24_hours", "average_confidence", "last_10_results", "hourly_counts"}
    assert (body["classified_last_24_hours"], round(body["average_confidence"], 6)) == (4, 0.6)
    hours = [datetime.fromisoformat(one["hour"]) for one in body["hourly_counts"]]
    assert len(hours) == 25
    assert [after - before for before, after in pairwise(hours)] == [timedelta(hours=1)] * 24
    assert all(one["hour"].endswith(":00:00Z") for one in body["hourly_counts"])
    assert hours[-1] <= now()
    assert before < hours[-1] + timedelta(hours=1)
    assert sum(one["count"] for one in body["hourly_counts"]) >= 4
    assert set(body["last_10_results"][0]) >= CONTRACT
    assert [one["id"] for one in body["last_10_results"]] == await client.ids()


async def test_a_number_is_shown_without_a_confidence_that_it_does_not_have(client):
    image = await image_in(client.http, client.cells)
    await client.workers.measure(await run(client.http, image_id=image), image, 87.5)
    [body] = (await client.http.get(RESULTS)).json()
    assert (body["label"], body["value"], body["confidence"], body["scores"]) == ("viability", 87.5, 0.0, {"viability": 0.875})
    assert (await client.http.get(RESULTS + body["id"])).json() == body


@pytest.mark.parametrize(
    ("scores", "label", "confidence", "value"),
    [
        ({"round": 0.7, "flat": 0.3}, "round", 0.7, None),
        ({"round": 0.9, "flat": 0.8, "none": 0.1}, "round", 0.9, None),
        ({"round": 0.3, "flat": 0.2, "none": 0.7}, "none", 0.7, None),
        ({"viability": 0.875}, "viability", 0.0, 87.5),
        ({"temperature": 0.0}, "temperature", 0.0, -40.0),
    ],
    ids=["one of several", "several apply", "none applies", "number", "number at the end of its range"],
)
async def test_a_client_that_knows_only_label_and_confidence_is_not_misled(api, client, scores, label, confidence, value):
    """The label is one of those with a score, and the confidence is the score of that label, or 0 for what has none."""
    image = await image_in(client.http, client.cells)
    job = await run(client.http, image_id=image)
    await client.workers.answer(job, image, scores=scores, label=label, confidence=confidence, value=value)
    [body] = (await client.http.get(RESULTS)).json()
    assert (body["label"], body["confidence"], body["scores"], body["value"]) == (label, confidence, scores, value)
    assert body["confidence"] == (0 if value is not None else body["scores"][body["label"]])
    [past] = (await (await api.client("admin")).get(f"/api/audit/{job}/results")).json()
    assert {name: past[name] for name in ("label", "confidence", "scores", "value")} == {
        name: body[name] for name in ("label", "confidence", "scores", "value")
    }


async def test_numbers_are_counted_but_do_not_lower_the_average_confidence(client):
    moment = now()
    await client.result(confidence=0.5, at=moment)
    await client.result(confidence=0.7, at=moment - timedelta(hours=23.9))
    for hours in (0, 0, 23.9, 24.1):
        image = await image_in(client.http, client.cells)
        await client.workers.measure(await run(client.http, image_id=image), image, 87.5, at=moment - timedelta(hours=hours))
    body = (await client.http.get(STATISTICS)).json()
    assert (body["classified_last_24_hours"], round(body["average_confidence"], 6)) == (5, 0.6)
    await client.http.delete(f"/api/images/{image}")
    assert (await client.http.get(STATISTICS)).json()["average_confidence"] == body["average_confidence"]


async def test_the_average_confidence_of_numbers_alone_is_zero(client):
    image = await image_in(client.http, client.cells)
    await client.workers.measure(await run(client.http, image_id=image), image, 87.5)
    body = (await client.http.get(STATISTICS)).json()
    assert (body["classified_last_24_hours"], body["average_confidence"]) == (1, 0.0)


async def test_statistics_of_nothing_are_zeros(api):
    body = (await (await api.client("viewer")).get(STATISTICS)).json()
    assert (body["classified_last_24_hours"], body["average_confidence"], body["last_10_results"]) == (0, 0.0, [])
    assert [one["count"] for one in body["hourly_counts"]] == [0] * 25


async def test_statistics_count_what_the_caller_may_read(api, client):
    await client.result()
    stranger, viewer, admin = [await api.client(role) for role in ("researcher", "viewer", "admin")]
    await share(client.http, client.cells, viewer)
    counted = [(await http.get(STATISTICS)).json()["classified_last_24_hours"] for http in (client.http, stranger, viewer, admin)]
    assert counted == [1, 0, 1, 1]


# ---- filters and exports -----------------------------------------------------------------------------------------------------------
EXPORT = RESULTS + "export"


async def test_results_are_filtered_by_every_parameter_of_the_list(client):
    (image, low), (_, high) = await client.result(confidence=0.4), await client.result(confidence=0.9)
    [second, first] = await client.ids()
    moment = (await client.http.get(RESULTS + second)).json()["created_at"]
    expected = {
        "min_confidence=0.5": [second],
        "max_confidence=0.5": [first],
        "label=round&verdict=clear&model_name=shapes&model_version=1": [second, first],
        "label=flat": [],
        "verdict=needs_review": [],
        "model_version=2": [],
        f"classification_id={low}": [first],
        f"image_id={image}&min_confidence=0.5": [],
        f"dataset_id={client.cells}": [second, first],
        f"dataset_id={high}": [],
        f"created_before={moment.replace('+', '%2B')}": [first],
        f"created_from={moment.replace('+', '%2B')}": [second],
    }
    for query, ids in expected.items():
        assert [one["id"] for one in (await client.http.get(f"{RESULTS}?{query}")).json()] == ids, query
        assert [row["id"] for row in await exported_rows(client.http, query)] == ids, query


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("verdict=certain", "verdict"),
        ("min_confidence=2", "min_confidence"),
        ("max_confidence=x", "max_confidence"),
        ("model_version=0", "model_version"),
        ("created_from=yesterday", "created_from"),
        ("versions=some", "versions"),
    ],
)
async def test_a_wrong_filter_is_refused_by_name(client, query, field):
    for path in (RESULTS, EXPORT):
        answer = await client.http.get(f"{path}?{query}")
        assert_refused(answer, 422)
        assert answer.json()["errors"][0]["loc"] == ["query", field]


async def test_an_export_has_all_pages_with_the_label_in_words(api, client):
    await client.workers.uploaded_model("shapes", UUID(await id_of(client.http)))
    images = [await image_in(client.http, client.cells, path=f"A1/cell {number}.jpg") for number in range(201)]
    job = await run(client.http, dataset_id=client.cells, model_version="2")
    await client.workers.plan(job, images)
    for number, chunk in enumerate(chunks_of(images)):
        await client.workers.judge(job, chunk, number=number)
    rows = await exported_rows(client.http, f"classification_id={job}")
    assert len({row["id"] for row in rows}) == 201
    assert {row["label_text"] for row in rows} == {"without edges"}
    listed = (await client.http.get(RESULTS, params={"classification_id": job})).json()
    assert [row["id"] for row in rows[:200]] == [one["id"] for one in listed]
    [row, *_] = rows
    assert (row["path"], row["filename"]) == (listed[0]["path"], listed[0]["filename"])
    assert (float(row["confidence"]), row["verdict"], row["scores"]) == (0.9, "clear", "round=0.9000; flat=0.1000")
    assert (row["model_name"], row["model_version"], row["reused"], row["value"]) == ("shapes", "2", "", "")
    as_json = (await client.http.get(EXPORT, params={"classification_id": job, "format": "json"})).json()
    assert [{name: one[name] for name in listed[0]} for one in as_json[:200]] == listed
    assert len(as_json) == 201


async def test_exports_say_what_they_are_and_an_empty_one_is_complete(client):
    csv_file, json_file = await client.http.get(EXPORT), await client.http.get(EXPORT, params={"format": "json"})
    assert csv_file.headers["content-type"] == "text/csv; charset=utf-8"
    assert "results.csv" in csv_file.headers["content-disposition"]
    assert list(csv.reader(io.StringIO(csv_file.text))) == [list(ExportedResult.__struct_fields__)]
    assert json_file.headers["content-type"] == "application/json"
    assert json_file.json() == []
    assert_refused(await client.http.get(EXPORT, params={"format": "xlsx"}), 422)


async def test_no_name_of_an_image_is_a_formula_in_a_spreadsheet(client):
    image = await image_in(client.http, client.cells, path="=1+1/=cmd|'C calc'!A0.jpg")
    await client.result(image=image)
    [row] = await exported_rows(client.http, "")
    assert (row["path"], row["filename"]) == ("'=1+1/=cmd|'C calc'!A0.jpg", "'=cmd|'C calc'!A0.jpg")


async def test_a_stranger_exports_nothing(api, client):
    await client.result()
    assert await exported_rows(await api.client("researcher"), "") == []
    assert_refused(await api.anonymous().get(EXPORT), 401)


class SlowReader:
    """A client that asks for an export, and reads nothing until it may or disconnects."""

    def __init__(self, api, http):
        self._app, self._token = api.app, http.headers["Authorization"].encode()
        self.began, self.reads, self.disconnects = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def export(self):
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": ""}
        scope |= {"path": EXPORT, "raw_path": EXPORT.encode(), "query_string": b"", "client": ("127.0.0.1", 1)}
        headers = [(b"host", b"127.0.0.1:8000"), (b"authorization", self._token)]
        await self._app(scope | {"server": ("127.0.0.1", 8000), "headers": headers}, self._receive, self._send)

    async def _receive(self):
        await self.disconnects.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.body":
            self.began.set()
            await self.reads.wait()
        if not message.get("more_body", True):
            self.disconnects.set()


async def test_an_account_has_few_exports_in_progress_until_one_is_read_or_its_client_disconnects(api, client):
    await client.result()
    first, second = SlowReader(api, client.http), SlowReader(api, client.http)
    async with asyncio.TaskGroup() as group:
        exports = {reader: group.create_task(reader.export()) for reader in (first, second)}
        await asyncio.gather(first.began.wait(), second.began.wait())
        refused = await client.http.get(EXPORT)
        assert_refused(refused, 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert await exported_rows(await api.client("researcher"), "") == []
        first.disconnects.set()
        await exports[first]
        assert len(await exported_rows(client.http, "")) == 1
        second.reads.set()
    assert len(await exported_rows(client.http, "")) == 1


async def exported_rows(http, query):
    answer = await http.get(f"{EXPORT}?{query}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_all_labels_that_apply_are_listed_under_the_rules_that_are_in_force(client):
    await client.workers.model("marks", kind=OutputKind.MULTI_LABEL, digest=SHA256, labels=("none", "round", "flat", "long"))
    image = await image_in(client.http, client.cells)
    job = await run(client.http, image_id=image, model_name="marks", top_k=1)
    scores = {"none": 0.1, "round": 0.9, "flat": 0.7, "long": 0.2}
    await client.workers.answer(job, image, scores=scores, label="round", confidence=0.9)

    async def shown(**query):
        body = (await client.http.get(f"{RESULTS}{result}", params=query)).json()
        return body["label"], body["labels"], body["scores"]

    [listed] = (await client.http.get(RESULTS)).json()
    result, before = listed["id"], client.workers.log.head()
    assert listed["labels"] == ["round", "flat"]
    assert await shown() == ("round", ["round", "flat"], {"round": 0.9})
    rules = {"rules": {"applies_at": 0.8, "applies_at_for": {"long": 0.15}}, "reason": "A trial"}
    assert (await client.http.put(f"/api/policies/job/{job}", json=rules)).status_code == 200
    assert (await shown())[1] == ["round", "long"]
    assert await shown(as_of=str(before)) == ("round", ["round", "flat"], {"round": 0.9})
    assert (await shown(as_of=str(client.workers.log.head())))[:2] == ("long", ["round", "long"])
    [row] = csv.DictReader(io.StringIO((await client.http.get(RESULTS + "export")).text))
    assert row["labels"] == "round; long"
    [recent] = (await client.http.get(RESULTS + "today/statistics")).json()["last_10_results"]
    assert recent["labels"] == ["round", "long"]


async def test_the_label_is_the_only_one_where_labels_exclude_each_other(client):
    await client.result(confidence=0.5)
    [body] = (await client.http.get(RESULTS)).json()
    assert (body["scores"], body["labels"]) == ({"round": 0.5, "flat": 0.5}, ["round"])
