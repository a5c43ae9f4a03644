"""A wheel in its own environment, run by another user in a folder without write access."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.other_user import NOBODY, as_user

ROOT = Path(__file__).parents[2]
INSTALL_TIMEOUT_SECONDS = 600
COMMAND_TIMEOUT_SECONDS = 180


def interpreters():
    """The supported Pythons of this machine, oldest first, by version; of each version one that every user may run, if there is one."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": str(Path(sys.executable).resolve())}
    for path, options in ((os.environ["PATH"], ["--pyenv"]), (os.defpath, [])):
        listed = subprocess.run(
            [shutil.which("bash"), ROOT / "scripts" / "find-pythons", *options],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        found |= dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    return {version: Path(found[version]) for version in sorted(found, key=lambda version: int(version.partition(".")[2]))}


def interpreter():
    """Of this version of Python."""
    return interpreters()[f"{sys.version_info.major}.{sys.version_info.minor}"]


def another_user(python):
    """A command prefix that becomes `nobody` who can run `python`; none where we are not root."""
    return as_user(NOBODY, python.resolve()) if os.geteuid() == 0 else []


def outside_environment():
    """The variables of this process that concern neither a Python environment nor this system."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BIOSCOPE_", "PYTHON", "VIRTUAL_ENV"))}


def run(argv, *, cwd, env=None, timeout=COMMAND_TIMEOUT_SECONDS):
    """The standard output. Fails with everything that was printed when the exit code is not 0."""
    done = subprocess.run(
        [str(one) for one in argv],
        cwd=cwd,
        env=outside_environment() if env is None else env,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def build_wheel(folder):
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(python, wheel, folder):
    """The wheel with its locked dependencies and the embedded servers; the path of its `bioscope`."""
    run([python, "-m", "venv", folder], cwd="/")
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    locked = ["--require-hashes", "-r", ROOT / "requirements" / "production.txt"]
    run([*pip, *locked], cwd="/", timeout=INSTALL_TIMEOUT_SECONDS)
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in locked_versions()))
    run([*pip, "-c", constraints, f"{wheel}[embedded]"], cwd="/", timeout=INSTALL_TIMEOUT_SECONDS)
    return folder / "bin" / "bioscope"


def locked_versions():
    """Every `name==version` of the development lock, without hashes."""
    lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    return [line.removesuffix("\\").strip() for line in lines if "==" in line and not line.startswith((" ", "#"))]


def version():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
