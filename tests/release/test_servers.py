"""The scripts in deploy/ against real servers: they give the processes what they need, and no more."""

import base64
import hashlib
import hmac
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import msgspec
import psycopg
import pytest
import s3fs

from domain.errors import Unavailable
from infrastructure.doctor import _postgres
from infrastructure.embedded.postgres import Postgres
from infrastructure.keys import RootKey
from infrastructure.objects import open_blobs
from infrastructure.postgres.schema import migrate
from infrastructure.settings import Settings
from tests.contracts.s3 import BUCKET, KEY, SECRET, s3_server, versitygw
from tests.release.installing import ROOT

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
class ObjectStore:
    """The S3 server of the compose file, with two buckets: one of the processes, one of somebody else."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.settings = Settings(blobs_url=f"s3://{BUCKET}", blobs_endpoint=endpoint, blobs_key="processes", blobs_secret="first-secret")
        self._admin = {"ADMIN_ACCESS_KEY": KEY, "ADMIN_SECRET_KEY": SECRET, "ADMIN_ENDPOINT_URL": endpoint}

    def make_user(self, secret="first-secret"):
        path = f"{Path(versitygw()).parent}:{os.environ['PATH']}"
        run_script("objects-user.sh", PATH=path, BIOSCOPE_BLOBS_KEY="processes", BIOSCOPE_BLOBS_SECRET=secret, **self._admin)

    def admin(self, *arguments):
        subprocess.run([versitygw(), "admin", *arguments], env=os.environ | self._admin, check=True, capture_output=True, timeout=30)

    def files(self, secret="first-secret"):
        return s3fs.S3FileSystem(
            key="processes",
            secret=secret,
            client_kwargs={"endpoint_url": self.endpoint},
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    (folder / "iam").mkdir()
    with s3_server(folder / "objects", "--health", "/health", "--iam-dir", str(folder / "iam"), bucket=False) as endpoint:
        started = ObjectStore(endpoint)
        started.make_user()
        started.admin("create-user", "--access", "other", "--secret", "other-secret", "--role", "user")
        started.admin("create-bucket", "--owner", "other", "--bucket", "theirs")
        yield started


def works(settings):
    blobs = open_blobs(settings, RootKey(bytes(32)))
    writer = blobs.begin()
    writer.write(os.urandom(32))
    sha256, _ = writer.commit()
    blobs.delete(sha256)
    return not blobs.exists(sha256)


def test_the_processes_can_use_their_bucket(store):
    assert works(store.settings)


def test_the_script_can_run_again_and_a_new_secret_takes_effect(store):
    store.make_user()
    assert works(store.settings)
    store.make_user("second-secret")
    assert works(msgspec.structs.replace(store.settings, blobs_secret="second-secret"))
    with pytest.raises(Unavailable):
        works(store.settings)
    store.make_user()


@pytest.mark.parametrize(
    "attempt",
    [lambda files: files.ls("theirs"), lambda files: files.pipe_file("theirs/file", b"x"), lambda files: files.mkdir("mine")],
    ids=["list another bucket", "write to another bucket", "make a bucket"],
)
def test_the_processes_can_use_nothing_but_their_bucket(store, attempt):
    with pytest.raises(PermissionError):
        attempt(store.files())
