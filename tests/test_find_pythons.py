"""scripts/find-pythons: interpreters that run, the newest first."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "find-pythons"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def path(tmp_path):
    """A folder that alone is on PATH, without any Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sort").symlink_to(shutil.which("sort"))
    return folder


def interpreter(file, identity):
    """A program that answers as an interpreter of that identity would; None: one that does not run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n" + (f"echo {identity}\n" if identity else "echo 'command not found' >&2; exit 127\n"))
    file.chmod(0o755)


def find(path, *arguments, **environment):
    return subprocess.run(
        [shutil.which("bash"), SCRIPT, *arguments],
        env={"PATH": str(path), "HOME": str(path.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_newest_comes_first_however_they_are_found(path):
    for version in ("3.11", "3.14", "3.12"):
        interpreter(path / f"python{version}", f"{version} /opt/{version}")
    assert find(path).stdout.splitlines() == ["3.14 /opt/3.14", "3.12 /opt/3.12", "3.11 /opt/3.11"]


@pytest.mark.parametrize("identity", [None, "", "3.11 /opt/3.11"], ids=["does not run", "no CPython, or without venv", "another version"])
def test_one_that_is_not_what_its_name_says_is_passed_over(path, identity):
    interpreter(path / "python3.13", identity)
    interpreter(path / "python3.12", "3.12 /opt/3.12")
    assert find(path).stdout.splitlines() == ["3.12 /opt/3.12"]


def test_a_later_one_on_the_path_is_taken_where_the_first_does_not_run(path, tmp_path):
    interpreter(path / "python3.13", None)
    interpreter(tmp_path / "later" / "python3.13", "3.13 /later/3.13")
    assert find(path, PATH=f"{path}:{tmp_path}/later").stdout.splitlines() == ["3.13 /later/3.13"]


def test_the_versions_of_pyenv_are_found_only_when_asked_for(path, tmp_path):
    interpreter(path / "python3.11", "3.11 /opt/3.11")
    for patch in ("3.13.9", "3.13.10", "3.12.1"):
        interpreter(tmp_path / "pyenv" / "versions" / patch / "bin" / f"python{patch[:4]}", f"{patch[:4]} /pyenv/{patch}")
    environment = {"PYENV_ROOT": str(tmp_path / "pyenv")}
    assert find(path, **environment).stdout.splitlines() == ["3.11 /opt/3.11"]
    assert find(path, "--pyenv", **environment).stdout.splitlines() == ["3.13 /pyenv/3.13.10", "3.12 /pyenv/3.12.1", "3.11 /opt/3.11"]


def test_one_that_is_named_is_examined_alone(path):
    interpreter(path / "python3.13", "3.13 /opt/3.13")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert find(path, sys.executable).stdout.split()[0] == version


def test_one_that_is_named_and_does_not_run_is_named_in_the_error(path):
    found = find(path, "/no/python3.12")
    assert found.returncode == 1
    assert found.stderr.startswith("/no/python3.12 is not a working CPython 3.11 to 3.14")


def test_where_there_is_none_a_sentence_says_what_to_do(path):
    interpreter(path / "python3.10", "3.10 /opt/3.10")
    found = find(path)
    assert (found.returncode, found.stdout) == (1, "")
    assert "PYTHON=/path/to/python3.13" in found.stderr


def test_each_version_that_is_found_is_one_that_the_package_admits(path):
    for minor in range(9, 20):
        interpreter(path / f"python3.{minor}", f"3.{minor} /opt/3.{minor}")
    assert [line.split()[0] for line in find(path).stdout.splitlines()] == ["3.14", "3.13", "3.12", "3.11"]
    assert PROJECT["requires-python"] == ">=3.11,<3.15"


def test_make_setup_says_what_is_needed_and_makes_nothing(path, tmp_path):
    for tool in ("env", "bash"):
        (path / tool).symlink_to(shutil.which(tool))
    checkout = tmp_path / "checkout"
    (checkout / "requirements").mkdir(parents=True)
    (checkout / "scripts").symlink_to(ROOT / "scripts")
    for file in ("Makefile", "pyproject.toml", "requirements/dev.txt"):
        shutil.copy(ROOT / file, checkout / file)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))}
    made = subprocess.run(
        [shutil.which("make"), "setup"], cwd=checkout, env={**environment, "PATH": str(path)}, capture_output=True, text=True, check=False
    )
    assert made.returncode != 0
    assert "CPython 3.11, 3.12, 3.13 or 3.14 was not found on PATH" in made.stderr
    assert not (checkout / ".venv").exists()
