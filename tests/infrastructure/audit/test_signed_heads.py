"""Signed heads reveal a log that was rewritten or truncated."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.history.hash_chain import START, chained
from domain import dataset
from domain.errors import Unavailable
from infrastructure.audit.log_verification import verify_log
from infrastructure.audit.signed_heads import EVENTS_BETWEEN, BrokenChain, HeadSigner
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from tests.adversaries.test_worker import a_job, judged
from tests.given import NOW, actor, command
from tests.twins.blobs import MemoryBlobs

TODAY = datetime.now(UTC)


class Archive:
    """A log, the heads signed of it, and somebody who owns the database but not the root key."""

    def __init__(self, settings):
        self.settings, self.root = settings, RootKey.read(settings.root_key_path)
        self.log, self.blobs = RecorderEventStore(PostgresRecorder(settings.postgres_url, self.root), self.root), MemoryBlobs()
        self.app = psycopg.connect(settings.postgres_url, autocommit=True, options="-c timezone=UTC")
        self.owner = psycopg.connect(settings.postgres_owner_url, autocommit=True)
        self.owner.execute("set session_replication_role = replica")
        self.restart()

    def close(self):
        self.app.close()
        self.owner.close()
        self.log.close()

    def happen(self, number=1):
        for _ in range(number):
            self.log.append(command(), dataset.create(uuid4(), name="cells", description=None, by=actor().id, at=NOW))

    def sign(self, at=TODAY):
        self.heads.sign(self.app, at=at)

    def restart(self):
        self.heads = HeadSigner(self.root, self.blobs, self.app)

    def forget_rules(self):
        """As before migration 0010."""
        self.owner.execute(
            "create or replace function ops.check_judgement(stream uuid, version integer, state bytea, out why text, out job uuid,"
            " out number integer) language plpgsql as 'begin end'"
        )

    def verify(self):
        return verify_log(self.settings, self.log, blobs=self.blobs)

    def kept(self):
        return [row[0] for row in self.app.execute("select position from ops.heads order by position")]

    # ---- the one who owns the database ----
    def forget_heads(self):
        self.owner.execute("delete from ops.heads")

    def write_anew(self, edit=lambda event: event):
        """Every row as `edit` makes it (None: left out), with a chain and a head that fit."""
        events = [changed for event in self.log.read(0, 1000) if (changed := edit(event)) is not None]
        self.owner.execute("delete from es.events")
        digest = START
        for position, event in enumerate(events, 1):
            fitting = chained(digest, replace(event, position=position))
            digest = fitting.hash
            self.owner.execute(
                "insert into es.events values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    *(position, event.stream, event.version, event.type, event.schema_version),
                    *(event.data, event.meta, event.event_id, event.recorded_at, digest),
                ),
            )
        self.owner.execute("update es.head set position = %s, hash = %s", (len(events), digest))


def replace(event, **changes):
    import msgspec

    return msgspec.structs.replace(event, **changes)


@pytest.fixture
def archive(settings):
    archive = Archive(settings)
    yield archive
    archive.close()


def test_an_untouched_record_is_intact_and_says_how_many_heads_bear_it_out(archive):
    for _ in range(3):
        archive.happen(4)
        archive.sign()
    found = archive.verify()
    assert (found.finding, found.events, found.heads) == (None, 12, 3)
    assert archive.kept() == [4, 8, 12]


def test_nothing_new_is_not_signed_again(archive):
    archive.happen()
    archive.sign()
    archive.sign()
    HeadSigner(archive.root, archive.blobs, archive.app).sign(archive.app, at=TODAY)
    assert archive.kept() == [1]


def test_the_same_head_is_signed_whatever_was_read_of_the_log_before(archive):
    archive.happen(12)

    @given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), max_size=8))
    def signed_after(reads):
        archive.forget_heads()
        archive.restart()
        for after, count in reads:
            archive.heads.take(archive.log.read(after, count))
        archive.sign()
        assert (archive.kept(), archive.verify().finding) == ([12], None)

    signed_after()


class CountingConnection:
    """A connection that counts the rows of events that it reads."""

    def __init__(self, connection):
        self._connection, self.events = connection, 0

    def execute(self, query, *arguments, **options):
        cursor = self._connection.execute(query, *arguments, **options)
        self.events += cursor.rowcount if query == EVENTS_BETWEEN else 0
        return cursor


def test_what_was_read_of_the_log_before_is_not_read_again(archive):
    archive.happen(6)
    archive.heads.take(archive.log.read(0, 4))
    archive.heads.take(archive.log.read(3, 10))
    connection = CountingConnection(archive.app)
    archive.heads.sign(connection, at=TODAY)
    assert (archive.kept(), connection.events) == ([6], 0)


@pytest.mark.parametrize(
    "edit",
    [
        "update es.events set state = '{}' where notification_id = 6",
        "delete from es.events where notification_id = 6",
        "delete from es.events where notification_id = 8",
        "update es.head set hash = sha256('another')",
        "update ops.heads set hash = encode(sha256('another'), 'hex')",
        "update ops.heads set hash = 'no hash', signature = 'none', key_id = ''",
    ],
    ids=["edited", "deleted", "cut off", "another head", "another head that was signed", "garbage for a head that was signed"],
)
def test_nothing_is_signed_to_which_the_chain_does_not_lead(archive, edit):
    archive.happen(4)
    archive.sign()
    archive.happen(4)
    archive.owner.execute(edit)
    publishing = HeadSigner(archive.root, archive.blobs, archive.app)
    publishing.take(archive.log.read(4, 10))
    relays = [archive.heads, publishing, HeadSigner(archive.root, archive.blobs, archive.app)]
    if "ops.heads" in edit:
        del relays[0]  # it remembers what it signed
    for relay in relays:
        for _ in range(2):
            with pytest.raises(BrokenChain):
                relay.sign(archive.app, at=TODAY)
    assert archive.kept() == [4]


@pytest.mark.parametrize("column", ["meta", "state"])
def test_garbage_in_a_row_is_named(archive, column):
    archive.happen(4)
    archive.owner.execute(f"update es.events set {column} = 'no JSON' where notification_id = 3")
    assert archive.verify().finding.position == 3


def test_an_event_that_names_no_command_is_named_though_the_chain_holds(archive):
    archive.happen(4)
    archive.write_anew(lambda event: replace(event, meta=b"{}") if event.position == 3 else event)
    assert "event at position 3: it names no command" in archive.verify().discrepancies


def test_a_long_way_to_the_first_head_is_walked_once(archive):
    archive.heads = HeadSigner(archive.root, archive.blobs, archive.app, events_per_batch=3)
    archive.happen(10)
    connection = CountingConnection(archive.app)
    archive.heads.sign(connection, at=TODAY)
    assert (archive.kept(), connection.events) == ([10], 10)
    assert archive.verify().finding is None


@pytest.mark.parametrize("forgotten", [False, True], ids=["heads kept", "heads deleted from the database too"])
@pytest.mark.parametrize(
    ("tamper", "named"),
    {
        "edited": (lambda event: replace(event, data=b"{}") if event.position == 6 else event, 8),
        "deleted": (lambda event: None if event.position == 6 else event, 8),
        "reordered": (lambda event: event, 8),
        "cut off": (lambda event: event if event.position < 10 else None, 10),
        "cut off before the last head but one": (lambda event: event if event.position < 6 else None, 6),
        "emptied": (lambda event: None, 1),
    }.values(),
    ids=["edited", "deleted", "reordered", "cut off", "cut off earlier", "emptied"],
)
def test_a_record_written_anew_with_a_fitting_chain_is_found_out_by_its_heads(archive, request, tamper, named, forgotten):
    for _ in range(3):
        archive.happen(4)
        archive.sign()
    if "reordered" in request.node.name:
        archive.owner.execute(
            "update es.events set notification_id = case notification_id when 6 then -7 else 6 end where notification_id in (6, 7)"
        )
        archive.owner.execute("update es.events set notification_id = 7 where notification_id = -7")
    archive.write_anew(tamper)
    if forgotten:
        archive.forget_heads()
    assert archive.verify().finding.position == named


def test_an_event_put_in_is_found_out_by_the_next_head(archive):
    for _ in range(2):
        archive.happen(4)
        archive.sign()
    archive.owner.execute("update es.events set notification_id = notification_id + 100 where notification_id > 5")
    archive.owner.execute(
        "insert into es.events select 50, gen_random_uuid(), 1, topic, 1, state, meta, gen_random_uuid(), recorded_at, hash"
        " from es.events where notification_id = 5"
    )
    archive.write_anew()
    assert archive.verify().finding.position == 8


def test_rows_behind_the_head_are_found_out(archive):
    archive.happen(5)
    last = archive.log.read(4, 1)[0]
    extra = chained(last.hash, replace(last, position=6, stream=uuid4(), event_id=uuid4()))
    archive.owner.execute(
        "insert into es.events select 6, %s, version, topic, 1, state, meta, %s, recorded_at, %s from"
        " (select *, originator_version as version from es.events where notification_id = 5) e",
        (extra.stream, extra.event_id, extra.hash),
    )
    assert archive.verify().finding.position == 6


@pytest.mark.parametrize("written", [b"not a head", b'{"position":2,"hash":"00","signed_at":"2026-01-01T00:00:00Z","signature":"AAAA"}'])
def test_a_head_that_we_did_not_sign_is_a_finding(archive, written):
    archive.happen(3)
    archive.sign()
    name = f"heads/{TODAY.date().isoformat()}"
    archive.blobs.put_derived(name, archive.blobs.get_derived(name) + b"\n" + written, "")
    assert "not signed by this installation" in archive.verify().finding.what


def test_another_installations_key_signs_nothing_here(archive, tmp_path):
    archive.happen(2)
    HeadSigner(RootKey(b"x" * 32), archive.blobs, archive.app).sign(archive.app, at=TODAY)
    assert archive.verify().finding.position == 2


def test_a_day_has_its_own_file_and_all_days_are_read(archive):
    for day in (3, 2, 0):
        archive.happen()
        archive.sign(TODAY - timedelta(days=day))
    archive.forget_heads()
    assert archive.verify().heads == 3


def test_a_new_leader_adds_to_the_days_heads(archive):
    for _ in range(3):
        archive.happen()
        archive.restart()
        archive.sign()
    archive.forget_heads()
    assert archive.verify().heads == 3


def test_heads_that_could_not_be_put_away_are_put_with_the_next(archive, monkeypatch):
    def away(*_):
        raise Unavailable("away")

    archive.happen()
    with monkeypatch.context() as broken:
        broken.setattr(archive.blobs, "put_derived", away)
        with pytest.raises(Unavailable):
            archive.sign()
    archive.sign()
    archive.forget_heads()
    assert archive.verify().heads == 1


def test_a_record_that_grows_while_it_is_verified_is_intact(archive):
    archive.happen(20)
    going = threading.Event()

    def go_on():
        while not going.is_set():
            archive.happen()

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        findings = [archive.verify().finding for _ in range(30)]
    finally:
        going.set()
        writer.join()
    assert findings == [None] * 30


def test_an_event_that_was_written_wrongly_is_distinguished_from_one_that_was_changed(archive):
    archive.forget_rules()
    archive.happen(2)
    job = a_job(archive.log)
    archive.log.append(command(), judged(archive.log, job))
    assert archive.verify().finding is None
    for lie in (777, 778):
        archive.log.append(command(), judged(archive.log, job, lie))
    found = archive.verify().finding
    assert (found.position, found.what, found.tampered) == (archive.log.head() - 1, "ChunkJudged: the chunk was not planned", False)
