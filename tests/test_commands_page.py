"""docs/commands.md is what the command line says of itself."""

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
