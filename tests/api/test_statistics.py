"""Statistics of results over HTTP, and `bioscope stats`."""

import asyncio
import json
from datetime import timedelta
from uuid import uuid4

import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.client.credentials import Credentials, store_credentials
from scripts.commands import shapes
from tests.api.http_calls import assert_refused, dataset, image_in, run, share
from tests.api.test_commands import assert_shape
from tests.api.test_registry_commands import url
from tests.api.worker_events import WorkerEvents, now

__all__ = ["url"]
pytestmark = pytest.mark.anyio

STATISTICS = "/api/statistics/results"


class StatisticsClient:
    """A researcher with a dataset, and results of two models in it: three labels today, one yesterday, and a number."""

    def __init__(self, api, http, workers, cells):
        self.api, self.http, self.workers, self.cells = api, http, workers, cells

    async def judge(self, *, model="shapes", image=None, **found):
        image = image or await image_in(self.http, self.cells)
        await self.workers.judge(await run(self.http, image_id=image, model_name=model), [image], **found)

    async def counted(self, http=None, **query):
        answer = await (http or self.http).get(STATISTICS, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def client(api):
    workers, http = WorkerEvents(api), await api.client()
    await workers.model()
    await workers.model("cells", sha256="cd" * 32)
    made = StatisticsClient(api, http, workers, await dataset(http))
    await made.judge(confidence=0.75)
    await made.judge(confidence=1.0)
    await made.judge(confidence=0.5, model="cells")
    await made.judge(confidence=0.25, at=now() - timedelta(days=1))
    image = await image_in(http, made.cells)
    await workers.measure(await run(http, image_id=image, model_name="shapes"), image, 87.5)
    return made


async def test_all_results_of_the_last_30_days_are_one_group(client):
    body = await client.counted()
    today = now().date()
    assert (body["from"], body["to"], body["group_by"]) == (str(today - timedelta(days=29)), str(today), [])
    [group] = body["groups"]
    assert group == {
        **dict.fromkeys(("model_name", "model_version", "dataset_id", "dataset_name", "device_id", "day", "label", "verdict")),
        "count": 5,
        "verdicts": {"clear": 5, "needs_review": 0, "out_of_domain": 0},
        "average_confidence": 0.625,
        "confidence_histogram": [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        "measured": 1,
        "average_value": None,
    }


async def test_results_are_grouped_and_filtered(client):
    today = str(now().date())
    by_version = await client.counted(group_by="version")
    assert by_version["group_by"] == ["model", "version"]
    assert [(one["model_name"], one["model_version"], one["count"]) for one in by_version["groups"]] == [("cells", 1, 1), ("shapes", 1, 4)]
    by_label = await client.counted(group_by="model,label", model_name="shapes")
    assert [(one["label"], one["count"], one["average_value"]) for one in by_label["groups"]] == [
        ("round", 3, None),
        ("viability", 1, 87.5),
    ]
    by_day = await client.counted(group_by="day,dataset", **{"from": today, "to": today})
    assert [(one["day"], one["dataset_name"], one["count"]) for one in by_day["groups"]] == [(today, "cells", 4)]
    for nothing in ({"model_version": 2}, {"device_id": str(uuid4())}, {"dataset_id": str(uuid4())}, {"to": "2020-01-01"}):
        assert (await client.counted(**nothing))["groups"] == []


async def test_what_is_deleted_is_not_counted(client):
    image = await image_in(client.http, client.cells)
    await client.judge(image=image)
    position = (await client.http.delete(f"/api/images/{image}")).headers["X-Event-Position"]
    assert (await client.counted(min_position=position))["groups"][0]["count"] == 5


async def test_only_those_who_may_read_the_dataset_count_its_results(client, api):
    viewer, stranger, admin = [await api.client(role) for role in ("viewer", "researcher", "admin")]
    await share(client.http, client.cells, viewer)
    seen = [(await client.counted(http))["groups"] for http in (viewer, stranger, admin)]
    assert [sum(group["count"] for group in groups) for groups in seen] == [5, 0, 5]
    assert (await client.counted(stranger, dataset_id=client.cells))["groups"] == []
    assert_refused(await api.anonymous().get(STATISTICS), 401)


@pytest.mark.parametrize(
    ("query", "parameter", "advice"),
    [
        ({"group_by": "colour"}, "group_by", "model, version, dataset, device, day, label, verdict"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "from", "must not be after `to`"),
        ({"from": "2024-01-01", "to": "2026-03-01"}, "from", "at most 365 days before `to`"),
        ({"from": "yesterday"}, "from", "must be a day such as 2026-03-01"),
        ({"to": "2026-02-30"}, "to", "must be a day such as 2026-03-01"),
        ({"dataset_id": "x"}, "dataset_id", "must be an id, such as"),
        ({"device_id": "x"}, "device_id", "must be an id, such as"),
        ({"model_version": "0"}, "model_version", "must be at least 1"),
        ({"model_version": "2147483648"}, "model_version", "must be at most 2147483647"),
        ({"model_name": "a\0b"}, None, "control characters"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
async def test_wrong_parameters_are_refused_with_what_is_right(api, query, parameter, advice):
    answer = await (await api.client()).get(STATISTICS, params=query)
    assert_refused(answer, 422, "invalid")
    assert advice in answer.json()["detail"]
    assert parameter is None or [one["loc"] for one in answer.json()["errors"]] == [["query", parameter]]


# ---- the command -------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def stats(url, client, monkeypatch, tmp_path):
    """Runs `bioscope stats` for the researcher, or for somebody else with the tokens of `as_`."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*arguments, code=0, as_=client.http):
        store_credentials(Credentials(url, as_.headers["Authorization"].split()[1], ""))
        ended = await asyncio.to_thread(CliRunner().invoke, main, ["stats", *arguments])
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), "a traceback"
        return ended

    return run


def lines(ended):
    return [line.split() for line in ended.stdout.splitlines()]


async def test_the_terminal_shows_a_table_and_a_histogram(stats):
    heading, _, *table = lines(await stats("--model", "shapes", "--by", "model,label"))
    today = now().date()
    assert heading == ["Results", "from", str(today - timedelta(days=29)), "to", str(today), "(UTC)"]
    assert table[:3] == [
        ["model", "label", "results", "clear", "to", "review", "out", "of", "domain", "confidence", "value"],
        ["shapes", "round", "3", "3", "0", "0", "66.7%", "-"],
        ["shapes", "viability", "1", "1", "0", "0", "-", "87.5"],
    ]
    histogram = table[4:]
    assert histogram[:2] == [["confidence", "results"], ["25-30%", "1", "#" * 40]]
    assert histogram[2] == ["30-35%", "0"]
    assert histogram[-1] == ["95-100%", "1", "#" * 40]


async def test_options_choose_what_is_counted(stats, client):
    yesterday = str((now() - timedelta(days=1)).date())
    printed = (
        await stats("--from", yesterday, "--to", yesterday, "--by", "day,dataset,version,device", "--dataset", "cells", "--json")
    ).stdout
    assert_shape(shapes()["bioscope stats"], printed)
    [group] = json.loads(printed)["groups"]
    assert (group["day"], group["dataset_name"], group["model_name"], group["count"]) == (yesterday, "cells", "shapes", 1)
    assert lines(await stats("--dataset", client.cells, "--model", "cells@1"))[3] == ["cells", "1", "1", "1", "0", "0", "50.0%"]
    assert "There are no results" in (await stats("--to", "2020-01-01")).stdout


async def test_devices_have_host_names_for_those_who_may_read_them(stats, client, api):
    admin, viewer = await api.client("admin"), await api.client("viewer")
    device = (await admin.post("/api/devices", json={"name": "Scope", "hostname": "scope-1"})).json()["id"]
    await share(client.http, client.cells, viewer)
    await client.judge(image=await image_in(client.http, client.cells, device_id=device))
    assert [row[0] for row in lines(await stats("--by", "device"))[3:5]] == ["scope-1", "-"]
    assert [row[0] for row in lines(await stats("--by", "device", as_=viewer))[3:5]] == [device, "-"]
    assert lines(await stats("--device", "scope-1"))[3][2] == "1"


async def test_what_does_not_exist_is_named_with_a_way_out(stats, client):
    await dataset(client.http, "twice")
    await dataset(client.http, "twice")
    assert "there is no dataset 'none'" in (await stats("--dataset", "none", code=2)).stderr
    assert "give an id, which is one of" in " ".join((await stats("--dataset", "twice", code=2)).stderr.split())
    assert "there is no device 'none'" in (await stats("--device", "none", code=2)).stderr
    assert "there is no model 'none'" in (await stats("--model", "none", code=2)).stderr
    assert "has no version '7'" in (await stats("--model", "shapes@7", code=2)).stderr
    assert "must be a list of model, version" in (await stats("--by", "colour", code=1)).stderr
    assert "does not match the format" in (await stats("--from", "yesterday", code=2)).stderr
