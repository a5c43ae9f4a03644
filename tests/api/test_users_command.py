"""`bioscope users`: accounts are listed and managed on the server's machine."""

import asyncio
import json
import re
import socket
from uuid import uuid4

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.client.credentials import Credentials, store_credentials
from application import accounts
from domain.access import Scope
from domain.user import Status
from domain.values import system_actor
from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.keys import RootKey
from tests.api.conftest import PASSWORD
from tests.api.test_accounts import ME, OTHER_PASSWORD, login
from tests.api.worker_events import now
from tests.given import NOW, actor, command

pytestmark = pytest.mark.anyio

HOST = socket.gethostname()
FIELDS = {"id", "email", "username", "first_name", "last_name", "role", "status", "institution", "department", "phone", "registered_at"}


@pytest.fixture
def bioscope(lab_settings, monkeypatch, tmp_path):
    """Runs a command on the server's machine, where nobody is signed in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")
    for name in ("data", "postgres_url", "redis_url", "kafka_url"):
        monkeypatch.setenv(f"BIOSCOPE_{name.upper()}", str(getattr(lab_settings, name)))

    async def run(*arguments, code=0, **keywords):
        ended = await asyncio.to_thread(CliRunner().invoke, main, list(arguments), **keywords)
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), "a traceback"
        return ended

    return run


async def listed(bioscope, *options):
    return json.loads((await bioscope("users", "list", "--json", *options)).stdout)


def actors(api, user_id):
    """Who did what to an account: the actors of its events, without the registration."""
    return [msgspec.json.decode(one.meta)["actor"] for one in api.services.log.history(user_id)][1:]


def loaded(api, address):
    return accounts.find(address, api.services.log)


# ---- reading -----------------------------------------------------------------------------------------------------------------------
async def test_all_accounts_are_listed_at_once_as_a_table_and_as_json(api, bioscope):
    address, other = api.account("admin"), api.account("viewer")
    table = (await bioscope("users", "list")).stdout
    for one in (loaded(api, address), loaded(api, other)):
        (line,) = [line for line in table.splitlines() if one.email in line]
        assert all(text in line for text in (one.username, "Ada Byron", one.role, "active", "2026-03-01"))
    found = await listed(bioscope)
    assert {one["email"] for one in found} == {address, other}
    assert set(found[0]) == FIELDS | {"deleted", "erased"}


async def test_a_list_is_narrowed_by_role_status_and_text(api, bioscope):
    first, second, third = api.account("admin"), api.account("viewer"), api.account("viewer")
    await bioscope("users", "disable", third)
    name = second.partition("@")[0]
    for options, expected in (
        (("--role", "Admin"), [first]),
        (("--status", "suspended"), [third]),
        (("--role", "viewer", "--status", "ACTIVE"), [second]),
        (("--search", name.upper()), [second]),
        (("--search", "ada byr"), [first, second, third]),
        (("--search", "%"), []),
        (("--search", "_"), []),
        (("--search", "\udcff"), [first, second, third]),
    ):
        assert sorted(one["email"] for one in await listed(bioscope, *options)) == sorted(expected)
    assert (await bioscope("users", "list", "--search", "nobody")).stdout == "No account matches.\n"


async def test_pages_of_a_list_lead_to_each_other(api, bioscope):
    expected = [api.account("viewer") for _ in range(5)]
    observed, more = [], ()
    while True:
        page = await bioscope("users", "list", "--json", "--limit", "2", *more)
        observed += [one["email"] for one in json.loads(page.stdout)]
        following = re.search(r"--cursor (\S+)", page.stderr)
        if following is None:
            break
        more = ("--cursor", following[1])
    assert sorted(observed) == sorted(expected)


async def test_wrong_options_of_a_list_are_refused_with_a_sentence(bioscope):
    for cursor in ("x", "\udcff", "", "e30"):
        assert "cursor" in (await bioscope("users", "list", "--cursor", cursor, code=1)).stderr
    for wrong in (["--limit", "0"], ["--limit", "201"], ["--role", "owner"], ["--status", "gone"]):
        await bioscope("users", "list", *wrong, code=2)


async def test_a_list_says_when_the_read_models_are_behind(api, bioscope, lab_settings):
    api.account("viewer")
    await listed(bioscope)
    with psycopg.connect(lab_settings.postgres_owner_url) as connection:
        connection.execute("update read.checkpoint set position = position - 1")
        connection.commit()
        assert "1 events are not in the read models yet" in (await bioscope("users", "list")).stderr


async def test_an_account_is_shown_by_address_user_name_and_id(api, bioscope):
    address = api.account("analyst")
    account = loaded(api, address)
    shown = [
        json.loads((await bioscope("users", "show", name, "--json")).stdout)
        for name in (address.upper(), account.username, str(account.id))
    ]
    assert shown[0] == shown[1] == shown[2] == (await listed(bioscope, "--search", address))[0]
    table = (await bioscope("users", "show", address)).stdout
    assert all(str(value) in table for value in (account.id, address, "analyst", "active"))


async def test_a_deleted_account_is_shown_by_its_id_alone(api, bioscope):
    api.account("admin")
    address = api.account("viewer")
    account = loaded(api, address)
    await bioscope("users", "erase", address, "--yes")
    await bioscope("users", "show", address, code=1)
    shown = json.loads((await bioscope("users", "show", str(account.id), "--json")).stdout)
    assert (shown["email"], shown["deleted"], shown["erased"]) == ("[erased]", True, True)


UNKNOWN = ["nobody", "nobody@example.org", str(uuid4()), "", "a\udcffb", "x" * 10_000, "[red]"]


@pytest.mark.parametrize(
    "what", [("show",), ("reset-password",), ("disable",), ("enable",), ("erase", "--yes"), ("delete", "--yes"), ("set-role", "viewer")]
)
async def test_an_unknown_account_is_refused_with_a_sentence(bioscope, what):
    for unknown in UNKNOWN:
        ended = await bioscope("users", what[0], unknown, *what[1:], code=1)
        assert ended.stdout == ""
        assert ended.stderr.startswith("bioscope: ")


async def test_nobody_is_taken_for_somebody_else_by_a_user_name_like_theirs(api, bioscope):
    boss = loaded(api, api.account("viewer"))
    for number, name in enumerate(("chief@example.org", str(boss.id))):
        names_ = {"email": f"eve{number}@example.org", "username": name, "first_name": "Eve", "last_name": "E"}
        answer = await api.anonymous().post("/api/auth/register", json=names_ | {"password": PASSWORD})
        assert answer.status_code == 201, answer.text
    await bioscope("users", "set-role", "chief@example.org", "admin", code=1)
    await bioscope("users", "set-role", str(boss.id), "admin")
    assert loaded(api, boss.email).role == "admin"
    assert loaded(api, "eve1@example.org").role == "viewer"


async def test_a_deleted_account_cannot_sign_in_and_keeps_its_history(api, bioscope):
    api.account("admin")
    address = api.account("viewer")
    account = loaded(api, address)
    assert f"users erase {account.id}" in (await bioscope("users", "delete", address, "--yes")).stderr.replace("\n", " ")
    assert "users list --deleted" in (await bioscope("users", "erase", address, "--yes", code=1)).stderr.replace("\n", " ")
    assert str(account.id) in (await bioscope("users", "list", "--deleted")).stdout
    assert [one["id"] for one in await listed(bioscope, "--deleted")] == [str(account.id)]
    assert str(account.id) not in {one["id"] for one in await listed(bioscope)}
    assert (await login(api, address)).status_code == 401
    shown = json.loads((await bioscope("users", "show", str(account.id), "--json")).stdout)
    assert (shown["email"], shown["deleted"], shown["erased"]) == (address, True, False)
    assert actors(api, account.id)[-1]["name"].startswith("root on ")


async def test_nothing_is_deleted_without_a_confirmation(api, bioscope):
    api.account("admin")
    address = api.account("viewer")
    await bioscope("users", "delete", address, code=1, input="n\n")
    assert (await login(api, address)).status_code == 200


# ---- passwords ---------------------------------------------------------------------------------------------------------------------
async def test_a_reset_password_is_printed_once_signs_in_and_ends_all_sessions(api_of_argon2, bioscope, lab_settings):
    address = api_of_argon2.account("analyst")
    before = (await login(api_of_argon2, address)).json()
    ended = await bioscope("users", "reset-password", address)
    password = ended.stdout.removesuffix("\n")
    assert re.fullmatch(r"([a-z2-9]{5}-){4}[a-z2-9]{5}", password)
    assert password not in ended.stderr
    assert "all its sessions have ended" in ended.stderr
    assert (await login(api_of_argon2, address)).status_code == 401
    assert (await login(api_of_argon2, address, password)).status_code == 200
    anonymous = api_of_argon2.anonymous()
    assert (await anonymous.get(ME, headers={"Authorization": f"Bearer {before['access_token']}"})).status_code == 401
    assert (await anonymous.post("/api/auth/refresh", json={"refresh_token": before["refresh_token"]})).status_code == 401
    assert password.encode() not in everything_kept(lab_settings)


def everything_kept(settings):
    with psycopg.connect(settings.postgres_owner_url) as connection:
        rows = (
            connection.execute("select state, meta from es.events").fetchall()
            + connection.execute("select value, '' from es.secrets").fetchall()
        )
    return b"".join(bytes(part) for row in rows for part in row if isinstance(part, bytes))


async def test_a_password_that_was_typed_or_comes_from_the_environment_is_not_printed(api_of_argon2, bioscope, monkeypatch):
    address = api_of_argon2.account("analyst")
    typed = await bioscope("users", "reset-password", address, "--prompt", input=f"{OTHER_PASSWORD}\n{OTHER_PASSWORD}\n")
    assert OTHER_PASSWORD not in typed.output
    assert (await login(api_of_argon2, address, OTHER_PASSWORD)).status_code == 200
    monkeypatch.setenv("BIOSCOPE_PASSWORD", "the third horse 9 battery")
    ended = await bioscope("users", "reset-password", address)
    assert ended.stdout == ""
    assert "the third horse" not in ended.stderr
    assert (await login(api_of_argon2, address, "the third horse 9 battery")).status_code == 200


async def test_a_password_that_breaks_the_rule_changes_nothing(api, bioscope, monkeypatch):
    address = api.account("analyst")
    for wrong in ("short", "passwordpassword", "x" * 129, "\udcff" * 400):
        monkeypatch.setenv("BIOSCOPE_PASSWORD", wrong)
        ended = await bioscope("users", "reset-password", address, code=1)
        assert "password" in ended.stderr
        assert wrong not in ended.output
    assert (await login(api, address)).status_code == 200


# ---- disabled and enabled ----------------------------------------------------------------------------------------------------------
async def test_a_disabled_account_is_out_until_it_is_enabled(api, bioscope):
    api.account("admin")
    address = api.account("analyst")
    before = (await login(api, address)).json()
    assert "is suspended now" in (await bioscope("users", "disable", address)).stderr
    assert "was suspended already" in (await bioscope("users", "disable", address)).stderr
    assert (await login(api, address)).status_code == 401
    assert "is active again" in (await bioscope("users", "enable", address)).stderr
    assert "was active already; nothing has changed" in (await bioscope("users", "enable", address)).stderr
    assert (await api.anonymous().post("/api/auth/refresh", json={"refresh_token": before["refresh_token"]})).status_code == 401
    assert (await login(api, address)).status_code == 200


async def test_a_session_that_an_interrupted_command_left_does_not_revive(api, bioscope):
    api.account("admin")
    address = api.account("analyst")
    before = (await login(api, address)).json()
    account = loaded(api, address)
    suspended = accounts.user.change_status(account, Status.SUSPENDED, by=account.id, at=NOW)
    api.services.log.append(command(actor(kind="system")), *suspended)
    await bioscope("users", "enable", address)
    anonymous = api.anonymous()
    assert (await anonymous.get(ME, headers={"Authorization": f"Bearer {before['access_token']}"})).status_code == 401
    assert (await anonymous.post("/api/auth/refresh", json={"refresh_token": before["refresh_token"]})).status_code == 401


async def test_enabling_what_is_active_ends_no_session(api, bioscope):
    address = api.account("analyst")
    before = (await login(api, address)).json()
    await bioscope("users", "enable", address)
    assert (await api.anonymous().post("/api/auth/refresh", json={"refresh_token": before["refresh_token"]})).status_code == 200


@pytest.mark.parametrize("what", [("disable",), ("erase", "--yes"), ("set-role", "viewer")])
async def test_the_last_active_administrator_stays(api, bioscope, what):
    address = api.account("admin")
    session = (await login(api, address)).json()
    arguments = (what[0], address, *what[1:])
    head = api.services.log.head()
    ended = await bioscope("users", *arguments, code=1)
    assert "make another user an administrator first" in ended.stderr
    assert api.services.log.head() == head
    assert (await api.anonymous().post("/api/auth/refresh", json={"refresh_token": session["refresh_token"]})).status_code == 200


# ---- the first administrator -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("email", "options", "username"),
    [
        ("jo@example.org", [], "jo-admin"),
        ("grace.hopper+lab@example.org", [], "grace.hopper+lab"),
        (f"{'a' * 64}@example.org", [], "a" * 50),
        ("mary@example.org", ["--username", "director"], "director"),
    ],
)
async def test_an_administrator_gets_a_user_name_that_can_be_chosen(api, bioscope, email, options, username):
    await bioscope("users", "create-admin", email, *options, env={"BIOSCOPE_ADMIN_PASSWORD": PASSWORD})
    assert loaded(api, email).username == username


async def test_an_administrator_with_a_user_name_in_use_is_told_to_choose_another_one(api, bioscope):
    for email in ("ada@example.org", "ada@example.com"):
        ended = await bioscope("users", "create-admin", email, env={"BIOSCOPE_ADMIN_PASSWORD": PASSWORD}, code=email.endswith("com"))
    assert ended.stderr == "bioscope: the user name ada is in use: choose another one with --username\n"
    assert loaded(api, "ada@example.com") is None


async def test_an_account_that_is_to_be_an_administrator_is_given_the_role(api, bioscope):
    email = api.account("viewer")
    ended = await bioscope("users", "create-admin", email, env={"BIOSCOPE_ADMIN_PASSWORD": PASSWORD}, code=1)
    assert f"bioscope: {email} has an account: `bioscope users set-role {email} admin`" in ended.stderr
    assert loaded(api, email).role == "viewer"


# ---- who did it --------------------------------------------------------------------------------------------------------------------
async def test_without_a_sign_in_the_record_names_root_and_the_host(api, bioscope):
    await bioscope("users", "create-admin", "chief@example.org", env={"BIOSCOPE_ADMIN_PASSWORD": PASSWORD})
    chief, other = loaded(api, "chief@example.org"), loaded(api, api.account("viewer"))
    await bioscope("users", "set-role", other.email, "analyst")
    await bioscope("users", "reset-password", other.email)
    await bioscope("users", "disable", other.email)
    root = {"id": str(system_actor(f"root on {HOST}")), "kind": "system", "role": None, "name": f"root on {HOST}"}
    registered = msgspec.json.decode(api.services.log.history(chief.id)[0].meta)["actor"]
    assert [registered, *actors(api, other.id)] == [root] * 4
    trail = (await bioscope("audit", "trail", str(other.id), "--json")).stdout
    assert trail.count(f'"name": "root on {HOST}"') + trail.count(f'"name":"root on {HOST}"') == 3
    http = await api.client("admin")
    body = (await http.get(f"/api/audit/{other.id}/trail")).json()
    assert [entry["actor"].get("name") for entry in body][-1] == f"root on {HOST}"


async def test_an_administrator_who_is_signed_in_is_recorded(api, bioscope):
    admin, other = api.account("admin"), loaded(api, api.account("viewer"))
    store_credentials(await signed_in(api, admin))
    await bioscope("users", "disable", other.email)
    assert actors(api, other.id) == [{"id": str(loaded(api, admin).id), "kind": "user", "role": "admin"}]


async def test_the_sign_in_counts_after_its_access_token_has_ended(api, bioscope, lab_settings):
    admin, other = api.account("admin"), loaded(api, api.account("viewer"))
    kept = await signed_in(api, admin)
    tokens = SignedAccessTokens(RootKey.read(lab_settings.root_key_path), ttl=-3600)
    ended = tokens.issue(user=loaded(api, admin).id, session=uuid4(), role="admin", at=now())
    store_credentials(msgspec.structs.replace(kept, access_token=ended))
    await bioscope("users", "disable", other.email)
    assert actors(api, other.id)[0]["id"] == str(loaded(api, admin).id)


async def test_somebody_else_who_is_signed_in_acts_as_root_and_is_named_by_id(api, bioscope):
    analyst, other = loaded(api, api.account("analyst")), loaded(api, api.account("viewer"))
    store_credentials(await signed_in(api, analyst.email))
    await bioscope("users", "disable", other.email)
    (recorded,) = actors(api, other.id)
    assert (recorded["kind"], recorded["name"]) == ("system", f"root on {HOST}, signed in as {analyst.id}")


async def signed_in(api, address):
    answer = (await login(api, address)).json()
    return Credentials("http://127.0.0.1:8000", answer["access_token"], answer["refresh_token"])


async def test_what_is_no_sign_in_of_a_person_here_is_not_believed(api, bioscope, lab_settings, tmp_path):
    admin, other = api.account("admin"), loaded(api, api.account("viewer"))
    api.account("admin")
    ours, foreign = RootKey.read(lab_settings.root_key_path), RootKey(b"another installation's root key!")
    about = {"user": loaded(api, admin).id, "session": uuid4(), "role": "admin", "at": now()}
    service = {"name": "x", "scopes": frozenset(Scope), "seconds": 600, "at": now()}
    signed_out = await signed_in(api, admin)
    await api.anonymous(Authorization=f"Bearer {signed_out.access_token}").post("/api/auth/logout")
    kept = [
        signed_out,
        Credentials("", SignedAccessTokens(ours, ttl=600).issue(**about)),
        Credentials("", SignedAccessTokens(foreign, ttl=600).issue(**about), "x"),
        Credentials("", SignedAccessTokens(ours, ttl=600).issue_service(**service)),
        Credentials("", "garbage", "garbage"),
    ]
    for number, credentials in enumerate(kept):
        store_credentials(credentials)
        await bioscope("users", "disable" if number % 2 == 0 else "enable", other.email)
    (tmp_path / "token.json").write_bytes(b"{")
    await bioscope("users", "enable", other.email)
    assert [one.get("name") for one in actors(api, other.id)] == [f"root on {HOST}"] * (len(kept) + 1)


# ---- what the operator can mend ----------------------------------------------------------------------------------------------------
COMMANDS = [("list",), ("show", "x"), ("reset-password", "x"), ("disable", "x"), ("enable", "x"), ("set-role", "x", "admin")]
UNUSABLE = [
    ("postgresql://bioscope_app@127.0.0.1:1/bioscope", 5, "the database cannot be used"),
    ("postgresql://a:secret-word@[", 2, "is not a valid URL"),
    ("no address", 2, "must begin with postgresql://"),
]


@pytest.mark.parametrize(("url", "code", "sentence"), UNUSABLE)
async def test_a_database_that_cannot_be_used_is_reported_in_a_sentence(bioscope, monkeypatch, url, code, sentence):
    monkeypatch.setenv("BIOSCOPE_POSTGRES_URL", url)
    for arguments in COMMANDS:
        ended = await bioscope("users", *arguments, code=code)
        assert sentence in ended.stderr
        assert "secret-word" not in ended.stderr
        assert ended.stderr.count("\n") == 1


async def test_a_database_that_lacks_migrations_is_reported_in_a_sentence(bioscope, postgres, monkeypatch):
    monkeypatch.setenv("BIOSCOPE_POSTGRES_URL", postgres.url(user="postgres", database="postgres"))
    for arguments in COMMANDS:
        assert "run `bioscope migrate`" in (await bioscope("users", *arguments, code=1)).stderr


async def test_a_lost_root_key_is_reported_in_a_sentence(bioscope, lab_settings):
    lab_settings.root_key_path.unlink()
    for arguments in COMMANDS:
        assert "no root key" in (await bioscope("users", *arguments, code=2)).stderr
