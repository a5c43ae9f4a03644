"""The report of a recheck: tables for people, CSV and JSON lines for programs."""

import csv
import io
from uuid import uuid4

import msgspec
import pytest
from rich.console import Console

from api.cli.admin.recheck_report import MAX_ROWS_SHOWN, RecheckReport, ReportRow, output_to
from application.recheck.image_recheck import Change, RecheckResult
from application.recheck.outdated_results import NotChecked, OutdatedResult

IMAGE, JOB = uuid4(), uuid4()
OUTDATED = OutdatedResult(
    id=uuid4(),
    job=JOB,
    model_name="shapes",
    model_version=1,
    label="round",
    confidence=0.9,
    label_now="[flat]",
    confidence_now=0.6,
)
FOUND = RecheckResult(
    image=IMAGE,
    changes=(Change(field="axes", before="YX", after="ZYX"),),
    outdated=(OUTDATED,),
    not_checked=(NotChecked(job=JOB, detail="The model is missing. Add it again"),),
    redrawn=True,
    recorded=True,
)


def reported(output_format, *found, dry_run=False):
    """Standard output, and the summary."""
    file = io.StringIO()
    report = RecheckReport(output_to(output_format, file, Console(file=file)), dry_run=dry_run)
    for one in found:
        report.add(one)
    summary = report.close()
    return file.getvalue(), summary


def test_a_table_shows_each_kind_of_finding():
    shown, _ = reported(None, FOUND)
    for words in (
        "Corrected",
        "axes",
        "ZYX",
        "run the model again",
        "round 90.0%",
        "[flat] 60.0%",
        "Not checked",
        "Add it again",
        str(JOB),
    ):
        assert words in shown


def test_of_nothing_found_there_is_no_table():
    shown, summary = reported(None, RecheckResult(image=IMAGE))
    assert shown == ""
    assert summary == (
        "1 images checked; pictures of 0 made again, 0 corrected, 0 recorded;"
        " 0 results were computed from other pixels, 0 could not be checked."
    )


def test_a_narrow_terminal_cuts_no_id(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown, _ = reported(None, FOUND)
    assert shown.count(str(IMAGE)) == 3
    assert shown.count(str(JOB)) == 2
    assert max(map(len, shown.splitlines())) <= 80


def test_a_table_has_an_end_and_says_what_it_leaves_out():
    shown, _ = reported(None, *[FOUND] * (MAX_ROWS_SHOWN + 7))
    assert shown.count("… and 7 more: --csv lists all") == 3
    assert shown.count("ZYX") == MAX_ROWS_SHOWN


@pytest.mark.parametrize("output_format", ["csv", "json"])
def test_programs_get_the_same_rows(output_format):
    shown, _ = reported(output_format, FOUND)
    if output_format == "csv":
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(io.StringIO(shown))]
        rows = [msgspec.convert(row, ReportRow, strict=False) for row in rows]
    else:
        rows = [msgspec.json.decode(line, type=ReportRow) for line in shown.splitlines()]
    assert [row.kind for row in rows] == ["changed", "other_pixels", "not_checked"]
    assert {row.image_id for row in rows} == {str(IMAGE)}
    assert (rows[1].model, rows[1].label, rows[1].confidence, rows[1].label_now) == ("shapes version 1", "round", 0.9, "[flat]")
    assert rows[2].detail == "The model is missing. Add it again"


def test_no_cell_is_a_formula():
    outdated = msgspec.structs.replace(OUTDATED, label="=1+1")
    shown, _ = reported("csv", RecheckResult(image=IMAGE, outdated=(outdated,)))
    [row] = csv.DictReader(io.StringIO(shown))
    assert row["label"] == "'=1+1"


def test_rows_are_written_as_they_come():
    file = io.StringIO()
    report = RecheckReport(output_to("json", file, Console(file=file)), dry_run=False)
    report.add(FOUND)
    assert len(file.getvalue().splitlines()) == 3


def test_the_summary_counts_and_a_dry_run_says_that_nothing_was_written():
    _, summary = reported("csv", FOUND, FOUND)
    assert summary.startswith("2 images checked; pictures of 2 made again, 2 corrected, 2 recorded; 2 results were computed")
    _, summary = reported("csv", FOUND, dry_run=True)
    assert "1 would be corrected" in summary
    assert summary.endswith("Nothing was written.")


@pytest.mark.parametrize(("found", "complete"), [(FOUND, False), (RecheckResult(image=IMAGE, outdated=(OUTDATED,)), True)])
def test_a_run_is_complete_unless_something_could_not_be_checked(found, complete):
    report = RecheckReport(output_to("csv", io.StringIO(), Console()), dry_run=False)
    report.add(found)
    assert report.complete is complete
