"""The build stage of the Dockerfile, carried out in a folder instead of a container."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.release.installing import INSTALL_TIMEOUT_SECONDS, ROOT, interpreter, outside_environment

MAPPED = re.compile(r"(?<![\w./-])/(opt|src|tmp)(?=/|\s|$)")  # absolute paths of the image that the build writes to


class Instruction(NamedTuple):
    name: str
    rest: str


def stages(text):
    """The instructions of each stage, in order; a stage begins with FROM."""
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if name == "FROM":
            found.append([])
        found[-1].append(Instruction(name, rest.strip()))
    return found


class Build:
    """Carries out instructions below `root`, which takes the place of /."""

    def __init__(self, root):
        self.root, self.folder = root, root
        (root / "tmp").mkdir()

    def carry_out(self, instruction):
        match instruction.name:
            case "FROM":
                assert re.match(r"python:3\.\d+", instruction.rest)
            case "WORKDIR":
                self.folder = self.root / instruction.rest.removeprefix("/")
                self.folder.mkdir(parents=True)
            case "COPY":
                self._copy(*instruction.rest.split())
            case "RUN":
                self._run(instruction.rest)
            case other:
                raise AssertionError(f"the build stage uses {other}, which this test cannot carry out")

    def _copy(self, *paths):
        *sources, target = paths
        for source in sources:
            origin, place = ROOT / source, self.folder / target
            if origin.is_dir():
                shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into = place / origin.name if target.endswith("/") else place
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, into)

    def _run(self, command):
        mapped = MAPPED.sub(lambda found: f"{self.root}/{found[1]}", command)
        script = f'set -e\npython() {{ {interpreter()} "$@"; }}\n{mapped}'
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=self.folder,
            env=outside_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_TIMEOUT_SECONDS,
        )
        assert done.returncode == 0, f"RUN {mapped}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def copied(stage):
    """Every path of the checkout that a stage copies."""
    for name, rest in stage:
        if name == "COPY" and not rest.startswith("--from"):
            yield from (Path(path) for path in rest.split()[:-1])
