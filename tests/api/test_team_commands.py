"""`bioscope datasets` and `bioscope teams`: datasets are shared through the API, by the person who is signed in."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.client.credentials import Credentials, store_credentials
from application import accounts
from domain.access import Role
from scripts.commands import shapes
from tests.api.http_calls import dataset
from tests.api.test_accounts import login
from tests.api.test_commands import assert_shape
from tests.api.test_registry_commands import url  # noqa: F401 - a fixture

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bioscope(api, url, monkeypatch, tmp_path):  # noqa: F811 - a fixture
    """Signed in as a researcher who owns one dataset."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "200")
    address = api.account(Role.RESEARCHER)
    tokens = (await login(api, address)).json()
    store_credentials(Credentials(url, tokens["access_token"], tokens["refresh_token"]))
    await dataset(await api.signed_in(address))

    async def run_command(*arguments, code=0):
        ended = await asyncio.to_thread(CliRunner().invoke, main, [*map(str, arguments)])
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        return ended

    return run_command


@pytest.fixture
def colleague(api):
    address = api.account(Role.ANALYST)
    return address, accounts.find(address, api.services.log)


async def printed(bioscope, *command):
    ended = await bioscope(*command, "--json")
    assert_shape(shapes()[f"bioscope {' '.join(command[:2])}"], ended.stdout)
    return json.loads(ended.stdout)


async def test_a_dataset_is_shared_with_an_account_and_transferred(bioscope, colleague):
    address, person = colleague
    [mine] = await printed(bioscope, "datasets", "list")
    assert mine["name"] in (await bioscope("datasets", "list")).stdout
    await bioscope("datasets", "share", mine["name"], address, "--grant", "analyst")
    shares = await printed(bioscope, "datasets", "shares", mine["name"])
    assert [(one["kind"], one["name"], one["grant"]) for one in shares[1:]] == [("user", person.username, "analyst")]
    await bioscope("datasets", "unshare", mine["name"], person.username)
    assert len(await printed(bioscope, "datasets", "shares", mine["name"])) == 1
    await bioscope("datasets", "share", mine["id"], person.id)
    await bioscope("datasets", "transfer", mine["name"], person.username)
    [given] = await printed(bioscope, "datasets", "list")
    assert (given["owner_id"], given["grant"]) == (str(person.id), "editor")


async def test_an_id_may_be_given_in_capitals(bioscope, colleague):
    _, person = colleague
    [mine] = await printed(bioscope, "datasets", "list")
    dataset_id, account = mine["id"].upper(), str(person.id).upper()
    await bioscope("datasets", "share", dataset_id, account)
    await bioscope("datasets", "unshare", dataset_id, account)
    assert len(await printed(bioscope, "datasets", "shares", dataset_id)) == 1
    await bioscope("teams", "create", "Haematology")
    [team] = await printed(bioscope, "teams", "list")
    await bioscope("teams", "add", team["id"].upper(), account)
    await bioscope("teams", "remove", team["id"].upper(), account)
    assert len(await printed(bioscope, "teams", "members", team["id"].upper())) == 1
    await bioscope("datasets", "transfer", dataset_id, account)


async def test_a_dataset_is_created_by_its_name(bioscope):
    assert "The dataset has the id" in (await bioscope("datasets", "create", "Blood smears")).output
    assert "Blood smears" in {one["name"] for one in await printed(bioscope, "datasets", "list")}


async def test_a_team_gets_a_grant_for_its_members(bioscope, colleague, api):
    address, person = colleague
    assert (await bioscope("teams", "list")).stdout == "You are in no team.\n"
    await bioscope("teams", "create", "Haematology")
    await bioscope("teams", "add", "Haematology", address)
    [team] = await printed(bioscope, "teams", "list")
    assert (team["name"], team["members"]) == ("Haematology", 2)
    assert person.username in (await bioscope("teams", "members", "Haematology")).stdout
    [mine] = await printed(bioscope, "datasets", "list")
    await bioscope("datasets", "share", mine["name"], "Haematology", "--team")
    assert "Haematology" in (await bioscope("datasets", "shares", mine["name"])).stdout
    member = await api.signed_in(address)
    assert [one["grant"] for one in (await member.get("/api/datasets")).json()] == ["viewer"]
    await bioscope("teams", "remove", team["id"], person.username)
    assert (await member.get("/api/datasets")).json() == []
    assert len(await printed(bioscope, "teams", "members", team["id"])) == 1
    await bioscope("teams", "delete", "Haematology")
    assert [one["kind"] for one in await printed(bioscope, "datasets", "shares", mine["name"])] == ["user"]


async def test_a_name_without_a_grant_or_team_is_explained(bioscope):
    [mine] = await printed(bioscope, "datasets", "list")
    refused = await bioscope("datasets", "unshare", mine["name"], "nobody", code=2)
    assert "'nobody' has no grant on the dataset" in refused.output
    assert "there is no team 'nobody'" in (await bioscope("teams", "delete", "nobody", code=2)).output
    await bioscope("teams", "create", "Haematology")
    for command in (("datasets", "share", mine["name"]), ("teams", "add", "Haematology")):
        assert "'bob' is no e-mail address" in (await bioscope(*command, "bob", code=2)).output
    assert "no account with this e-mail address" in (
        await bioscope("datasets", "share", mine["name"], "nobody@example.org", code=1)
    ).output.replace("\n", " ")
