"""The limits that documents state are those of the settings and the code."""

import re

import msgspec
import pytest

from infrastructure.configuration.settings import Settings
from scripts.limits import BEGIN, END, PAGE, ROWS, page
from scripts.phrases import WORDS, numbers, pattern
from tests.documented_limits import DOCS, NO_LIMITS, STATED

A_LIMIT = re.compile(r"(^|_)(max|per|anonymous|websockets?|connections|seconds)(_|$)")
OF_WORK = re.compile(r"^(inference|chunk|reconcile|live_connections)")  # what our processes take, not what clients may


def test_the_table_is_what_make_limits_writes():
    text = PAGE.read_text()
    assert page(text) == text


def test_every_limit_on_clients_that_can_be_set_is_in_it():
    limits = {field.name for field in msgspec.structs.fields(Settings) if A_LIMIT.search(field.name) and not OF_WORK.search(field.name)}
    assert len(limits) > 15
    assert limits <= set(re.findall(r"{(\w+)}", ROWS))


# ---- limits in sentences --------------------------------------------------------------------------------------------------------------
DOCUMENTS = ["api.md", "audit.md", "events.md", *(f"operations/{path.name}" for path in sorted((DOCS / "operations").glob("*.md")))]
UNIT = r"(?:s|ms|seconds?|minutes?|hours?|days|[KMG]i?B|bytes|characters|requests|events|messages|sockets|places|uploads|attempts)"
WITH_UNIT = re.compile(rf"(?<![\w.,-])(?:\d[\d,.]*|{'|'.join(WORDS[2:])})\s+{UNIT}\b")
NOT_PROSE = re.compile(rf"^```.*?^```|{re.escape(BEGIN)}.*?{re.escape(END)}", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("one", STATED, ids=lambda one: f"{one.document}: {one.phrase}")
def test_a_limit_in_a_sentence_is_that_of_the_code(one):
    assert numbers((DOCS / one.document).read_text(), one.phrase) == one.values


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_number_with_a_unit_is_compared_with_the_code(document):
    text = NOT_PROSE.sub(lambda found: " " * len(found[0]), (DOCS / document).read_text())
    patterns = [pattern(one.phrase) for one in STATED if one.document == document]
    patterns += [re.compile(r"\s+".join(map(re.escape, words.split()))) for name, words in NO_LIMITS if name == document]
    compared = [found.span() for pattern in patterns for found in pattern.finditer(text)]
    unknown = [found[0] for found in WITH_UNIT.finditer(text) if not any(begin <= found.start() < end for begin, end in compared)]
    assert unknown == [], "add these to tests/documented_limits.py"


@pytest.mark.parametrize(("document", "words"), NO_LIMITS)
def test_what_is_no_limit_is_still_written(document, words):
    assert words in " ".join((DOCS / document).read_text().split())
