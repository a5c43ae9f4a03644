"""Commands of a page of the documentation, run as they stand, and the output that the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREPARATIONS = """\
set -euo pipefail
curl() { command curl --fail-with-body --max-time 60 "$@"; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
"""
VARYING = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # ids
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}(?: [0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?|\b[0-9a-f]{12}\b"  # times, and digests of archives
    r"|[0-9.]+ (?:ms|images/s)"
    r"|largest difference [0-9.e-]+|(?<=\.[0-9]{3})[0-9]+"  # arithmetic that differs between processors
)


def comparable(line):
    """Without what differs from run to run."""
    return VARYING.sub("*", line.rstrip())


class Page:
    """A document with blocks of commands. A block that begins with one of `without` is no part of it."""

    def __init__(self, path, *, without=()):
        self.text = path.read_text(encoding="utf-8")
        found = re.findall(r"^```sh\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)
        self.blocks = [block for block in found if not block.startswith(tuple(without))]

    @property
    def ids(self):
        return [block.splitlines()[0][:50] for block in self.blocks]

    @property
    def outputs(self):
        """What the page shows of the output of a block, by the number of the block."""
        pairs = re.findall(r"^```sh\n((?:(?!```).*\n)*)```\n\n```console\n((?:(?!```).*\n)*)```", self.text, re.MULTILINE)
        return {self.blocks.index(block): shown.splitlines() for block, shown in pairs}

    def missing(self, number, done):
        """The lines that the page shows and the commands did not print, and what they printed."""
        printed = [comparable(line) for line in (done.stdout + done.stderr).splitlines()]
        return [line for line in self.outputs[number] if comparable(line) not in printed], printed


def variables_of(url, token):
    """Of a shell in which somebody is signed in."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "URL": url,
        "AUTH": f"Authorization: Bearer {token}",
        "BIOSCOPE_URL": url,
        "BIOSCOPE_TOKEN": token,
        "COLUMNS": "80",
    }


def run(commands, *, folder, variables):
    return subprocess.run(
        ["bash", "-c", commands], cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=120
    )
