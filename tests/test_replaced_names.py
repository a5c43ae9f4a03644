"""Names that were replaced do not return: one term per concept (docs/glossary.md)."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REPLACED = dict(line.split(" -> ") for line in (Path(__file__).parent / "replaced_names.txt").read_text().splitlines())
FOLDERS = ("domain", "application", "infrastructure", "projections", "api", "tests", "benchmarks", "examples", "scripts", "training")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def replaced_names(text):
    """Each replaced name that a module uses as an identifier, with its line. Text in strings and comments does not count."""
    if not re.search(rf"\b(?:{'|'.join(REPLACED)})\b", text):
        return []
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.NAME and token.string in REPLACED]


def test_no_module_uses_a_replaced_name():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name} was replaced by {REPLACED[name]}"
        for path in FILES
        for line, name in replaced_names(path.read_text())
    ]
    assert found == []


def test_a_replaced_name_is_found_as_an_identifier_and_nowhere_else():
    old = next(iter(REPLACED))
    assert replaced_names(f"value = 1\n{old} = value\n") == [(2, old)]
    assert replaced_names(f'value = "{old}"  # {old}\nnot_{old} = 1\n') == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_is_searched(folder):
    assert any(path.is_relative_to(ROOT / folder) for path in FILES)
