"""The documents agree with the tree: files that they name exist, and links work."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PLACEHOLDER = re.compile(r"NOUN|NAME|FILE|NNNN|[*<{]")
FILE = re.compile(r"`((?:domain|application|infrastructure|projections|api|tests|scripts|benchmarks|docs|deploy)/[^`\s+]*(?:\.\w+|/))`")
LINK = re.compile(r"\]\(([^)#\s]+)")


def named(pattern, document):
    text = document.read_text(encoding="utf-8")
    return [name for name in pattern.findall(text) if not PLACEHOLDER.search(name) and "://" not in name and not name.startswith("mailto:")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_file_that_is_named_exists(document):
    missing = [name for name in named(FILE, document) if not (ROOT / name.partition(":")[0]).exists()]
    assert not missing or document.name == "CHANGELOG.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    assert [link for link in named(LINK, document) if not (document.parent / link).exists()] == []


NAME_IN_FILE = re.compile(r"`(\w+)`(?:, `\w+`)* in `([\w/]+\.(?:py|sql))`")


@pytest.mark.parametrize("name", ["architecture", "glossary"])
def test_every_name_that_is_said_to_be_in_a_file_is_there(name):
    said = NAME_IN_FILE.findall((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"))
    assert [(one, path) for one, path in said if not re.search(rf"\b{one}\b", (ROOT / path).read_text(encoding="utf-8"))] == []


def test_the_map_names_many_files():
    """A pattern that finds nothing would prove nothing."""
    assert len(named(FILE, ROOT / "docs" / "architecture.md")) > 30
    assert len(named(FILE, ROOT / "docs" / "glossary.md")) > 30
