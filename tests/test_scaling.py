"""docs/scaling.md calculates with the figures of docs/performance.md and of the last benchmark."""

import re

import pytest

from scripts import scaling
from scripts.phrases import PhraseMissing, number, numbers, pattern, with_numbers
from tests.documented_limits import PARTITION


def test_the_figures_are_what_make_scaling_writes():
    text = scaling.PAGE.read_text()
    assert scaling.page(text) == text, "run `make scaling`"


def test_every_figure_in_bold_is_calculated():
    """Figures in bold are the results of the page."""
    text = scaling.PAGE.read_text()
    bold = [found.span(1) for found in re.finditer(r"\*\*(\d[\d,.]*)", text)]
    calculated = {
        found.span(place)
        for phrase, _ in scaling.figures()
        for found in pattern(phrase).finditer(text)
        for place in range(1, len(found.groups()) + 1)
    }
    assert len(bold) >= 4
    assert set(bold) <= calculated


def test_a_partition_has_the_size_that_the_migrations_give():
    assert scaling.PARTITION_EVENTS == PARTITION


@pytest.mark.parametrize(
    ("value", "written"), [(8333.3, "8,300"), (0.3, "0.30"), (12.66, "13"), (1.266, "1.3"), (172_800, "170,000"), (9.96, "10.0")]
)
def test_results_are_rounded_to_two_digits(value, written):
    assert scaling.rounded(value) == written


def test_a_phrase_finds_and_replaces_numbers_across_lines():
    text = "It takes 5\nms and 1,024 bytes."
    assert numbers(text, "takes # ms and # bytes") == (5, 1024)
    assert with_numbers(text, "takes # ms and # bytes", ["6", "2"]) == "It takes 6\nms and 2 bytes."
    with pytest.raises(PhraseMissing):
        numbers(text, "takes # s")


def test_numbers_are_read_as_they_are_written():
    written = ("1,024", "0.25", "five", "half a", "a\nquarter of a", "an")
    assert [number(text) for text in written] == [1024, 0.25, 5, 0.5, 0.25, 1]
