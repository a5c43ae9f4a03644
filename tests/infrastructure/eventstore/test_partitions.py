"""Partitions of the log: each exists when it is needed, cannot be written to directly, and lookups read few of them."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application import datasets
from application.history.hash_chain import START, link
from domain import dataset
from domain.errors import ConcurrencyConflict, DomainError
from infrastructure.audit.reconciliation import HISTORIES
from infrastructure.audit.side_tables import TableAudit
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import ADMINISTRATORS, PostgresRecorder
from infrastructure.postgres import schema
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, command
from tests.partitions import made_small, partitions

ROOT = RootKey(bytes(range(32)))
SIZE = 20
PARTITIONED = 18  # the migration
A_STREAM = UUID(int=7)
ROLES = ("bioscope_app", "bioscope_api", "bioscope_relay", "bioscope_projector", "bioscope_inference")
STREAMS_OF_THE_LOG = """select originator_id, min(notification_id), max(notification_id), max(originator_version) from es.events
  group by originator_id order by originator_id"""
STREAMS_STORED = "select stream, first, newest, version from es.streams order by stream"

PARTITIONED = 18  # the migration


@pytest.fixture
def owner(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def log(app_url):
    log = RecorderEventStore(PostgresRecorder(app_url, ROOT), ROOT)
    yield log
    log.close()


@pytest.fixture
def small(owner):
    made_small(owner, SIZE)
    return owner


def created(log):
    return datasets.create(name="cells", description=None, command=command(actor()), log=log).id


def described(log, stream, name):
    log.append(command(), *dataset.describe(log.load(stream, dataset.evolve), name=name, by=uuid4(), at=NOW))


def linked(events):
    return all(later.hash == link(earlier.hash, later) for earlier, later in pairwise(events)) and events[0].hash == link(START, events[0])


def streams_fit(owner):
    return owner.execute(STREAMS_STORED).fetchall() == owner.execute(STREAMS_OF_THE_LOG).fetchall()


# ---- no partition is missing -----------------------------------------------------------------------------------------------------------
def test_appends_of_many_writers_go_on_across_the_ends_of_partitions(log, small):
    first = created(log)

    def write(number):
        one = created(log)
        described(log, one, f"{number}")
        with contextlib.suppress(ConcurrencyConflict):
            described(log, first, f"{number}")
        return one

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(write, range(100)))
    events = log.read(0, 1000)
    assert [event.position for event in events] == list(range(1, log.head() + 1))
    assert linked(events)
    assert {len(log.history(one)) for one in made} == {2}
    assert partitions(small) == [f"events_{number:04}" for number in range((log.head() + SIZE // 2) // SIZE + 1)]
    assert streams_fit(small)


def test_a_partition_is_made_half_of_one_before_it_is_needed(log, small):
    for _ in range(SIZE // 2 - 1):
        created(log)
    assert partitions(small) == ["events_0000"]
    created(log)
    assert partitions(small) == ["events_0000", "events_0001"]


def test_one_command_may_fill_several_partitions(log, small):
    one, events = created(log), []
    state = log.load(one, dataset.evolve)
    for number in range(1, 3 * SIZE):
        (event,) = dataset.describe(state, name=f"{number}", by=one, at=NOW)
        state = dataset.evolve(state, event)
        events.append(event)
    log.append(command(), *events)
    assert (log.head(), len(log.history(one)), len(partitions(small))) == (3 * SIZE, 3 * SIZE, 4)
    assert streams_fit(small)


def test_while_another_session_changes_the_table_appends_go_on_and_the_partition_is_made_later(log, small, owner_url):
    with psycopg.connect(owner_url) as another:
        another.execute("lock table es.events in share update exclusive mode")
        for _ in range(SIZE - 2):
            created(log)
        assert partitions(small) == ["events_0000"]
    created(log)
    assert partitions(small) == ["events_0000", "events_0001"]


def test_a_partition_that_is_not_needed_yet_is_waited_for_by_nobody(small, owner_url):
    with psycopg.connect(owner_url) as another:
        another.execute("lock table es.events in share update exclusive mode")
        small.execute("set statement_timeout = '5s'")
        small.execute("call es.prepare_partitions_unless_locked(%s)", (SIZE,))
        assert partitions(small) == ["events_0000"]


def test_at_the_end_of_the_last_partition_an_append_waits_and_is_refused_whole_and_then_goes_on(log, small, owner_url):
    with psycopg.connect(owner_url) as another:
        another.execute("lock table es.events in share update exclusive mode")
        for _ in range(SIZE - 1):
            created(log)
        with pytest.raises(DomainError, match="try again"):
            created(log)
        assert log.head() == SIZE - 1
    created(log)
    assert (log.head(), partitions(small)) == (SIZE, ["events_0000", "events_0001"])


def test_a_crash_while_a_partition_is_made_leaves_none_and_the_next_append_makes_it(log, small, owner_url):
    with contextlib.suppress(psycopg.errors.AdminShutdown), psycopg.connect(owner_url) as another:
        another.execute("call es.prepare_partitions(%s)", (SIZE,))
        small.execute("select pg_terminate_backend(%s)", (another.info.backend_pid,))
    assert partitions(small) == ["events_0000"]
    for _ in range(SIZE + 1):
        created(log)
    assert linked(log.read(0, 100))


def test_partitions_have_the_same_columns_checks_indexes_and_triggers(log, small):
    for _ in range(SIZE):
        created(log)
    described_by = (
        "select attname, atttypid, attnotnull, attstorage from pg_attribute where attrelid = %s::regclass and attnum > 0 order by attnum",
        "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = %s::regclass and contype = 'c' order by 1",
        """select regexp_replace(replace(pg_get_indexdef(indexrelid), %s, 'events'), 'INDEX .* ON', 'INDEX ON') from pg_index
          where indrelid = ('es.' || %s)::regclass order by 1""",
        "select tgname, tgfoid, tgenabled from pg_trigger where tgrelid = %s::regclass",
    )
    for query in described_by:
        first, second = (small.execute(query, _named(query, name)).fetchall() for name in ("events_0000", "events_0001"))
        assert first == second
        assert first


def _named(query, name):
    return (name, name) if query.count("%s") == 2 else (f"es.{name}",)


# ---- nobody writes into one ------------------------------------------------------------------------------------------------------------
DIRECT = (
    "insert into es.events_0000 select * from es.events",
    "update es.events_0000 set topic = 'x'",
    "delete from es.events_0000",
    "truncate es.events_0000",
)
BYPASSES = (
    *DIRECT,
    "select * from es.events_0000",
    "alter table es.events detach partition es.events_0000",
    "alter table es.events_0000 disable trigger append_only",
    "create table es.mine (like es.events)",
    "call es.add_partition(1)",
    "call es.prepare_partitions(99999999)",
    "insert into es.streams select * from es.streams",
    "update es.streams set version = 0",
    "delete from es.streams",
    "call es.fill_streams()",
)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("statement", BYPASSES)
def test_a_process_reaches_no_partition_past_the_log(postgres, database, role, statement):
    url = postgres.url(user=role, database=database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set es.appending = 'with streams'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


@pytest.mark.parametrize("statement", DIRECT)
@pytest.mark.parametrize("partition", ["events_0000", "events_0001"])
def test_even_the_owner_is_refused_by_the_trigger_of_each_partition(log, small, statement, partition):
    for _ in range(SIZE + 1):
        created(log)
    small.execute("set es.appending = 'with streams'")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        small.execute(statement.replace("events_0000", partition))


# ---- few partitions are looked at ------------------------------------------------------------------------------------------------------
SCANS = """select coalesce(sum(pg_stat_get_xact_numscans(i.indexrelid) + pg_stat_get_xact_numscans(p.inhrelid)), 0)
  from pg_inherits p join pg_index i on i.indrelid = p.inhrelid where p.inhparent = 'es.events'::regclass"""
LOOKUPS = {
    "by position": ("select * from es.event_at(%(newest)s)", {}),
    "by stream": ("select * from es.stream_events(%(stream)s, 0)", {}),
    "by stream and version": ("select * from es.stream_events(%(stream)s, 0) where originator_version = 1", {}),
    "histories": (HISTORIES.replace("any(%s)", "any(array[%(stream)s])").replace("all(%s)", "all('{}')"), {}),
    "guard": ("select es.stream_holds(s, '{DatasetDeleted}') from es.streams s where s.stream = %(stream)s", {}),
    "hash": ("select ops.log_hash(%(newest)s)", {}),
    "inspection": ("select ops.check_inspection(%(stream)s, '{}', null)", {}),
}


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_lookup_of_one_stream_or_position_opens_one_partition_of_eighty(log, small, lookup):
    small.execute("call es.prepare_partitions(%s)", (79 * SIZE,))
    stream = created(log)
    query, _ = LOOKUPS[lookup]
    with small.transaction():
        before = small.execute(SCANS).fetchone()[0]
        small.execute(query, {"stream": stream, "newest": 1})
        assert small.execute(SCANS).fetchone()[0] - before in {1, 2}


FETCHED = """select coalesce(sum(pg_stat_get_xact_tuples_fetched(i.indexrelid)), 0)
  from pg_inherits p join pg_index i on i.indrelid = p.inhrelid where p.inhparent = 'es.events'::regclass"""
GUARDED = """select outcome from es.append(
  array[gen_random_uuid()], array[null::bytea], array[null::uuid], array['{}'::bytea], '{}', '{}', '{}', '{}', '{}', '{}', '{}',
  array[1], array[%s], array[null::integer], array['DatasetDeleted'], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')"""


def test_that_a_stream_is_closed_is_seen_without_reading_it_whole(log, owner):
    """It is looked for under the lock of the log, for each chunk of a job too."""
    stream = created(log)
    for number in range(SIZE):
        described(log, stream, f"cells {number}")
    log.append(command(), dataset.delete(log.load(stream, dataset.evolve), by=uuid4(), at=NOW))
    with owner.transaction():
        before = owner.execute(FETCHED).fetchone()[0]
        assert owner.execute(GUARDED, [stream]).fetchone() == ("closed",)
        assert owner.execute(FETCHED).fetchone()[0] - before <= 2


def test_administrators_are_found_in_all_partitions_by_their_index_alone(small):
    small.execute("call es.prepare_partitions(%s)", (79 * SIZE,))
    small.execute("set enable_seqscan = off")
    plan = "\n".join(line for (line,) in small.execute(f"explain {ADMINISTRATORS}"))
    assert "Seq Scan" not in plan
    assert plan.count("originator_id_notification_id_idx on") + plan.count("events_0000_administrators on") == 80


# ---- data of before ------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def earlier(postgres):
    """The owner's URL of a database as an earlier release left it."""
    name = f"before_partitions_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
        server.execute(f"create database {name}")
        known = schema.migrations()
        before = {number: text for number, text in known.items() if number < PARTITIONED}
        schema.migrate(postgres.url(user="postgres", database=name), known=before)
        yield postgres.url(user="postgres", database=name)
        server.execute(f"drop database {name} with (force)")


APPEND_OF_BEFORE = """select outcome from es.append(
  array[gen_random_uuid()], array[null::bytea], array[null::uuid], array['{"actor":{}}'::bytea],
  array[1], array[%(stream)s::uuid], array[%(version)s], array['DatasetDescribed'], array[1], array['{}'::bytea], array[gen_random_uuid()],
  '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')"""


def test_a_log_of_before_becomes_the_first_partition_as_it_lies(earlier):
    one, other = uuid4(), uuid4()
    with psycopg.connect(earlier, autocommit=True) as owner:
        owner.execute("create role auditor_of_tests")
        owner.execute("grant select on es.events to auditor_of_tests")
        for stream, version in ((one, 1), (other, 1), (one, 2), (one, 3)):
            assert owner.execute(APPEND_OF_BEFORE, {"stream": stream, "version": version}).fetchone() == ("appended",)
        rows, file = "select * from es.events order by 1", "select pg_relation_filenode(%s)"
        before = owner.execute(rows).fetchall(), owner.execute(file, ("es.events",)).fetchone()
        assert PARTITIONED in schema.migrate(earlier)
        assert (owner.execute(rows).fetchall(), owner.execute(file, ("es.events_0000",)).fetchone()) == before
        assert sorted(owner.execute(STREAMS_STORED).fetchall()) == sorted([(one, 1, 4, 3), (other, 2, 2, 1)])
        readable = "select has_table_privilege('auditor_of_tests', %s, 'select')"
        assert [owner.execute(readable, (table,)).fetchone()[0] for table in ("es.events", "es.events_0000")] == [True, False]
        for version, answer in ((2, "conflict"), (3, "conflict"), (4, "appended")):
            assert owner.execute(APPEND_OF_BEFORE, {"stream": one, "version": version}).fetchone() == (answer,)
        assert streams_fit(owner)
        owner.execute("drop owned by auditor_of_tests")
        owner.execute("drop role auditor_of_tests")


@pytest.mark.parametrize(("count", "first"), [(1, "events_0000"), (2, "events_0001"), (5, "events_0002")])
def test_a_log_of_before_that_is_larger_than_a_partition_becomes_one_and_goes_on(earlier, count, first):
    known = schema.migrations()
    small_partitions = known | {PARTITIONED: known[PARTITIONED].replace("16777216", "2")}
    with psycopg.connect(earlier, autocommit=True) as owner:
        for version in range(1, count + 1):
            owner.execute(APPEND_OF_BEFORE, {"stream": A_STREAM, "version": version})
        schema.migrate(earlier, known=small_partitions)
        assert partitions(owner) == [first]
        for version in range(count + 1, count + 8):
            assert owner.execute(APPEND_OF_BEFORE, {"stream": A_STREAM, "version": version}).fetchone() == ("appended",)
        assert partitions(owner)[0] == first
        assert streams_fit(owner)


def test_a_command_that_came_while_the_log_was_partitioned_is_carried_out_once(earlier, monkeypatch):
    """It waits within the function as it was, which knows nothing of streams."""
    log = RecorderEventStore(PostgresRecorder(earlier, ROOT), ROOT)
    created(log)
    done = []
    with psycopg.connect(earlier) as owner:
        owner.execute(schema.migrations()[PARTITIONED])
        waiting = threading.Thread(target=lambda: done.append(created(log)))
        waiting.start()
        waits = "select count(*) from pg_locks where not granted"
        while owner.execute(waits).fetchone() == (0,):
            pass
        owner.commit()
        waiting.join(30)
        assert streams_fit(owner)
        assert [event.stream for event in log.read(1, 10)] == done
    log.close()


# ---- what is stored of streams is compared with the log --------------------------------------------------------------------------------
EDITS = {
    "a version that is too high": "update es.streams set version = version + 1 where stream = %(one)s",
    "a version that is too low": "update es.streams set version = version - 1 where stream = %(one)s",
    "another first position": "update es.streams set first = first + 1 where stream = %(one)s",
    "another newest position": "update es.streams set newest = newest - 1 where stream = %(one)s",
    "an end that is not there": "update es.streams set version = version + 1, newest = newest + 1 where stream = %(one)s",
    "an end that is beyond the log": "update es.streams set version = version + 1, newest = newest + 100 where stream = %(one)s",
    "a row that is missing": "delete from es.streams where stream = %(one)s",
    "a row too many": "insert into es.streams (first, newest, stream, version) values (2, 2, gen_random_uuid(), 1)",
}


def audited(log, size):
    audit, after = TableAudit(log), 0
    while batch := log.read(after, size):
        audit.take(batch)
        after = batch[-1].position
    return [found for found in audit.finish() if found.startswith("stream ")]


def five_events(log):
    one = created(log)
    described(log, one, "more")
    created(log)
    described(log, one, "and more")
    created(log)
    return one


@pytest.mark.parametrize("size", [1, 2, 100])
def test_streams_that_nobody_edited_are_in_order(log, size):
    five_events(log)
    assert audited(log, size) == []


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("size", [1, 100])
def test_an_edited_row_of_a_stream_is_named(log, owner, edit, size):
    one = five_events(log)
    owner.execute(EDITS[edit], {"one": one})
    found = audited(log, size)
    assert found
    assert str(one) in found[0] or edit == "a row too many"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.fixed_dictionaries({name: st.integers(-2, 2) for name in ("first", "newest", "version")}))
def test_whatever_is_changed_of_a_stream_is_named(log, owner, changes):
    one = five_events(log)
    moved = ", ".join(f"{name} = {name} + {by}" for name, by in changes.items())
    owner.execute(f"update es.streams set {moved} where stream = %s", (one,))
    assert bool(audited(log, 100)) == any(changes.values())
    owner.execute("call es.fill_streams()")
