"""The scripts in deploy/ against real servers: they give each process the rights that it needs, and no others."""

import base64
import hashlib
import hmac
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from domain.errors import Unavailable
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.postgres.server import Postgres
from infrastructure.operations.doctor import _postgres
from infrastructure.postgres.schema import migrate
from infrastructure.security.keys import RootKey
from tests.release.installing import ROOT
from tests.release.object_store import PROCESSES, object_store

APP_PASSWORD = """long 'and" $random \\ :word"""
ROLES = ("APP", "API", "RELAY", "PROJECTOR", "INFERENCE")
PASSWORDS = {f"BIOSCOPE_{role}_PASSWORD": APP_PASSWORD for role in ROLES}


def run_script(name, **variables):
    done = subprocess.run(
        ["sh", ROOT / "deploy" / name], env=os.environ | variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


# ---- Postgres --------------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """As after the first start of the container: the roles script has run, then the migrations."""
    with Postgres(tmp_path_factory.mktemp("roles"), roles=()) as started:
        psql = Path(started._program("psql"))
        path = f"{psql.parent}:{os.environ['PATH']}"
        owner = {"PGHOST": str(started.socket_folder), "PGPASSWORD": started.password("postgres")}
        for _ in range(2):
            run_script("postgres-roles.sh", PATH=path, **owner, **PASSWORDS)
        migrate(started.owner_url)
        yield started


@pytest.mark.parametrize("role", ROLES)
def test_the_roles_of_the_processes_have_the_passwords_that_were_given(server, role):
    with psycopg.connect(server.owner_url) as connection:
        (stored,) = connection.execute("select rolpassword from pg_authid where rolname = %s", (f"bioscope_{role.lower()}",)).fetchone()
    _, parameters, keys = stored.split("$")
    rounds, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", APP_PASSWORD.encode(), base64.b64decode(salt), int(rounds))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client_key).digest()


def url_of(server, role):
    user, host = f"bioscope_{role.lower()}", quote(str(server.socket_folder), safe="")
    return f"postgresql://{user}:{quote(PASSWORDS[f'BIOSCOPE_{role}_PASSWORD'], safe='')}@/bioscope?host={host}"


@pytest.fixture
def app_url(server):
    return url_of(server, "APP")


def test_the_role_of_the_processes_may_run_in_production(server):
    for role in ROLES:
        given = Settings(environment="production", postgres_url=url_of(server, role))
        assert {finding.level for finding in _postgres(given)} == ({"good", "weak"} if role == "APP" else {"good"})


@pytest.mark.parametrize(
    "statement",
    [
        "delete from es.events",
        "update es.events set recorded_at = now()",
        "drop table es.events",
        "delete from es.events_0000",
        "alter table es.events detach partition es.events_0000",
        "update es.streams set version = 0",
        "create schema mine",
        "create role other",
        "alter role bioscope_app superuser",
        "set role postgres",
    ],
)
def test_the_role_of_the_processes_changes_neither_the_log_nor_roles(app_url, statement):
    with psycopg.connect(app_url, autocommit=True) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


# ---- S3 --------------------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with object_store(tmp_path_factory.mktemp("s3")) as started:
        yield started


def works(settings):
    blobs = open_blobs(settings, RootKey(bytes(32)))
    writer = blobs.begin()
    writer.write(os.urandom(32))
    sha256, _ = writer.commit()
    blobs.delete(sha256)
    return not blobs.exists(sha256)


def test_commands_on_the_server_can_use_the_bucket(store):
    assert works(store.settings("app"))


def test_the_scripts_can_run_again_and_a_new_secret_takes_effect(store):
    store.set_up()
    assert works(store.settings("app"))
    store.set_up("second-secret")
    assert works(store.settings("app", "second-secret"))
    with pytest.raises(Unavailable):
        works(store.settings("app"))
    store.set_up()


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    "attempt",
    [lambda files: files.ls("theirs"), lambda files: files.pipe_file("theirs/file", b"x"), lambda files: files.mkdir("mine")],
    ids=["list another bucket", "write to another bucket", "make a bucket"],
)
def test_no_user_can_use_anything_but_the_bucket(store, process, attempt):
    with pytest.raises(PermissionError):
        attempt(store.files(process))
