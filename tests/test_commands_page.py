"""docs/commands.md is what the command line says of itself, and every command in the documents exists."""

import re
from pathlib import Path

import click
import pytest

from api.cli import main
from api.cli.exit_codes import MEANINGS
from scripts.commands import PAGE, commands, page


def test_the_page_is_what_make_commands_writes():
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_page_does_not_depend_on_the_environment(monkeypatch):
    before = page()
    monkeypatch.setenv("BIOSCOPE_DATA", "/srv/elsewhere")
    monkeypatch.setenv("BIOSCOPE_PASSWORD", "canary")
    monkeypatch.setenv("COLUMNS", "60")
    assert page() == before


def test_every_command_its_example_and_every_exit_code_are_on_it():
    text = PAGE.read_text(encoding="utf-8")
    found = dict(commands())
    assert len(found) > 35
    for name, command in found.items():
        assert f"# {name}\n" in text
        assert f"```sh\n{command.example}\n```" in text
    for code, meaning in MEANINGS.items():
        assert f"| {code} | {meaning} |" in text


ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".env.example", *(ROOT / "docs").rglob("*.md")]
COMMAND = re.compile(r"`bioscope\s([^`]+)`|^(?:\S+\$\()?bioscope ([^#\n]+)|\$\(bioscope ([^)]+)\)", re.MULTILINE)
NO_COMMAND = {"key id": "a text that is hashed, in docs/keys.md"}


def named_commands(text):
    return [
        next(filter(None, found)).split()
        for found in COMMAND.findall(text)
        if " ".join(next(filter(None, found)).split()) not in NO_COMMAND
    ]


def wrong_words(words):
    """The words that are neither a command nor an option of it, up to the first argument."""
    command = main
    while words and isinstance(command, click.Group) and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    wrong = [word for word in words if word.startswith("--") and word not in options]
    if isinstance(command, click.Group) and words and not words[0].startswith("-") and not words[0].isupper():
        wrong.append(words[0])
    return wrong


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_command_in_a_document_exists(document):
    found = named_commands(document.read_text(encoding="utf-8"))
    assert [(words, wrong_words(words)) for words in found if wrong_words(words)] == []


def test_commands_are_found_and_wrong_ones_noticed():
    text = "`bioscope users\nlist --role admin`, `bioscope user list`\nX=$(bioscope tokens create x --scop y)\nbioscope up  # now\n"
    assert [wrong_words(words) for words in named_commands(text)] == [[], ["user"], ["--scop"], []]
    assert sum(len(named_commands(document.read_text(encoding="utf-8"))) for document in DOCUMENTS) > 150
