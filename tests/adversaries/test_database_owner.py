"""An attacker who owns the database: edits give no access, and a command or the system itself reports them."""

import hashlib
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import httpx
import msgspec
import psycopg
import pytest

from api.cli.client.api_client import Client, RequestRefused
from api.cli.stack import prepare
from infrastructure.audit.log_verification import verify_log
from infrastructure.embedded.supervisor import SupervisedStack
from infrastructure.operations.doctor import examine
from projections.process.rebuilds import rebuild
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, email, event_log, made_account, stack_settings

ANOTHER = "another correct horse 77"
INVENTED = "a token that nobody issued"
LONG = 30.0  # seconds


class Account(NamedTuple):
    id: UUID
    email: str


class Owner:
    """A running system, and a connection that may do everything to its database. Each edit is undone when its block ends."""

    def __init__(self, settings):
        self.settings = settings
        self._connection = psycopg.connect(settings.postgres_owner_url, autocommit=True)
        self._connection.execute("set session_replication_role = replica")

    def close(self):
        self._connection.close()

    def row(self, query, *values):
        return self._connection.execute(query, values).fetchone()

    @contextmanager
    def edited(self, table, where, values, statement, *more):
        """`statement` is executed on the rows of `table` that fit; they are as before afterwards."""
        rows = self._connection.execute(f"select * from {table} where {where}", values).fetchall()
        full = statement if statement.startswith("insert") else f"{statement} where {where}"
        cursor = self._connection.execute(full, [*more, *values])
        assert cursor.rowcount > 0
        try:
            yield
        finally:
            self._connection.execute(f"delete from {table} where {where}", values)
            for row in rows:
                self._connection.execute(f"insert into {table} values ({', '.join(['%s'] * len(row))})", row)

    def account(self, role):
        address = made_account(self.settings, role, email(role))
        log = event_log(self.settings)
        try:
            return Account(log.claimed("email", address), address)
        finally:
            log.close()

    def verified(self):
        log = event_log(self.settings)
        try:
            return verify_log(self.settings, log)
        finally:
            log.close()

    def audit(self):
        """What `bioscope audit verify` says; None where all is in order."""
        return self.verified().problem

    def doctor(self):
        return " | ".join(found.message for found in examine(self.settings) if found.subject == "record" and found.level == "wrong")

    def own_report(self):
        """What the API process has found by itself: its figure."""
        lines = httpx.get(f"{self.settings.base_url}/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("bioscope_record_discrepancies "))

    def names(self, subject, what):
        """Each who looks: the two commands, and the API process, which nobody asked."""
        said = f"{subject}: {what}"
        assert said in self.verified().discrepancies
        assert said in self.doctor()
        return until(lambda: self.own_report() > 0 and self.wrote("api", str(subject), what))

    def wrote(self, process, *words, times=1):
        """Whether so many lines of its log hold all the words."""
        lines = (self.settings.data / "logs" / f"{process}.log").read_text().splitlines()
        return sum(all(word in line for word in words) for line in lines) >= times


def until(holds):
    return wait_until(holds, within=LONG)


def signs_in(settings, address, password):
    try:
        with Client.sign_in(settings.base_url, address, password):
            return True
    except RequestRefused:
        return False


def refreshed(settings, token):
    """The status of an attempt to refresh a session."""
    return httpx.post(f"{settings.base_url}/api/auth/refresh", headers={"Authorization": f"Bearer {token}"}).status_code


def sha256(token):
    return hashlib.sha256(token.encode()).digest()


@pytest.fixture(scope="module")
def owner(tmp_path_factory):
    given = msgspec.structs.replace(stack_settings(tmp_path_factory.mktemp("owned")), reconcile_seconds=0.5)
    with SupervisedStack(given, prepare=prepare) as settings:
        owner = Owner(settings)
        yield owner
        owner.close()


@pytest.fixture
def attacker(owner):
    """An account with a password that the owner of the database knows."""
    return owner.account("viewer")


@pytest.fixture
def admin(owner):
    return owner.account("admin")


def test_what_nobody_edited_is_in_order(owner, admin):
    with Client.sign_in(owner.settings.base_url, admin.email, PASSWORD) as client:
        client.create_dataset("cells")
        client.post("/api/devices", {"name": "scope", "hostname": "scope-1"})
    assert owner.audit() is None
    assert owner.doctor() == ""
    assert owner.own_report() == 0


def test_a_replaced_password_hash_signs_nobody_in_and_is_reported(owner, admin, attacker):
    (known,) = owner.row("select value from es.secrets where kind = 'password' and owner = %s", attacker.id)
    with owner.edited("es.secrets", "kind = 'password' and owner = %s", (admin.id,), "update es.secrets set value = %s", known):
        assert not signs_in(owner.settings, admin.email, PASSWORD)
        assert owner.names(admin.id, "its password hash is not the one that was set")
    assert signs_in(owner.settings, admin.email, PASSWORD)


def test_the_command_for_audits_says_so_and_exits_with_4(owner, admin):
    with owner.edited("es.secrets", "kind = 'password' and owner = %s", (admin.id,), "delete from es.secrets"):
        command = [Path(sys.executable).with_name("bioscope"), "audit", "verify", "--data", owner.settings.data]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert f"{admin.id}: its password hash is missing" in done.stderr


def test_an_earlier_password_hash_signs_nobody_in(owner, admin):
    """One that the attacker knows, put back after the person changed it."""
    (earlier,) = owner.row("select value from es.secrets where kind = 'password' and owner = %s", admin.id)
    with Client.sign_in(owner.settings.base_url, admin.email, PASSWORD) as client:
        client.call("PATCH", f"/api/users/users/{admin.id}", json={"password": ANOTHER, "current_password": PASSWORD})
    assert signs_in(owner.settings, admin.email, ANOTHER)
    with owner.edited("es.secrets", "kind = 'password' and owner = %s", (admin.id,), "update es.secrets set value = %s", earlier):
        assert not signs_in(owner.settings, admin.email, PASSWORD)
        assert owner.names(admin.id, "its password hash is not the one that was set")


def test_a_deleted_password_hash_is_reported(owner, admin):
    with owner.edited("es.secrets", "kind = 'password' and owner = %s", (admin.id,), "delete from es.secrets"):
        assert not signs_in(owner.settings, admin.email, PASSWORD)
        assert owner.names(admin.id, "its password hash is missing")


def test_a_refresh_token_that_was_inserted_or_moved_to_another_session_is_refused(owner, admin, attacker):
    with (
        Client.sign_in(owner.settings.base_url, admin.email, PASSWORD) as theirs,
        Client.sign_in(owner.settings.base_url, attacker.email, PASSWORD) as mine,
    ):
        columns = "session_id, user_id, issued_at, expires_at, absolute_at, mac"
        session, *rest = owner.row(f"select {columns} from es.refresh_tokens where user_id = %s", admin.id)
        insert = f"insert into es.refresh_tokens ({columns}, digest) values (%s, %s, %s, %s, %s, %s, %s)"
        with owner.edited("es.refresh_tokens", "digest = %s", (sha256(INVENTED),), insert, session, *rest):
            assert refreshed(owner.settings, INVENTED) == 401
        move = "update es.refresh_tokens set session_id = %s, user_id = %s"
        with owner.edited("es.refresh_tokens", "digest = %s", (sha256(mine.credentials.refresh_token),), move, session, admin.id):
            assert refreshed(owner.settings, mine.credentials.refresh_token) == 401
        assert until(lambda: owner.wrote("api", "not issued by this installation", str(session)))
        assert refreshed(owner.settings, mine.credentials.refresh_token) == 200
        assert refreshed(owner.settings, theirs.credentials.refresh_token) == 200


def test_a_deleted_data_key_is_no_erasure(owner, admin):
    with owner.edited("es.secrets", "kind = 'key' and owner = %s", (admin.id,), "delete from es.secrets"):
        assert owner.names(admin.id, "its data key is missing, but it was not erased")


def test_the_deleted_data_key_of_a_dataset_is_reported_too(owner, admin):
    with Client.sign_in(owner.settings.base_url, admin.email, PASSWORD) as client:
        dataset = client.create_dataset("cells")
    with owner.edited("es.secrets", "kind = 'key' and owner = %s", (dataset,), "delete from es.secrets"):
        assert f"{dataset}: its data key is missing" in owner.audit()


def test_the_data_key_of_somebody_else_is_recognised(owner, admin, attacker):
    (other,) = owner.row("select value from es.secrets where kind = 'key' and owner = %s", attacker.id)
    with owner.edited("es.secrets", "kind = 'key' and owner = %s", (admin.id,), "update es.secrets set value = %s", other):
        assert owner.names(admin.id, "its data key was replaced")


def test_a_moved_email_address_signs_nobody_in_and_is_reported(owner, admin, attacker):
    mine, theirs = (owner.row("select digest from es.claims where scope = 'email' and stream = %s", one.id) for one in (attacker, admin))
    with (
        owner.edited("es.claims", "digest = %s", mine, "delete from es.claims"),
        owner.edited("es.claims", "digest = %s", theirs, "update es.claims set stream = %s", attacker.id),
    ):
        assert not signs_in(owner.settings, admin.email, PASSWORD)
        assert owner.names(attacker.id, "another email is claimed for it")
        assert owner.names(attacker.id, "its email is not claimed")
        assert owner.names(admin.id, "its email is not claimed")
    assert signs_in(owner.settings, admin.email, PASSWORD)


def test_a_claim_of_nobody_is_reported(owner):
    nobody = uuid4()
    insert = "insert into es.claims (scope, digest, stream) values ('email', %s, %s)"
    with owner.edited("es.claims", "stream = %s", (nobody,), insert, nobody.bytes):
        assert owner.names(nobody, "it has a claim or a password, but the log has no such account or device")


def test_a_forgotten_a_moved_and_an_unknown_command_are_reported(owner, admin):
    command, position = owner.row("select id, position from es.commands where subject = %s", admin.id)
    with owner.edited("es.commands", "id = %s", (command,), "delete from es.commands"):
        assert f"command {command}: it is missing" in owner.audit()
    with owner.edited("es.commands", "id = %s", (command,), "update es.commands set position = 1"):
        assert f"command {command}: its outcome names position 1, but its last event is at {position}" in owner.audit()
    with owner.edited("es.commands", "id = %s", (command,), "update es.commands set subject = %s", uuid4()):
        assert f"command {command}: its outcome names " in owner.audit()
    unknown = uuid4()
    insert = "insert into es.commands (position, recorded_at, id) values (1, now(), %s)"
    with owner.edited("es.commands", "id = %s", (unknown,), insert):
        assert owner.audit() == (
            f"the log is intact, but the tables beside it differ from it: command {unknown}: the log has no event of it"
        )


def test_an_edited_a_missing_and_an_unknown_stream_are_reported(owner, admin):
    """By which versions are checked and events of a stream are found."""
    said = f"stream {admin.id}: its row does not match the event at position "
    for edit in ("update es.streams set version = version - 1", "update es.streams set newest = newest + 1", "delete from es.streams"):
        with owner.edited("es.streams", "stream = %s", (admin.id,), edit):
            assert said in owner.audit()
    unknown = uuid4()
    insert = "insert into es.streams (first, newest, version, stream) values (1, 1, 1, %s)"
    with owner.edited("es.streams", "stream = %s", (unknown,), insert):
        assert f"stream {unknown}: its row names a first or newest event" in owner.audit()


def test_an_edited_read_model_differs_from_the_rebuilt_one(owner, attacker):
    until(lambda: owner.row("select role from read.users where id = %s", attacker.id) == ("viewer",))
    with owner.edited("read.users", "id = %s", (attacker.id,), "update read.users set role = 'admin'"):
        assert [one.table for one in rebuild(owner.settings, check=True).differing] == ["users"]
        with Client.sign_in(owner.settings.base_url, attacker.email, PASSWORD) as client, pytest.raises(RequestRefused):
            client.get("/api/users")
    assert rebuild(owner.settings, check=True).differing == ()


def test_a_moved_checkpoint_makes_the_system_unready(owner):
    with owner.edited("read.checkpoint", "true", (), "update read.checkpoint set hash = sha256('another log')"):
        until(lambda: "another log" in httpx.get(f"{owner.settings.base_url}/health/ready").text)
    until(lambda: httpx.get(f"{owner.settings.base_url}/health/ready").status_code == 200)


@pytest.mark.long
def test_an_edited_event_is_named_and_nothing_that_follows_it_is_signed(own_stack):
    """The relay signs each minute, and when it ends. What it has read it does not read again, so here another one begins."""
    stack = own_stack()
    with stack as settings:
        owner = Owner(settings)
        account = owner.account("viewer")
        (position,) = owner.row("select notification_id from es.events where originator_id = %s", account.id)
        promoted = "update es.events set state = replace(convert_from(state, 'UTF8'), 'viewer', 'admin')::bytea"
        with owner.edited("es.events", "notification_id = %s", (position,), promoted):
            assert owner.audit().startswith(f"tampered at position {position}:")
            os.kill(before := stack.pid("relay"), signal.SIGKILL)
            until(lambda: stack.pid("relay") not in {None, before} and owner.wrote("relay", "publishing", times=2))
            os.kill(stack.pid("relay"), signal.SIGTERM)
            assert until(lambda: owner.wrote("relay", "head not signed"))
            signed = owner.row("select count(*) from ops.heads where position >= %s", position)
        owner.close()
    assert signed == (0,)
