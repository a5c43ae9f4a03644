"""The last lines of the demonstration: commands that work as they stand."""

import io
import sys

import pytest
from rich.console import Console

from api.cli.client.demo import DemoResult, print_demo
from api.cli.client.terminal import Line, RunReport
from api.cli.common import program
from api.cli.shapes import Verification

VERIFICATION = Verification(intact=True, events=7, heads=1, hash="", unchecked=0, problem=None, discrepancies=())
RUN = RunReport(job_id="job-1", status="completed", lines=(Line(file="a.tif", verdict="clear"),), seconds=1.0)
RESULT = DemoResult(succeeded=True, url="http://127.0.0.1:8000", email="a@example.org", password="x", run=RUN, verification=VERIFICATION)


def printed(**options):
    out = io.StringIO()
    print_demo(RESULT, console=Console(file=out), **options)
    return out.getvalue()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installation in a folder with a blank in its name, that is the current one; no other is on PATH."""
    file = tmp_path / "my env" / "bioscope"
    file.parent.mkdir()
    file.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    return file


def test_a_program_is_named_as_it_was_started(installed):
    assert program("my env/bioscope") == "'my env/bioscope'"
    assert program(str(installed)) == f"'{installed}'"


def test_a_program_that_the_shell_finds_needs_no_path(installed, monkeypatch):
    monkeypatch.setenv("PATH", str(installed.parent))
    assert program(str(installed)) == program("my env/bioscope") == "bioscope"


def test_another_program_on_the_path_is_not_named_instead(installed, monkeypatch, tmp_path):
    (tmp_path / "bioscope").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program(str(installed)) == f"'{installed}'"


def test_a_module_is_started_with_its_interpreter():
    assert program("/srv/api/cli/__main__.py") == f"{sys.executable} -m api.cli"


def test_the_demo_ends_with_a_command_that_works_as_it_stands():
    lines = printed(program=".venv/bin/bioscope", options=" --data /srv/x", stays=True).splitlines()
    assert any(line.endswith("  .venv/bin/bioscope audit trail job-1 --data /srv/x") for line in lines)
    assert lines[-1] == "demo: 1 image: 1 clear; audit verified to position 7"


def test_after_a_demo_that_stops_the_system_a_command_starts_it_again():
    stopped, running = (printed(program="bioscope", options=" --data /srv/x", stays=stays) for stays in (False, True))
    assert "  bioscope up --data /srv/x\n" in stopped.partition("bioscope audit trail")[0]
    assert "bioscope up" not in running
