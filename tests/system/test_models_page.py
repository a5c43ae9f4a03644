"""Every command of docs/models/add.md works as it stands, in the order of the page, in a new system, and prints what the page shows."""

import re
from datetime import UTC, datetime

import pytest

from api.cli.client.api_client import Client
from tests.rigs.documented_commands import PREPARATIONS, ROOT, Page, run, variables_of
from tests.system.conftest import PASSWORD, made_account

OF_OTHER_TOOLS = ("bioimageio ",)
SIGN_IN = "bioscope login"
PAGE = Page(ROOT / "docs" / "models" / "add.md", without=(*OF_OTHER_TOOLS, SIGN_IN))
RETIRED_TWICE = ("models/vesicles/retire", "models/granules/retire")
PAST = "2026-12-01T12:00:00Z"
UNTIL_ANSWERED = """\
answered() {
  for _ in $(seq 300); do
    curl -s "$URL/api/model-checks" -H "$AUTH" | grep -q '"status":"pending"' || return 0
    sleep 0.1
  done
  return 1
}
"""
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def page(own_stack, tmp_path_factory):
    """What each block printed, in a folder with the examples, as an administrator with a dataset of two channels."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "examples").symlink_to(ROOT / "examples")
    with own_stack() as settings, Client.sign_in(settings.base_url, made_account(settings, "admin", "ada@example.org"), PASSWORD) as client:
        dataset = client.create_dataset("stacks")
        assert client.upload(dataset, ROOT / "examples" / "models" / "images" / "stacks" / "stack.tif").id
        variables = variables_of(settings.base_url, client.credentials.access_token)
        variables |= {"DATASET": dataset, "USER_ID": client.get("/api/users/me")["id"]}
        done = []
        for block in PAGE.blocks:
            text = block.replace(*RETIRED_TWICE).replace(PAST, datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))
            done.append(run(f"{PREPARATIONS}{UNTIL_ANSWERED}{text}\nanswered", folder=folder, variables=variables))
        yield done


@pytest.mark.parametrize("number", range(len(PAGE.blocks)), ids=PAGE.ids)
def test_the_commands_work_as_they_stand(page, number):
    done = page[number]
    assert done.returncode == 0, f"{PAGE.blocks[number]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("number", PAGE.outputs, ids=str)
def test_the_output_is_what_the_page_shows(page, number):
    missing, printed = PAGE.missing(number, page[number])
    assert missing == [], printed


def test_the_page_has_commands_for_both_ways():
    text = "\n".join(PAGE.blocks)
    assert len(re.findall(r"^bioscope ", text, re.MULTILINE)) > 8
    assert len(PAGE.outputs) > 4
    assert len(re.findall(r"^(?:CHECK=\$\()?curl ", text, re.MULTILINE)) > 8
