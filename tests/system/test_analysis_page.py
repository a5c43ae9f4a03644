"""Every command of docs/analysis.md works as it stands, in the order of the page, in a new system, and prints what the page shows."""

from contextlib import contextmanager

import pytest

from api.cli.client.api_client import Client
from tests.rigs.documented_commands import PREPARATIONS, ROOT, Page, run, variables_of
from tests.system.conftest import PASSWORD, made_account

SIGN_IN = "bioscope login"
PAGE = Page(ROOT / "docs" / "analysis.md", without=(SIGN_IN,))
VARIABLES_BEFORE = "touch variables && source ./variables\n"
VARIABLES_AFTER = "\ndeclare -p | grep -E '^declare -- [A-Z]+=' > variables || true"
"""Blocks have the variables of those before them, as in one shell."""
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def page(own_stack, tmp_path_factory):
    """What each block printed, in a folder with the examples, as a researcher."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "examples").symlink_to(ROOT / "examples")
    address = "ada@example.org"
    with own_stack() as settings, Client.sign_in(settings.base_url, made_account(settings, "researcher", address), PASSWORD) as client:
        variables = variables_of(settings.base_url, client.credentials.access_token) | {"BIOSCOPE_DATA": str(settings.data)}
        with ending_classifier(folder, variables):
            blocks = [PREPARATIONS + VARIABLES_BEFORE + block + VARIABLES_AFTER for block in PAGE.blocks]
            yield [run(block, folder=folder, variables=variables) for block in blocks]


@contextmanager
def ending_classifier(folder, variables):
    """End the program that the page starts, also if a block fails before the one that ends it."""
    try:
        yield
    finally:
        run("source ./variables && kill ${CLASSIFIER:-}", folder=folder, variables=variables)


@pytest.mark.parametrize("number", range(len(PAGE.blocks)), ids=PAGE.ids)
def test_the_commands_work_as_they_stand(page, number):
    done = page[number]
    assert done.returncode == 0, f"{PAGE.blocks[number]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("number", PAGE.outputs, ids=str)
def test_the_output_is_what_the_page_shows(page, number):
    missing, printed = PAGE.missing(number, page[number])
    assert missing == [], printed


def test_the_page_shows_commands_and_their_output():
    assert len(PAGE.blocks) > 15
    assert len(PAGE.outputs) > 8
