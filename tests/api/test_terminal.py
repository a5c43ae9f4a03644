"""The output of a run: tables and CSV show any file name and any error as it is."""

import csv
import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from api.cli.client.api_client import UploadResult
from api.cli.client.image_folder import image_file
from api.cli.client.terminal import Line, RunReport, as_csv, classify, print_results, summary
from api.spreadsheets import spreadsheet_safe
from domain.values import ImageWarning

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=30)
STARTS = st.sampled_from(["", "=", "+", "-", "@", "\t", "\r", "'", "[/]", "[red]"])


def reported(*lines):
    return RunReport(job_id="job", status="completed", lines=lines, seconds=1.0)


def rows_of(report):
    return list(csv.DictReader(io.StringIO(as_csv(report), newline="")))


@given(STARTS, TEXTS, st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_no_cell_begins_a_formula_and_numbers_stay_numbers(start, text, number):
    cell = spreadsheet_safe(start + text)
    assert cell.removeprefix("'") == (start + text).removeprefix("'")
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert spreadsheet_safe(number) is number


@given(STARTS, TEXTS, TEXTS, st.floats(-1, 1))
def test_csv_reads_back_as_what_was_reported(start, file, error, confidence):
    (row,) = rows_of(reported(Line(file=start + file, error=error, confidence=confidence)))
    assert row["file"] == spreadsheet_safe(start + file)
    assert row["error"] == spreadsheet_safe(error)
    assert float(row["confidence"]) == confidence


@given(STARTS, TEXTS, TEXTS)
def test_a_table_shows_any_name_and_any_error_as_it_is(start, file, error):
    out = io.StringIO()
    lines = (Line(file=start + file, label=file, verdict="clear"), Line(file="a.tif", error=error))
    print_results(reported(*lines), console=Console(file=out))
    shown = " ".join(out.getvalue().split())
    assert all(word in shown for word in f"{file} {error}".split() if word.isascii())


def test_names_that_look_like_markup_or_emoji_are_shown_as_they_are():
    out = io.StringIO()
    print_results(reported(Line(file="[/]img[red]:smile:.tif", error="[/bold] refused")), console=Console(file=out))
    assert "[/]img[red]:smile:.tif" in out.getvalue()
    assert "[/bold] refused" in out.getvalue()


@pytest.mark.parametrize("name", ["A1/img.tif", "A2/img.tif"])
def test_files_of_the_same_name_are_distinguished_in_every_format(name):
    image = image_file(Path("/data", name), Path("/data"))
    report = reported(Line(file=image.shown))
    out = io.StringIO()
    print_results(report, console=Console(file=out))
    assert name in out.getvalue()
    assert rows_of(report)[0]["file"] == msgspec.to_builtins(report)["lines"][0]["file"] == name


def test_results_fit_80_columns_and_warnings_are_in_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    warning = ImageWarning("planes_ignored", "The file has 20 focal planes. The middle one was classified, and all others were ignored.")
    line = Line(
        file="encodings/SNE_209892_big_endian.tif",
        label="immature granulocyte",
        verdict="needs_review",
        truth="neutrophil",
        confidence=0.51,
        warnings=(warning,),
    )
    print_results(reported(line, line), console=Console(file=out))
    lines = out.getvalue().splitlines()
    assert lines[1].split() == ["file", "label", "truth", "confidence"]
    assert max(map(len, lines)) <= 80
    assert warning.detail in " ".join(out.getvalue().replace(line.file, "").split())


def test_the_model_and_its_version_are_named_in_every_format():
    report = msgspec.structs.replace(reported(Line(file="a.tif")), model_name="pbc8", model_version=3)
    out = io.StringIO()
    print_results(report, console=Console(file=out))
    assert out.getvalue().splitlines()[0] == "Classification job: pbc8 version 3"
    (row,) = rows_of(report)
    assert (row["model_name"], row["model_version"]) == ("pbc8", "3")
    assert list(row) == [
        "file", "image_id", "label", "confidence", "verdict", "truth", "latency_ms", "error", "warnings", "value",
        "model_name", "model_version", "labels", "scores", "unit",
    ]  # fmt: skip
    assert msgspec.to_builtins(report)["model_version"] == 3


def test_the_summary_counts_verdicts_and_says_how_many_labels_the_accuracy_is_of():
    verdicts = [("clear", "a", "a"), ("clear", "a", ""), ("needs_review", "a", "b"), ("out_of_domain", "b", "")]
    lines = [Line(file="x", verdict=verdict, label=label, truth=truth) for verdict, label, truth in verdicts]
    failures = [Line(file="y", error="refused"), Line(file="z", error="refused")]
    counts = "6 images: 2 clear, 1 to review, 1 out of domain, 2 failures; accuracy 50.0% of 2 labelled; 6 images/s (job job: completed)"
    assert summary(reported(*lines, *failures)) == counts
    assert summary(reported(lines[1])) == "1 image: 1 clear; 1 images/s (job job: completed)"
    assert summary(reported(failures[0])).startswith("1 image: 1 failure; ")


def test_numbers_stand_in_place_of_a_confidence_and_are_compared_with_no_label():
    lines = [
        Line(file="a.tif", label="viability", verdict="clear", value=87.5, truth="90"),
        Line(file="b.tif", label="viability", verdict="needs_review", value=0.000012345678, truth=""),
        Line(file="c.tif", error="refused", truth="80"),
    ]
    report = reported(*lines)
    out = io.StringIO()
    print_results(report, console=Console(file=out))
    assert [line.split() for line in out.getvalue().splitlines()[1:]] == [
        ["file", "label", "truth", "value"],
        ["a.tif", "viability", "90", "87.5"],
        ["b.tif", "viability", "(needs", "review)", "1.23457e-05"],
        ["c.tif", "refused", "80"],
    ]
    assert [row["value"] for row in rows_of(report)] == ["87.5", "1.2345678e-05", ""]
    assert [line["value"] for line in msgspec.to_builtins(report)["lines"]] == [87.5, 0.000012345678, None]
    assert "accuracy" not in summary(report)


def test_an_image_with_none_of_several_labels_is_shown_with_its_confidence():
    out = io.StringIO()
    print_results(reported(Line(file="a.tif", label="none", verdict="clear", confidence=0.83)), console=Console(file=out))
    assert [line.split() for line in out.getvalue().splitlines()[1:]] == [["file", "label", "confidence"], ["a.tif", "none", "83.0%"]]


class Answers:
    """A client whose job has these results, and which remembers what was asked for."""

    def __init__(self, *results, **version):
        self._results, self._version, self.asked = results, version, {}

    def create_dataset(self, name):
        return "the-dataset"

    def upload_all(self, dataset, images):
        return [UploadResult(image, id=str(number)) for number, image in enumerate(images)]

    def run(self, dataset, *, choices):
        self.asked = choices
        return "the-job"

    def watch(self, job, *, on_outage):
        moment = "2026-03-02T09:31:00Z"
        about = {"status": "completed", "created_at": moment, "updated_at": moment}
        model = {"model_name": "cells", "model_id": "the-model", "model_version": 2}
        return [{**about, **model, "succeeded": 1, "failed": 0, "images": 1}]

    def model_version(self, model, number):
        assert (model, number) == ("the-model", 2)
        return self._version

    def results(self, job):
        about = {"created_at": "2026-03-02T09:31:00Z", "verdict": "clear", "warnings": [], "confidence": 0.0}
        return [{"image_id": str(number), **about, **result} for number, result in enumerate(self._results)]


def test_the_choices_of_a_job_reach_the_server_and_its_numbers_the_report():
    client, image = Answers({"label": "viability", "value": 87.5}), image_file(Path("/data/a.tif"), Path("/data"))
    choices = {"model_name": "cells", "model_version": "2", "planes": {"z": "max"}, "fresh": True}
    report = classify(client, [image], dataset_name="x", choices=choices, truth={}, console=Console(file=io.StringIO()))
    assert client.asked == choices
    assert [line.value for line in report.lines] == [87.5]


def test_results_of_a_server_without_numbers_are_shown():
    client, image = Answers({"label": "round"}), image_file(Path("/data/a.tif"), Path("/data"))
    report = classify(client, [image], dataset_name="x", truth={}, console=Console(file=io.StringIO()))
    assert [(line.label, line.value) for line in report.lines] == [("round", None)]


def report_of(*results, **version):
    images = [image_file(Path(f"/data/{number}.tif"), Path("/data")) for number in range(len(results))]
    console = Console(file=io.StringIO())
    return classify(Answers(*results, **version), images, dataset_name="x", truth={}, console=console)


def table_of(report):
    out = io.StringIO()
    print_results(report, console=Console(file=out))
    return [line.split() for line in out.getvalue().splitlines()[1:]]


def test_all_labels_that_apply_are_shown_in_every_format():
    both = {"none": 0.0, "vacuoles": 1.0, "granules": 0.98, "nuclei": 0.4, "walls": 0.5}
    neither = {"none": 0.9, "vacuoles": 0.1, "granules": 0.0, "nuclei": 0.0, "walls": 0.0}
    report = report_of({"label": "vacuoles", "scores": both}, {"label": "none", "scores": neither}, label_threshold=0.5)
    assert [line.labels for line in report.lines] == [("vacuoles", "granules", "walls"), ("none",)]
    assert table_of(report)[1:] == [["0.tif", "vacuoles,", "granules,", "walls", "0.0%"], ["1.tif", "none", "0.0%"]]
    first, second = rows_of(report)
    assert (first["label"], first["labels"], second["labels"]) == ("vacuoles", "vacuoles; granules; walls", "none")
    assert first["scores"] == "vacuoles=1.0000; granules=0.9800; walls=0.5000; nuclei=0.4000; none=0.0000"
    assert [line["scores"] for line in msgspec.to_builtins(report)["lines"]] == [both, neither]


def test_one_label_alone_applies_where_labels_exclude_each_other():
    report = report_of({"label": "round", "scores": {"round": 0.5, "flat": 0.5}}, label_threshold=None)
    assert [(line.labels, line.scores) for line in report.lines] == [(("round",), {"round": 0.5, "flat": 0.5})]


def test_numbers_are_shown_with_their_unit():
    report = report_of({"label": "cells", "value": 4.5, "scores": {"cells": 0.1}}, unit="per field")
    assert table_of(report)[0] == ["file", "label", "value", "(per", "field)"]
    assert [row["unit"] for row in rows_of(report)] == ["per field"]
    assert msgspec.to_builtins(report)["unit"] == "per field"


class ClientInterruptedWhile:
    """Accepts everything, until the user presses Ctrl-C."""

    def __init__(self, doing):
        self._doing = doing

    def create_dataset(self, name):
        return "the-dataset"

    def upload_all(self, dataset, images):
        if self._doing == "upload":
            raise KeyboardInterrupt
        return [UploadResult(image, id="an-image") for image in images]

    def run(self, dataset, **choices):
        return "the-job"

    def watch(self, job, *, on_outage):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("doing", "remaining"),
    [("upload", ["images are in the dataset the-dataset"]), ("watch", ["the-job continues on the server", "in the dataset the-dataset"])],
)
def test_an_interrupted_run_says_what_remains_on_the_server(doing, remaining):
    out = io.StringIO()
    image = image_file(Path("/data/a.tif"), Path("/data"))
    with pytest.raises(KeyboardInterrupt):
        classify(ClientInterruptedWhile(doing), [image], dataset_name="x", truth={}, console=Console(file=out))
    assert all(text in out.getvalue() for text in remaining)
    assert ("the-job" in out.getvalue()) == (doing == "watch")
