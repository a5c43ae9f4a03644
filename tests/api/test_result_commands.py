"""`bioscope results`: results are listed with filters, shown with their versions, and exported."""

import csv
import io
import json
from uuid import uuid4

import pytest

from domain.classification import Verdict
from domain.model import OutputKind
from scripts.commands import shapes
from tests.api.http_calls import dataset, image_in, run
from tests.api.test_commands import assert_shape
from tests.api.test_job_commands import bioscope, http, in_one_line  # noqa: F401 - fixtures
from tests.api.test_registry_commands import url  # noqa: F401 - a fixture
from tests.api.worker_events import WorkerEvents

pytestmark = pytest.mark.anyio


class ResultsRig:
    def __init__(self, api, http, home):  # noqa: F811 - a fixture's name
        self.http, self.home, self.workers = http, home, WorkerEvents(api)

    async def result(self, *, image=None, **found):
        image = image or await image_in(self.http, self.home, path="A1/cell.jpg")
        job = await run(self.http, image_id=image)
        await self.workers.judge(job, [image], **found)
        return image, job


@pytest.fixture
async def lab(api, http):  # noqa: F811 - a fixture
    return ResultsRig(api, http, await dataset(http))


async def test_results_are_listed_with_every_filter(bioscope, lab):  # noqa: F811 - a fixture
    (image, low), (_, high) = await lab.result(confidence=0.4), await lab.result(confidence=0.9)
    shown = [line.split() for line in (await bioscope("results", "list")).stdout.splitlines()]
    assert shown == [
        ["file", "label", "confidence", "model"],
        ["A1/cell.jpg", "round", "90.0%", "shapes@1"],
        ["A1/cell.jpg", "round", "40.0%", "shapes@1"],
    ]
    for options, jobs in {
        (): [high, low],
        ("--job", low): [low],
        ("--dataset", lab.home): [high, low],
        ("--image", image): [low],
        ("--label", "flat"): [],
        ("--verdict", "clear", "--min-confidence", "0.5"): [high],
        ("--max-confidence", "0.5"): [low],
        ("--model", "shapes"): [high, low],
        ("--model", "shapes@production", "--all-versions"): [high, low],
        ("--from", "2020-01-01"): [high, low],
        ("--before", "2020-01-01T00:00:00+01:00"): [],
    }.items():
        printed = (await bioscope("results", "list", *options, "--json")).stdout
        assert_shape(shapes()["bioscope results list"], printed)
        assert [one["classification_id"] for one in json.loads(printed)] == jobs, options


async def test_a_list_says_what_it_leaves_out(bioscope, lab):  # noqa: F811 - a fixture
    assert (await bioscope("results", "list")).stdout == "No result matches.\n"
    await lab.result()
    await lab.result()
    cut = await bioscope("results", "list", "--limit", "1", "--ids")
    assert "These are the newest 1. --limit lists more" in in_one_line(cut.stderr)
    [newest, _] = (await lab.http.get("/api/classification-results/")).json()
    assert cut.stdout.splitlines()[1].split()[0] == newest["id"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--model", "none"), "there is no model 'none'; choose one of: shapes"),
        (("--model", "shapes@9"), "the model shapes has no version '9'"),
        (("--dataset", "none"), "there is no dataset 'none' that you may see"),
        (("--from", "yesterday"), "'yesterday' is no time. Give for example 2026-03-01 or 2026-03-01T12:00:00Z."),
        (("--min-confidence", "nan"), "nan is not a finite number"),
        (("--min-confidence", "2"), "2.0 is not in the range 0<=x<=1"),
        (("--job", "x"), "See `bioscope jobs list`."),
        (("--verdict", "cleer"), "Did you mean 'clear'?"),
    ],
)
async def test_a_wrong_filter_is_answered_with_what_to_do(bioscope, lab, options, sentence):  # noqa: F811 - a fixture
    for command in (["list"], ["export", "-"]):
        assert sentence in in_one_line((await bioscope("results", *command, *options, code=2)).stderr)


async def test_a_result_is_shown_with_bars_facts_and_versions(bioscope, lab):  # noqa: F811 - a fixture
    image, first = await lab.result(confidence=0.75)
    _, second = await lab.result(image=image)
    everything = (await lab.http.get("/api/classification-results/", params={"versions": "all"})).json()
    newest, earlier = everything
    shown = (await bioscope("results", "show", earlier["id"])).stdout
    line = in_one_line(shown)
    assert "file A1/cell.jpg label round verdict clear confidence 75.0% review below 60.0% model shapes@1, sha256 abababababab" in line
    assert f"version 1, not the newest of this model for the image recorded (UTC) {earlier['created_at'][:10]}" in line
    assert f"job {first} image {image} dataset {lab.home}" in line
    assert f"round 75.0% {'█' * 22} flat 25.0% {'█' * 8}" in line
    assert [row.split()[0] for row in shown.splitlines()[-2:]] == ["2", "1"]
    assert newest["id"] in line
    assert f"job {second}" in in_one_line((await bioscope("results", "show")).stdout)
    printed = (await bioscope("results", "show", earlier["id"], "--json")).stdout
    assert_shape(shapes()["bioscope results show"], printed)
    assert [one["result_version"] for one in json.loads(printed)["versions"]] == [2, 1]


async def test_a_measured_number_has_neither_confidence_nor_bars(bioscope, lab):  # noqa: F811 - a fixture
    image = await image_in(lab.http, lab.home)
    await lab.workers.measure(await run(lab.http, image_id=image), image, 87.5)
    line = in_one_line((await bioscope("results", "show")).stdout)
    assert "label viability verdict clear value 87.5 review" in line
    assert "█" not in line
    title, row = (await bioscope("results", "list")).stdout.splitlines()
    assert (title.split(), row.split()) == (["file", "label", "value", "model"], ["cell.jpg", "viability", "87.5", "shapes@1"])
    await lab.result()
    assert "confidence or value" in (await bioscope("results", "list")).stdout.splitlines()[0]


async def test_without_any_result_none_is_shown(bioscope, lab):  # noqa: F811 - a fixture
    assert "there is no result that you may see" in (await bioscope("results", "show", code=2)).stderr
    assert "Result not found" in (await bioscope("results", "show", uuid4(), code=1)).stderr


async def test_results_are_exported_to_a_file_by_its_ending_and_to_stdout(bioscope, lab, tmp_path):  # noqa: F811 - a fixture
    _, low = await lab.result(confidence=0.4)
    _, high = await lab.result(confidence=0.9)
    assert "The results are in r.csv (" in in_one_line((await bioscope("results", "export", "r.csv")).stderr)
    assert [row["classification_id"] for row in rows_of((tmp_path / "r.csv").read_text())] == [high, low]
    await bioscope("results", "export", "r.json", "--max-confidence", "0.5")
    assert [row["classification_id"] for row in json.loads((tmp_path / "r.json").read_text())] == [low]
    printed = await bioscope("results", "export", "-", "--job", high)
    assert [row["classification_id"] for row in rows_of(printed.stdout)] == [high]
    as_json = await bioscope("results", "export", "-", "--format", "json", "--job", high)
    assert [row["classification_id"] for row in json.loads(as_json.stdout)] == [high]


async def test_an_export_needs_an_ending_that_names_its_format(bioscope, lab, tmp_path):  # noqa: F811 - a fixture
    for name in ("r.xlsx", "r"):
        refused = await bioscope("results", "export", name, code=2)
        assert f"{name} ends in neither .csv nor .json: choose such a name, or give --format" in in_one_line(refused.stderr)
    await bioscope("results", "export", "r.txt", "--format", "csv")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["r.txt"]


async def test_a_result_is_shown_as_it_was(bioscope, lab):  # noqa: F811 - a fixture
    _, job = await lab.result(confidence=0.75)
    before = lab.workers.log.head()
    await bioscope("policies", "set", "job", job, "--label-at", "flat=0.1", "--reason", "A trial")
    for moment, label in ((before, "round"), (lab.workers.log.head(), "flat")):
        printed = (await bioscope("results", "show", "--as-of", moment, "--json")).stdout
        assert_shape(shapes()["bioscope results show"], printed)
        assert (json.loads(printed)["label"], json.loads(printed)["labels"]) == (label, [label])
    assert "label round verdict clear" in in_one_line((await bioscope("results", "show", "--as-of", before)).stdout)


async def test_all_labels_that_apply_are_shown_and_no_verdict_is_broken(bioscope, lab, monkeypatch):  # noqa: F811 - a fixture
    await lab.workers.model("marks", kind=OutputKind.MULTI_LABEL, digest="ab" * 32)
    image = await image_in(lab.http, lab.home, path=f"{'x' * 40}.jpg")
    job = await run(lab.http, image_id=image, model_name="marks")
    found = {"label": "round", "confidence": 0.9, "verdict": Verdict.NEEDS_REVIEW}
    await lab.workers.answer(job, image, scores={"round": 0.9, "flat": 0.6}, **found)
    assert "labels round, flat verdict needs_review" in in_one_line((await bioscope("results", "show")).stdout)
    monkeypatch.setenv("COLUMNS", "82")
    lines = (await bioscope("results", "list")).stdout.splitlines()
    assert max(map(len, lines)) <= 82
    assert "round, flat" in lines[1]
    assert lines[2].strip() == "(needs review)"


async def test_an_export_without_results_says_so(bioscope, lab, tmp_path):  # noqa: F811 - a fixture
    said = (await bioscope("results", "export", "r.csv", "--label", "round")).stderr
    assert "No result matches: the export is empty." in said
    assert rows_of((tmp_path / "r.csv").read_text()) == []


async def test_a_result_under_a_policy_shows_its_rules_and_what_the_model_said(bioscope, lab):  # noqa: F811 - a fixture
    _, job = await lab.result(confidence=0.75)
    await bioscope("policies", "set", "job", job, "--review-below", "0.9", "--reason", "A trial")
    line = in_one_line((await bioscope("results", "show")).stdout)
    assert "policy of the job: review below 0.9 model said round, 75.0%, clear" in line
    assert "review below 60.0%" not in line
    shown = (await bioscope("results", "show", "--json")).stdout
    assert_shape(shapes()["bioscope results show"], shown)
    assert json.loads(shown)["original"] == {"label": "round", "confidence": 0.75, "verdict": "clear"}


async def test_an_export_overwrites_nothing_and_leaves_no_half_file(bioscope, lab, tmp_path):  # noqa: F811 - a fixture
    (tmp_path / "r.csv").write_text("mine")
    assert "r.csv exists already: choose another name" in (await bioscope("results", "export", "r.csv", code=2)).stderr
    assert "there is no folder none" in (await bioscope("results", "export", "none/r.csv", code=2)).stderr
    await bioscope("results", "export", "s.csv", "--label", "a\0b", code=1)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["r.csv"]
    assert (tmp_path / "r.csv").read_text() == "mine"


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))
