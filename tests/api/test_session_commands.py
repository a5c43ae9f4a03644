"""`bioscope password`, `bioscope sessions` and `bioscope users sessions`."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from api.cli import main
from scripts.commands import shapes
from tests.api.conftest import PASSWORD
from tests.api.test_accounts import ME, OTHER_PASSWORD, login
from tests.api.test_commands import assert_shape
from tests.api.test_registry_commands import url  # noqa: F401 - a fixture
from tests.api.test_sessions import bearer

pytestmark = pytest.mark.anyio


@pytest.fixture
def bioscope(url, lab_settings, monkeypatch, tmp_path):  # noqa: F811 - a fixture
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("data", "postgres_url", "redis_url", "kafka_url"):
        monkeypatch.setenv(f"BIOSCOPE_{name.upper()}", str(getattr(lab_settings, name)))

    async def run_command(*arguments, code=0, **keywords):
        ended = await asyncio.to_thread(CliRunner().invoke, main, list(map(str, arguments)), **keywords)
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), "a traceback"
        return ended

    return run_command


@pytest.fixture
async def ada(api, url, bioscope):  # noqa: F811 - a fixture
    """The address of somebody who is signed in by the command line."""
    address = api.account()
    await bioscope("login", "--url", url, "--email", address, env={"BIOSCOPE_PASSWORD": PASSWORD})
    return address


async def printed(bioscope, *command):
    ended = await bioscope(*command, "--json")
    name = "bioscope users sessions" if command[0] == "users" else "bioscope sessions list"
    assert_shape(shapes()[name], ended.stdout)
    return json.loads(ended.stdout)


async def test_the_sign_in_of_the_command_line_is_listed_by_its_name(bioscope, api, ada):
    await login(api, ada)
    newest, own = await printed(bioscope, "sessions", "list")
    assert (own["device"], own["address"], own["is_current"]) == ("bioscope command line on Linux", "127.0.0.1", True)
    assert (newest["device"], newest["is_current"]) == ("Python program", False)
    table = (await bioscope("sessions", "list")).stdout.splitlines()
    assert table[0].split() == ["id", "device", "address", "signed", "in", "last", "used"]
    assert [line.split()[0] for line in table[1:]] == [newest["id"], own["id"]]
    assert table[2].endswith("this one")


async def test_one_session_ends_or_all_others(bioscope, api, ada):
    others = [(await login(api, ada)).json()["access_token"] for _ in range(3)]
    first = (await printed(bioscope, "sessions", "list"))[0]
    assert "has ended" in (await bioscope("sessions", "end", first["id"])).stderr
    assert len(await printed(bioscope, "sessions", "list")) == 3
    await bioscope("sessions", "end", "--all")
    (left,) = await printed(bioscope, "sessions", "list")
    assert left["is_current"]
    for token in others:
        assert (await api.anonymous().get(ME, headers=bearer(token))).status_code == 401


async def test_what_to_end_must_be_said_once(bioscope, ada):
    session = (await printed(bioscope, "sessions", "list"))[0]["id"]
    for arguments in ((), (session, "--all")):
        assert "or --all" in (await bioscope("sessions", "end", *arguments, code=2)).stderr


async def test_the_session_of_somebody_else_and_no_session_are_refused_alike(bioscope, api, ada):
    other = api.account()
    await login(api, other)
    (theirs,) = await printed(bioscope, "users", "sessions", other)
    for each in (theirs["id"], "c3d4e5f6-a7b8-4c9d-8e0f-2a3b4c5d6e0e"):
        assert (await bioscope("sessions", "end", each, code=1)).stderr.splitlines()[-1] == "bioscope: Session not found"
    assert len(await printed(bioscope, "users", "sessions", other)) == 1


async def test_the_own_password_is_changed_and_other_sessions_end(bioscope, api, ada):
    other = (await login(api, ada)).json()["access_token"]
    passwords = {"BIOSCOPE_PASSWORD": PASSWORD, "BIOSCOPE_NEW_PASSWORD": OTHER_PASSWORD}
    assert "is changed" in (await bioscope("password", env=passwords)).stderr
    assert (await api.anonymous().get(ME, headers=bearer(other))).status_code == 401
    assert len(await printed(bioscope, "sessions", "list")) == 1
    assert (await login(api, ada)).status_code == 401
    assert (await login(api, ada, OTHER_PASSWORD)).status_code == 200


async def test_both_passwords_are_asked_for_at_the_terminal_and_never_shown(bioscope, api, ada):
    ended = await bioscope("password", input=f"{PASSWORD}\n{OTHER_PASSWORD}\n{OTHER_PASSWORD}\n")
    assert PASSWORD not in ended.output
    assert OTHER_PASSWORD not in ended.output
    assert (await login(api, ada, OTHER_PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("current", "new", "message"),
    [
        ("a wrong password 12", OTHER_PASSWORD, "The current password is wrong"),
        (PASSWORD, "qwertyuiopasdfghjkl", "is a sequence or a repetition"),
        (PASSWORD, "too short", "15 to 128 characters"),
    ],
)
async def test_a_refused_password_says_why_and_changes_nothing(bioscope, api, ada, current, new, message):
    ended = await bioscope("password", env={"BIOSCOPE_PASSWORD": current, "BIOSCOPE_NEW_PASSWORD": new}, code=1)
    assert message in ended.stderr
    assert new not in ended.stderr
    assert (await login(api, ada)).status_code == 200


async def test_without_a_sign_in_the_commands_say_what_to_do(bioscope):
    for command in (("password",), ("sessions", "list"), ("sessions", "end", "--all")):
        assert "bioscope login" in (await bioscope(*command, code=2)).stderr


async def test_on_the_server_all_sessions_of_an_account_are_listed_and_ended(bioscope, api):
    address = api.account()
    tokens = [(await login(api, address)).json()["access_token"] for _ in range(2)]
    assert len(await printed(bioscope, "users", "sessions", address)) == 2
    ended = await bioscope("users", "sessions", address, "--end")
    assert f"All sessions of {address} have ended." in ended.stderr
    assert await printed(bioscope, "users", "sessions", address) == []
    for command in (("users", "sessions", address), ("users", "sessions", address, "--end")):
        ended = await bioscope(*command)
        assert (f"{address} has no open session." in ended.stdout, "have ended" in ended.stderr) == (True, False)
    api_again = api.with_options()
    for token in tokens:
        assert (await api_again.anonymous().get(ME, headers=bearer(token))).status_code == 401
