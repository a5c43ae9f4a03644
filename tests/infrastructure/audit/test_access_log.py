"""The trail of access in Postgres: written by several processes, verified, retained and erased."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application import accounts
from application.history.access_chain import ACCESS_START, access_link
from application.history.access_records import Access, AccessKind, AccessOutcome
from application.limits.access_budget import AccessBudget, BudgetLimits
from infrastructure.audit.access_heads import AccessHeadSigner
from infrastructure.audit.access_log import AccessLog, TrailLimits, _plain
from infrastructure.audit.access_retention import remove_old_records
from infrastructure.audit.access_rows import RECORD_COLUMNS, RECORDS_BETWEEN, recorded_access_from
from infrastructure.audit.access_verification import verify_access
from infrastructure.audit.signed_heads import BrokenChain
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from tests.given import actor, command, register
from tests.simulation.clients import NoSessions
from tests.twins.blobs import MemoryBlobs

TODAY = datetime.now(UTC)
QUICK = TrailLimits(seconds=0.005, retry_seconds=0.01)


class Trail:
    """The trail of access of one database, with a process that writes it, and somebody who owns the database but not the root key."""

    def __init__(self, settings):
        self.settings, self.root, self.blobs = settings, RootKey.read(settings.root_key_path), MemoryBlobs()
        self.log = RecorderEventStore(PostgresRecorder(settings.postgres_url, self.root), self.root)
        self.app = psycopg.connect(settings.postgres_url, autocommit=True, options="-c timezone=UTC")
        self.owner = psycopg.connect(settings.postgres_owner_url, autocommit=True, options="-c timezone=UTC")
        self.heads = AccessHeadSigner(self.root, self.blobs, self.app)

    def close(self):
        self.app.close()
        self.owner.close()
        self.log.close()

    def write(self, *accesses, url=None):
        written = AccessLog(url or self.settings.postgres_url, limits=QUICK)
        written.start()
        for one in accesses:
            written.record(one)
        written.stop()
        written.close()

    def sign(self, at=TODAY):
        self.heads.sign(self.app, at=at)

    def verify(self):
        return verify_access(self.log, self.root, self.blobs)

    def rows(self, query="select position, kind, count from ops.access_log order by position"):
        return self.owner.execute(query).fetchall()

    def tamper(self, *statements):
        self.owner.execute("set session_replication_role = replica")
        for statement in statements:
            self.owner.execute(statement)
        self.owner.execute("set session_replication_role = origin")

    def person(self):
        """An account with a data key."""
        user = uuid4()
        self.owner.execute("insert into es.secrets (kind, owner, value) values ('key', %s, 'wrapped')", (user,))
        return user


@pytest.fixture
def trail(settings):
    trail = Trail(settings)
    yield trail
    trail.close()


def access(number=0, **changes):
    fields = {"at": TODAY, "kind": AccessKind.DOWNLOAD, "outcome": AccessOutcome.ALLOWED, "actor_id": uuid4(), "actor_kind": "service"}
    fields |= {"noun": "image", "object_id": uuid4(), "route": "/api/images/{image_id}/download", "request_id": f"request-{number}"}
    return Access(**fields | {"address": "192.0.2.7", "network": "192.0.2.7"} | changes)


def test_an_untouched_trail_is_intact(trail):
    trail.write(*map(access, range(7)), access(actor_id=None, actor_kind="anonymous", object_id=None, key_id=uuid4()))
    trail.sign()
    trail.write(access(dataset_id=uuid4()))
    found = trail.verify()
    assert (found.problem, found.records, found.heads) == (None, 9, 1)
    assert found.since is not None


def test_database_and_verification_agree_on_the_hash_of_any_record(trail):
    chosen = Random(7)

    def any_id():
        return chosen.choice([None, uuid4()])

    def any_text(maximum):
        return "".join(chosen.choice("abc/{}_ 'ż\\\n\x00🔬") for _ in range(chosen.randrange(maximum)))

    trail.write(
        *(
            Access(
                at=TODAY + timedelta(microseconds=chosen.randrange(10**12)),
                kind=chosen.choice(list(AccessKind)),
                outcome=chosen.choice(list(AccessOutcome)),
                actor_id=any_id(),
                actor_kind="service",
                key_id=any_id(),
                noun=chosen.choice(["", "image"]),
                object_id=any_id(),
                dataset_id=any_id(),
                route=any_text(400),
                request_id=any_text(100),
                address=any_text(100),
                network=str(chosen.random()),
                count=chosen.randrange(1, 2**31),
            )
            for _ in range(500)
        )
    )
    assert (trail.verify().problem, trail.verify().records) == (None, 500)


TAMPERINGS = {
    "edit": ("update ops.access_log set outcome = 'refused' where position = 4", 4),
    "another actor": ("update ops.access_log set actor_id = null where position = 4", 4),
    "moved": ("update ops.access_log set position = case position when 4 then 5 else 4 end where position in (4, 5)", 4),
    "delete": ("delete from ops.access_log where position = 4", 4),
    "delete the first": ("delete from ops.access_log where position = 1", 1),
    "truncate": ("delete from ops.access_log where position > 4", 5),
    "insert": (
        f"insert into ops.access_log select 11, {RECORD_COLUMNS.removeprefix('position, ')} from ops.access_log where position = 10",
        11,
    ),
    "address": ("update ops.access_addresses set address = '192.0.2.8' where position = 4", 4),
    "no address": ("delete from ops.access_addresses where position = 4", 4),
}


@pytest.mark.parametrize(("statement", "position"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampering_is_found_with_its_position(trail, statement, position):
    trail.write(*map(access, range(10)))
    if "position in" in statement:
        trail.owner.execute("alter table ops.access_log drop constraint access_log_pkey")
    trail.tamper(statement)
    assert f"at position {position}:" in trail.verify().problem


def test_a_trail_that_was_cut_off_with_its_head_does_not_fit_the_signed_head(trail):
    trail.write(*map(access, range(10)))
    trail.sign()
    trail.tamper(
        "update ops.access_head set position = 4, hash = (select hash from ops.access_log where position = 4)",
        "delete from ops.access_log where position > 4",
        "delete from ops.access_addresses where position > 4",
        "delete from ops.access_heads",
    )
    assert "at position 5: truncated, there were 10 records" in trail.verify().problem


def test_records_are_only_removed_up_to_a_signed_head(trail):
    trail.write(*map(access, range(10)))
    trail.sign()
    trail.tamper(
        "update ops.access_head set anchor_position = 4, anchor_hash = (select hash from ops.access_log where position = 4)",
        "delete from ops.access_log where position <= 4",
        "delete from ops.access_addresses where position <= 4",
    )
    assert "at position 4: records were removed up to a position that was not signed" in trail.verify().problem


def test_a_head_of_the_log_is_no_head_of_the_trail(trail):
    trail.write(access())
    trail.sign()
    trail.tamper("update ops.access_heads set signature = encode('another', 'base64')")
    assert "not signed by this installation" in trail.verify().problem


def test_a_changed_trail_is_not_signed_again(trail):
    trail.write(*map(access, range(3)))
    trail.sign()
    trail.write(access())
    trail.tamper("update ops.access_log set kind = 'preview' where position = 4")
    for _ in range(2):
        with pytest.raises(BrokenChain, match="position 4"):
            trail.sign()
    assert trail.rows("select position from ops.access_heads") == [(3,)]


@pytest.mark.parametrize("statement", ["update {} set position = 0", "delete from {}", "truncate {}", "insert into {} select * from {}"])
@pytest.mark.parametrize("table", ["ops.access_log", "ops.access_addresses"])
def test_even_the_owner_changes_nothing_by_accident(trail, statement, table):
    trail.write(access())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        trail.owner.execute(statement.replace("{}", table))


@pytest.mark.parametrize("table", ["access_log", "access_addresses", "access_head", "access_heads", "access_writers"])
def test_the_api_may_only_append_and_read(trail, postgres, database, table):
    with psycopg.connect(postgres.url(user="bioscope_api", database=database), autocommit=True) as api:
        api.execute("set ops.access_change = 'on'")
        for statement in ("insert into ops.{0} select * from ops.{0}", "update ops.{0} set position = 1", "delete from ops.{0}"):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedColumn)):
                api.execute(statement.format(table))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            api.execute("select ops.prune_access_log(1)")
    trail.write(access(), url=postgres.url(user="bioscope_api", database=database))
    assert len(trail.rows()) == 1


def test_several_processes_append_to_one_chain(trail):
    writers = [threading.Thread(target=trail.write, args=[access(number) for number in range(300)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = trail.verify()
    assert (found.problem, found.records) == (None, 1200)


def test_a_batch_whose_answer_was_lost_is_appended_once(trail):
    written = AccessLog(trail.settings.postgres_url, limits=QUICK)
    written.record(access())
    assert written._take()
    for _ in range(2):
        written._append(written._batch)
    written.close()
    assert len(trail.rows()) == 1


def test_a_record_that_cannot_be_stored_costs_no_other(trail):
    written = AccessLog(trail.settings.postgres_url, limits=QUICK)
    for one in (access(1), access(2, count=0), access(3, noun="a noun that is longer than any noun of the system")):
        written.record(one)
    written._append_all()
    assert (len(trail.rows()), written._lost) == (2, 1)
    written.record(access(4))
    written._append_all()
    written.close()
    assert (len(trail.rows()), trail.verify().problem) == (3, None)


def test_records_wait_for_the_database_and_health_says_so(trail):
    written = AccessLog(trail.settings.postgres_url, limits=QUICK)
    trail.owner.execute("alter function ops.append_access rename to append_later")
    trail.owner.execute(
        "create function ops.append_access(uuid, bigint, timestamptz[], text[], text[], uuid[], text[], uuid[], text[], uuid[],"
        " uuid[], text[], text[], integer[], text[], uuid[]) returns bigint"
        " language plpgsql as $$ begin raise exception using errcode = '57P03'; end $$"
    )
    written.record(access())
    written._append_all()
    assert written.failing_seconds() is not None
    trail.owner.execute("drop function ops.append_access")
    trail.owner.execute("alter function ops.append_later rename to append_access")
    written._append_all()
    written.close()
    assert written.failing_seconds() is None
    assert len(trail.rows()) == 1


def test_a_full_queue_loses_records_and_counts_them(trail):
    written = AccessLog(trail.settings.postgres_url, limits=TrailLimits(queued=5))
    for number in range(8):
        written.record(access(number))
    assert (len(written._queue), written._lost) == (5, 3)
    written.close()


def test_a_flood_of_refused_sign_ins_stays_within_the_budget(trail):
    times = iter(range(10**6))
    written = AccessLog(trail.settings.postgres_url, limits=QUICK, clock=lambda: next(times) / 10_000)
    refused = access(kind=AccessKind.SIGN_IN, outcome=AccessOutcome.REFUSED, actor_id=None, actor_kind="anonymous", object_id=None)
    for _ in range(100_000):
        written.record(refused)
    assert len(written._queue) == 60
    written._finish()
    written.close()
    assert sum(number for _, _, number in trail.rows()) == 100_000
    assert len(trail.rows()) == 61
    assert trail.verify().problem is None


class TestBudget:
    LIMITS = BudgetLimits(seconds=60, refusals=2, all_refusals=5, accesses=3, all_accesses=9, networks=4)

    @given(
        st.lists(st.tuples(st.sampled_from([AccessKind.SIGN_IN, AccessKind.DOWNLOAD]), st.integers(0, 20), st.floats(0, 30)), max_size=60)
    )
    def test_every_access_is_recorded_or_counted(self, accesses):
        budget, now, admitted = AccessBudget(self.LIMITS), 0.0, []
        for kind, network, pause in accesses:
            now += pause
            admitted += budget.summaries(now)
            one = access(kind=kind, network=f"192.0.2.{network}")
            if budget.admits(one, now):
                admitted.append(one)
        admitted += budget.drained()
        assert sum(one.count for one in admitted) == len(accesses)

    @given(st.lists(st.sampled_from([None, *(UUID(int=person) for person in range(3))]), min_size=10, max_size=30))
    def test_a_count_of_accesses_has_no_address_of_a_person_since_an_erasure_would_not_find_it(self, persons):
        budget = AccessBudget(self.LIMITS)
        for number, person in enumerate(persons):
            budget.admits(access(kind=AccessKind.FORBIDDEN, network="192.0.2.0", address=f"192.0.2.{number}", person=person), 0.0)
        (counted,) = budget.drained()
        addresses = {f"192.0.2.{number}" for number, person in enumerate(persons) if person is None}
        assert counted.person is None
        assert counted.address in {"", *addresses}

    @given(st.lists(st.integers(0, 1000), max_size=300))
    def test_memory_and_records_are_bounded(self, networks):
        budget = AccessBudget(self.LIMITS)
        admitted = [one for one in networks if budget.admits(access(kind=AccessKind.FORBIDDEN, network=str(one)), 0.0)]
        assert len(admitted) <= self.LIMITS.all_refusals
        assert len(list(budget.drained())) <= self.LIMITS.networks + 1


@given(st.text())
def test_whatever_a_client_sends_becomes_printable(text):
    plain = _plain(text, 64)
    assert plain.isascii()
    assert plain == "" or plain.isprintable()
    assert len(plain) == min(64, len(text))


def test_false_data_is_stored_harmlessly(trail):
    hostile = ("fe80::1%\r\nInjected: yes", "\x00", "\ud800", "x" * 1_000_000)
    trail.write(*(access(address=text, request_id=text, route=text) for text in hostile))
    assert trail.verify().problem is None
    assert trail.rows("select address from ops.access_addresses order by position limit 2") == [("fe80::1%??Injected: yes",), ("?",)]


def test_an_erased_person_leaves_no_address_and_the_chain_verifies(trail):
    ada, bob = trail.person(), trail.person()
    trail.write(
        access(actor_id=ada, actor_kind="user", person=ada),
        access(actor_id=bob, actor_kind="user", person=bob),
        access(kind=AccessKind.SIGN_IN, actor_id=None, actor_kind="anonymous", noun="user", object_id=ada, person=ada),
    )
    trail.owner.execute("delete from es.secrets where kind = 'key' and owner = %s", (ada,))
    assert trail.rows("select person from ops.access_addresses") == [(bob,)]
    trail.write(access(actor_id=ada, actor_kind="user", person=ada))
    assert trail.rows("select person from ops.access_addresses") == [(bob,)]
    found = trail.verify()
    assert (found.problem, found.records) == (None, 4)


def test_old_records_are_removed_and_the_chain_goes_on(trail):
    trail.write(*map(access, range(4)))
    trail.sign(TODAY - timedelta(days=40))
    trail.write(*map(access, range(3)))
    trail.sign()
    assert remove_old_records(trail.app, days=30) == 0
    trail.owner.execute("set session_replication_role = replica")
    shifted_chain(trail)
    assert remove_old_records(trail.app, days=30) == 4
    assert [position for position, *_ in trail.rows()] == [5, 6, 7]
    assert trail.rows("select count(*) from ops.access_addresses") == [(3,)]
    assert (trail.verify().problem, trail.verify().records) == (None, 3)
    trail.write(access())
    trail.sign()
    assert trail.verify().problem is None


def shifted_chain(trail):
    """Let the first four records be 40 days old, with a chain and signed heads that fit, as if they had been written then."""
    trail.owner.execute("update ops.access_log set recorded_at = recorded_at - interval '40 days' where position <= 4")
    digest = ACCESS_START
    for row in trail.app.execute(RECORDS_BETWEEN, (0, 100), binary=True).fetchall():
        record = recorded_access_from(row)
        digest = access_link(digest, record)
        trail.owner.execute("update ops.access_log set hash = %s where position = %s", (digest, record.position))
        if record.position == 4:
            trail.owner.execute("update ops.access_head set position = 4, hash = %s", (digest,))
            trail.owner.execute("delete from ops.access_heads")
            trail.owner.execute("create table moved as select * from ops.access_log where position > 4")
            trail.owner.execute("delete from ops.access_log where position > 4")
            trail.blobs = MemoryBlobs()
            trail.heads = AccessHeadSigner(trail.root, trail.blobs, trail.app)
            trail.sign(TODAY - timedelta(days=40))
            trail.owner.execute("insert into ops.access_log select * from moved")
    trail.owner.execute("update ops.access_head set position = 7, hash = %s", (digest,))
    trail.owner.execute("set session_replication_role = origin")
    trail.sign()


def test_each_process_may_do_its_part(trail, postgres, database):
    trail.write(*map(access, range(3)), url=postgres.url(user="bioscope_api", database=database))
    with psycopg.connect(postgres.url(user="bioscope_relay", database=database), autocommit=True) as relay:
        relay.execute("set timezone = 'UTC'")
        AccessHeadSigner(trail.root, trail.blobs, relay).sign(relay, at=TODAY)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            relay.execute("select * from ops.access_addresses")
    with psycopg.connect(postgres.url(user="bioscope_projector", database=database), autocommit=True) as projector:
        assert remove_old_records(projector, days=1) == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            projector.execute("delete from ops.access_log")
    assert (trail.verify().problem, trail.verify().heads) == (None, 1)


def test_the_erasure_of_a_person_removes_their_addresses_in_its_own_transaction(trail):
    root, ada = command(actor(None, kind="system")), register(actor(), log=trail.log).id
    trail.write(access(actor_id=ada, actor_kind="user", person=ada))
    assert trail.rows("select count(*) from ops.access_addresses") == [(1,)]
    accounts.erase(ada, command=root, log=trail.log, tokens=NoSessions())
    assert trail.rows("select count(*) from ops.access_addresses") == [(0,)]
    assert trail.verify().problem is None


CRASHES = """
import sys, time
from datetime import UTC, datetime
from application.history.access_records import Access, AccessKind, AccessOutcome
from infrastructure.audit.access_log import AccessLog
trail = AccessLog(sys.argv[1])
trail.start()
for number in range(10**6):
    at = datetime.now(UTC)
    trail.record(Access(at=at, kind=AccessKind.DOWNLOAD, outcome=AccessOutcome.ALLOWED, request_id=str(number), network=str(number)))
    print(number, flush=True)
    time.sleep(0.002)
"""


def test_a_crash_loses_only_what_was_recorded_last(trail):
    process = subprocess.Popen([sys.executable, "-c", CRASHES, trail.settings.postgres_url], stdout=subprocess.PIPE, text=True)
    with process:
        while not trail.rows():
            process.stdout.readline()
        process.kill()
    found = trail.verify()
    assert found.problem is None
    numbers = [int(number) for (number,) in trail.rows("select request_id from ops.access_log order by position")]
    assert numbers == list(range(len(numbers)))
