"""Figures in the documentation are the measured ones."""

import re
from pathlib import Path

import msgspec

from benchmarks.chart import drawn
from benchmarks.measure import Row
from benchmarks.page import PAGE, refreshed

SCALING = PAGE.with_name("scaling.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results.json"


def measured():
    return msgspec.json.decode(RESULTS.read_bytes())


def rows():
    return [msgspec.convert({name: value for name, value in row.items() if name != "reached"}, Row) for row in measured()]


def test_a_goal_is_called_reached_where_the_figure_says_so():
    assert [row["reached"] for row in measured()] == [row.reached for row in rows()]


def test_the_page_shows_the_figures_that_were_measured():
    assert refreshed(PAGE.read_text(), rows()) == PAGE.read_text()
    assert all(row.name in PAGE.read_text() for row in rows())


def test_the_figures_that_the_page_on_scaling_names_are_rows_of_the_table():
    named = {" ".join(name.lower().split()) for name in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", SCALING.read_text())}
    assert "append, 64 writers" in named
    assert named <= {row.name.lower() for row in rows()}


def test_the_chart_is_of_these_figures():
    assert (RESULTS.parent / "chart.png").read_bytes() == drawn(rows())
