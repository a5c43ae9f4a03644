"""Every command of docs/models/add.md works as it stands, in the order of the page, in a new system, and prints what the page shows."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.cli.client.api_client import Client
from tests.system.conftest import PASSWORD, made_account

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models" / "add.md").read_text(encoding="utf-8")
OF_OTHER_TOOLS = ("bioimageio ",)
SIGN_IN = "bioscope login"
RETIRED_TWICE = ("models/vesicles/retire", "models/granules/retire")
PAST = "2026-12-01T12:00:00Z"
PREPARATIONS = """\
set -euo pipefail
curl() { command curl --fail-with-body --max-time 60 "$@"; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
answered() {
  for _ in $(seq 300); do
    curl -s "$URL/api/model-checks" -H "$AUTH" | grep -q '"status":"pending"' || return 0
    sleep 0.1
  done
  return 1
}
"""
pytestmark = pytest.mark.long


VARYING = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # ids
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}(?::[0-9]{2})?|\b[0-9a-f]{12}\b"  # times, and digests of archives
    r"|[0-9.]+ (?:ms|images/s)"
    r"|largest difference [0-9.e-]+|(?<=\.[0-9]{3})[0-9]+"  # arithmetic that differs between processors
)


def comparable(line):
    """Without what differs from run to run."""
    return VARYING.sub("*", line.rstrip())


def outputs():
    """What the page shows of the output of a block, by the number of the block."""
    pairs = re.findall(r"^```sh\n((?:(?!```).*\n)*)```\n\n```console\n((?:(?!```).*\n)*)```", PAGE, re.MULTILINE)
    return {blocks().index(block): shown.splitlines() for block, shown in pairs}


def blocks():
    """The commands of the page, block by block, without those of other tools and the sign-in, which asks for a password."""
    found = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [block for block in found if not block.startswith((*OF_OTHER_TOOLS, SIGN_IN))]


@pytest.fixture(scope="module")
def page(own_stack, tmp_path_factory):
    """What each block printed, in a folder with the examples, as an administrator with a dataset of two channels."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "examples").symlink_to(ROOT / "examples")
    with own_stack() as settings, Client.sign_in(settings.base_url, made_account(settings, "admin", "ada@example.org"), PASSWORD) as client:
        dataset = client.create_dataset("stacks")
        assert client.upload(dataset, ROOT / "examples" / "models" / "images" / "stacks" / "stack.tif").id
        token = client.credentials.access_token
        variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "URL": settings.base_url,
            "AUTH": f"Authorization: Bearer {token}",
            "BIOSCOPE_URL": settings.base_url,
            "BIOSCOPE_TOKEN": token,
            "DATASET": dataset,
            "USER_ID": client.get("/api/users/me")["id"],
            "COLUMNS": "80",
        }
        done = []
        for block in blocks():
            text = block.replace(*RETIRED_TWICE).replace(PAST, datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
            command = ["bash", "-c", f"{PREPARATIONS}{text}\nanswered"]
            done.append(
                subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=120)
            )
        yield done


@pytest.mark.parametrize("number", range(len(blocks())), ids=[block.splitlines()[0][:50] for block in blocks()])
def test_the_commands_work_as_they_stand(page, number):
    done = page[number]
    assert done.returncode == 0, f"{blocks()[number]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("number", outputs(), ids=str)
def test_the_output_is_what_the_page_shows(page, number):
    printed = [comparable(line) for line in (page[number].stdout + page[number].stderr).splitlines()]
    assert [line for line in outputs()[number] if comparable(line) not in printed] == [], printed


def test_the_page_has_commands_for_both_ways():
    text = "\n".join(blocks())
    assert len(re.findall(r"^bioscope ", text, re.MULTILINE)) > 8
    assert len(outputs()) > 4
    assert len(re.findall(r"^(?:CHECK=\$\()?curl ", text, re.MULTILINE)) > 8
