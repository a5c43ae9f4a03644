"""`bioscope tokens`, and the client's commands with a key: programs get keys on the server, and use them from another machine."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.client.credentials import Credentials, store_credentials
from api.cli.shapes import ListedToken, ServiceToken
from application.key_text import read_key
from domain.access import Role, Scope
from scripts.commands import commands, shapes
from tests.api.examples import words_of
from tests.api.http_calls import PICTURE, dataset
from tests.api.test_accounts import login
from tests.api.test_commands import assert_shape
from tests.api.test_job_commands import job_with_a_failure
from tests.api.test_registry_commands import url  # noqa: F401 - a fixture
from tests.api.test_users_command import HOST, bioscope  # noqa: F401 - a fixture
from tests.api.worker_events import WorkerEvents
from tests.documented_limits import DOCS

pytestmark = pytest.mark.anyio


async def status_of(api, key, path="/api/images"):
    return (await api.anonymous(Authorization=f"Bearer {key}").get(path)).status_code


async def test_a_key_is_created_listed_rotated_and_revoked_on_the_server(api, bioscope, lab_settings):  # noqa: F811
    ada = await api.client(Role.RESEARCHER)
    first, second = await dataset(ada, "first"), await dataset(ada, "second")
    created = await bioscope("tokens", "create", "scope-1", "--scope", "images:read", "--scope", "images:write", "--dataset", "first")
    key = created.stdout.strip()
    assert read_key(key) is not None
    assert created.stdout == f"{key}\n"
    assert await status_of(api, key) == 200
    assert await status_of(api, key, "/api/datasets") == 403
    again = await bioscope("tokens", "create", "scope-1", "--scope", "images:read", "--days", "2", "--json")
    other = json.loads(again.stdout)
    assert_shape(shapes()["bioscope tokens create"], again.stdout)
    assert datetime.fromisoformat(other["expires_at"]) - datetime.now(UTC) < timedelta(days=2)
    listed = json.loads((await bioscope("tokens", "list", "--json")).stdout)
    assert {(one["owner"], tuple(one["dataset_ids"] or ())) for one in listed} == {("scope-1", (first,)), ("scope-1", ())}
    assert [one["last_used_from"] for one in listed if one["id"] == str(read_key(key).id)] == ["127.0.0.1"]
    assert key[30:] not in str(listed)
    rotated = await bioscope("tokens", "rotate", str(read_key(key).id), "--overlap", "0", "--json")
    assert_shape(shapes()["bioscope tokens rotate"], rotated.stdout)
    new = json.loads(rotated.stdout)["token"]
    assert (await status_of(api, new), second in str(listed)) == (200, False)
    await ada.post("/api/keys", json={"name": "mine", "scopes": ["images:read"]})
    listed = json.loads((await bioscope("tokens", "list", "--json")).stdout)
    own = next(one for one in listed if one["name"] == "mine")
    assert own["owner"] == (await ada.get("/api/users/me")).json()["username"]
    await bioscope("tokens", "revoke", own["id"])
    await bioscope("tokens", "revoke", str(read_key(new).id))
    assert len(json.loads((await bioscope("tokens", "list", "--json")).stdout)) == 1
    assert "scope-1" in (await bioscope("tokens", "list", "--all")).stdout
    for wrong, code in (
        (["--scope", "all"], 2),
        ([], 2),
        (["--scope", "images:read", "--days", "367"], 2),
        (["--scope", "images:read", "--dataset", "none"], 1),
    ):
        await bioscope("tokens", "create", "scope-1", *wrong, code=code)
    await bioscope("tokens", "create", "a b", "--scope", "images:read", code=1)
    await bioscope("tokens", "revoke", code=2)
    await bioscope("tokens", "revoke", str(read_key(key).id), "--legacy", code=2)
    with psycopg.connect(lab_settings.postgres_owner_url, autocommit=True) as owner:
        owner.execute(
            "insert into read.api_keys select gen_random_uuid(), 1, k.owner_id, k.owner_kind, k.scopes, null, k.issued_by, now(),"
            " now() + interval '1 day', null from read.api_keys k, generate_series(1, 100) where k.id = any(%s)",
            ([read_key(key).id, UUID(own["id"])],),
        )
    assert "100 working keys already" in (await bioscope("tokens", "create", "scope-1", "--scope", "images:read", code=1)).stderr
    assert (await ada.post("/api/keys", json={"name": "mine", "scopes": ["images:read"]})).status_code == 409


async def test_the_log_names_the_machine_where_a_key_was_created(api, bioscope):  # noqa: F811
    key = (await bioscope("tokens", "create", "archive", "--scope", "events:read")).stdout.strip()
    admin = await api.client(Role.ADMIN)
    [issued] = (await admin.get(f"/api/audit/{read_key(key).id}/trail")).json()
    assert issued["actor"]["name"] == f"root on {HOST}"
    assert "issued the key archive to the service account archive: events:read" in issued["sentence"]


async def test_signed_tokens_of_earlier_releases_are_listed_and_end_when_they_are_revoked(api, bioscope):  # noqa: F811
    tokens = api.services.access_tokens
    about = {"name": "archive", "scopes": frozenset({"images:read"})}
    young = tokens.issue_service(**about, seconds=3600, at=datetime.now(UTC))
    old = tokens.issue_service(**about, seconds=10**8, at=datetime.now(UTC) - timedelta(days=90, minutes=1))
    assert (await status_of(api, young), await status_of(api, old)) == (200, 401)
    [listed] = json.loads((await bioscope("tokens", "list", "--json")).stdout)
    assert (listed["owner"], listed["legacy"], listed["last_used_from"]) == ("archive", True, "127.0.0.1")
    await bioscope("tokens", "revoke", "--legacy")
    later = tokens.issue_service(**about, seconds=3601, at=datetime.now(UTC) - timedelta(seconds=1))
    assert await status_of(api, later) == 401
    assert json.loads((await bioscope("tokens", "list", "--json")).stdout) == []


async def test_a_microscope_uploads_from_another_machine(api, bioscope, url, monkeypatch, tmp_path):  # noqa: F811
    ada = await api.client(Role.RESEARCHER)
    made, folder = await dataset(ada, "cells"), tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PICTURE)
    (folder / "b.jpg").write_bytes(b"no image")
    key = (await bioscope("tokens", "create", "scope-1", "--scope", "images:write", "--scope", "datasets:read")).stdout.strip()
    monkeypatch.setenv("BIOSCOPE_URL", url)
    monkeypatch.setenv("BIOSCOPE_KEY", key)
    sent = await bioscope("upload", str(folder), "--dataset", "cells", code=1)
    [image] = sent.stdout.split()
    assert "1 of 2 images are uploaded" in " ".join(sent.stderr.split())
    assert (await ada.get(f"/api/images/{image}")).json()["dataset_id"] == made
    (folder / "b.jpg").unlink()
    await bioscope("login", "--key")
    monkeypatch.delenv("BIOSCOPE_KEY")
    assert len((await bioscope("upload", str(folder), "--dataset", made)).stdout.split()) == 1
    monkeypatch.setenv("BIOSCOPE_KEY", key[:-1])
    await bioscope("login", "--key", code=2)


async def test_a_script_exports_results_with_a_key(api, bioscope, url, monkeypatch, tmp_path):  # noqa: F811
    ada = await api.client(Role.RESEARCHER)
    await dataset(ada, "cells")
    issued = await ada.post("/api/keys", json={"name": "script", "scopes": ["datasets:read", "results:read"]})
    monkeypatch.setenv("BIOSCOPE_URL", url)
    monkeypatch.setenv("BIOSCOPE_KEY", issued.json()["key"])
    file = tmp_path / "results.csv"
    await bioscope("results", "export", str(file), "--dataset", "cells")
    assert file.read_text().startswith("path,")


async def test_people_create_list_rotate_and_revoke_their_own_keys_from_another_machine(api, bioscope, url):  # noqa: F811
    address = api.account()
    signed_in = (await login(api, address)).json()
    store_credentials(Credentials(url, signed_in["access_token"], signed_in["refresh_token"]))
    ada, examples = await api.signed_in(address), dict(commands())

    async def run(name, *more, code=0):
        return await bioscope(*words_of(examples[f"bioscope api-keys {name}"].example), *more, code=code)

    async def printed(name, *more):
        ended = await run(name, *more, "--json")
        assert_shape(shapes()[f"bioscope api-keys {name}"], ended.stdout)
        return json.loads(ended.stdout)

    key = (await run("create")).stdout.strip()
    assert (await status_of(api, key, "/api/classifications"), await status_of(api, key)) == (200, 403)
    [listed] = await printed("list")
    assert (listed["id"], listed["name"], listed["scopes"]) == (str(read_key(key).id), "nightly", ["jobs:run", "results:read"])
    assert "127.0.0.1" in (await run("list")).stdout
    assert key[30:] not in str(listed)
    rotated = await printed("rotate", "--overlap", "0")
    assert (rotated["id"], rotated["name"], rotated["scopes"]) == (listed["id"], "nightly", listed["scopes"])
    assert (await status_of(api, key, "/api/classifications"), await status_of(api, rotated["token"], "/api/classifications")) == (401, 200)
    limited = await printed("create", "--dataset", await dataset(ada, "cells"))
    assert "2 keys are named 'nightly'" in (await run("revoke", code=2)).stderr
    await bioscope("api-keys", "revoke", limited["id"].upper())
    await run("revoke")
    assert await status_of(api, rotated["token"], "/api/classifications") == 401
    assert "no API key that works" in (await run("list")).stdout
    assert {key["status"] for key in await printed("list", "--all")} == {"revoked"}
    assert "there is no key 'nightly'" in (await run("rotate", code=2)).stderr


def scopes_of_commands():
    """[(arguments, scopes that they need)], as docs/programs.md lists them."""
    rows = re.findall(r"^\| `bioscope ([^`]+)` \| ([^;|]+)", (DOCS / "programs.md").read_text(), re.MULTILINE)
    return [(command.split(), frozenset(map(Scope, re.findall(r"`([a-z:]+)`", scopes)))) for command, scopes in rows]


async def test_each_command_needs_the_scopes_that_the_documents_list(api, bioscope, url, monkeypatch, tmp_path):  # noqa: F811
    ada = await api.client(Role.RESEARCHER)
    await WorkerEvents(api).model()
    job, home, _ = await job_with_a_failure(api, ada)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PICTURE)
    name = (await ada.get(f"/api/datasets/{home}")).json()["name"]
    known = {"FOLDER": str(folder), "ID": home, "NAME": name, "JOB": job, "MODEL": "shapes", "FILE": "-"}
    monkeypatch.setenv("BIOSCOPE_URL", url)

    keys = {}

    async def is_refused(arguments, scopes):
        if scopes not in keys:
            keys[scopes] = (await ada.post("/api/keys", json={"name": "script", "scopes": sorted(scopes)})).json()["key"]
        monkeypatch.setenv("BIOSCOPE_KEY", keys[scopes])
        ended = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), "a traceback"
        assert "no key may do this" not in ended.output, arguments
        return "lacks the scope" in ended.output

    needs = scopes_of_commands()
    assert len(needs) >= 18
    for command, needed in needs:
        arguments = [known.get(part, part) for part in command]
        assert not await is_refused(arguments, needed), command
        for lacking in needed if len(needed) > 1 else ():
            assert await is_refused(arguments, frozenset(Scope) - {lacking, Scope.METRICS_READ}), (command, lacking)
    refused = await bioscope("classify", str(folder), code=2)
    assert "use `bioscope upload FOLDER --dataset ID`" in " ".join(refused.stderr.split())


def test_what_is_listed_has_no_secret():
    assert not {"key", "token", "secret"} & set(ListedToken.__struct_fields__)
    assert "token" in ServiceToken.__struct_fields__
