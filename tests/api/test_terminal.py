"""What is printed of a run: tables and CSV whose cells are what they say, whatever a file is called."""

import csv
import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from api.cli.client.image_folder import image_file
from api.cli.client.terminal import Line, RunReport, as_csv, print_results, spreadsheet_safe

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
def test_files_of_the_same_name_are_told_apart_in_every_form(name):
    image = image_file(Path("/data", name), Path("/data"))
    report = reported(Line(file=image.shown))
    out = io.StringIO()
    print_results(report, console=Console(file=out))
    assert name in out.getvalue()
    assert rows_of(report)[0]["file"] == msgspec.to_builtins(report)["lines"][0]["file"] == name
