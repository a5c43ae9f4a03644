"""Pruning: ids of old commands, tokens of ended sessions and uses of ended keys are removed, and nothing that may still be needed."""

import time
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application import datasets
from infrastructure.audit.side_tables import TableAudit
from infrastructure.eventstore.pruning import prune
from tests.given import actor, command

DAY = timedelta(days=1)


@pytest.fixture
def owner(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def projector(postgres, database):
    with psycopg.connect(postgres.url(user="bioscope_projector", database=database), autocommit=True) as connection:
        yield connection


def created(log, keyed=False):
    asked = command(actor(), **({"digest": b"digest"} if keyed else {}))
    datasets.create(name="cells", description=None, command=asked, log=log)
    return asked


def aged(owner, asked, age):
    owner.execute("update es.commands set recorded_at = now() - %s::interval where id = %s", (age, asked.id))


@pytest.mark.parametrize(("keyed", "kept"), [(True, 30 * DAY), (False, DAY)])
def test_a_command_is_remembered_as_long_as_it_may_be_repeated(log, owner, projector, keyed, kept):
    old, young = created(log, keyed), created(log, keyed)
    aged(owner, old, kept + timedelta(minutes=1))
    aged(owner, young, kept - timedelta(minutes=1))
    assert prune(projector)["es.commands"] == 1
    assert log.outcome(old) is None
    assert log.outcome(young).replayed


def test_a_large_table_is_gone_through_in_short_transactions(owner, projector):
    owner.execute(
        "insert into es.commands select gen_random_uuid(), null, null, n, now() - interval '2 days' from generate_series(1, 40000) n"
    )
    owner.execute("insert into es.commands select gen_random_uuid(), null, null, n, now() from generate_series(1, 100) n")
    pauses = []
    assert prune(projector, sleep=pauses.append)["es.commands"] == 40_000
    assert len(pauses) >= 2
    assert owner.execute("select count(*) from es.commands").fetchone() == (100,)


def test_an_append_does_not_wait_for_rows_that_are_being_removed(log, owner, projector):
    aged(owner, created(log), 2 * DAY)
    with projector.transaction():
        assert projector.execute("select removed from es.prune_commands(0)").fetchone() == (1,)
        created(log)


def session(owner, *tokens):
    """Of (hours until its end, used): one session's tokens; its id."""
    one, user = uuid4(), uuid4()
    for hours, used in tokens:
        owner.execute(
            "insert into es.refresh_tokens (digest, session_id, user_id, issued_at, expires_at, absolute_at, used_at)"
            " values (uuid_send(gen_random_uuid()), %s, %s, now(), now() + %s::interval, now() + interval '9 days', %s)",
            (one, user, timedelta(hours=hours), None if not used else "2026-01-01"),
        )
    return one


def left(owner, one):
    return owner.execute("select count(*) from es.refresh_tokens where session_id = %s", (one,)).fetchone()[0]


def test_the_tokens_of_a_session_go_when_none_was_valid_for_a_day(owner, projector):
    """A used one is needed while its session lasts: presented again, it ends that session."""
    ended, idle, live = (
        session(owner, (-50, True), (-25, False)),
        session(owner, (-50, True), (-23, False)),
        session(owner, (-99, True), (9, False)),
    )
    assert prune(projector)["es.refresh_tokens"] == 2
    assert [left(owner, one) for one in (ended, idle, live)] == [0, 2, 2]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sessions=st.lists(st.lists(st.tuples(st.integers(-60, 60).filter(lambda hours: hours != -24), st.booleans()), min_size=1, max_size=4))
)
def test_a_session_keeps_all_of_its_tokens_or_none(owner, projector, sessions):
    owner.execute("delete from es.refresh_tokens")
    made = [session(owner, *tokens) for tokens in sessions]
    prune(projector)
    kept = [len(tokens) if max(hours for hours, _ in tokens) > -24 else 0 for tokens in sessions]
    assert [left(owner, one) for one in made] == kept


def key_used(owner, *, expires=None, revoked=None, legacy=None, first_used=0, last_used=-401):
    """The uses of a key of which the read models know when it ends, in days from now; or of a signed token; its id."""
    key = uuid4()
    if expires is not None:
        owner.execute(
            "insert into read.api_keys values (%(id)s, 1, %(id)s, 'service', '{events:read}', null, %(id)s, now(),"
            " now() + %(expires)s * interval '1 day', now() + %(revoked)s::int * interval '1 day')",
            {"id": key, "expires": expires, "revoked": revoked},
        )
    owner.execute(
        "insert into ops.key_uses (key, network, first_at, last_at, legacy_name, legacy_expiry) values (%(id)s, '192.0.2.1',"
        " now() + %(first)s * interval '1 day', now() + %(last)s * interval '1 day', %(name)s, now() + %(legacy)s::int * interval '1 day')",
        {"id": key, "first": first_used, "last": last_used, "name": None if legacy is None else "archive", "legacy": legacy},
    )
    return key


def test_the_uses_of_a_key_go_400_days_after_it_ended_and_was_used_last(owner, projector):
    gone = {
        key_used(owner, expires=-401),
        key_used(owner, expires=30, revoked=-401),
        key_used(owner, legacy=-401, first_used=-402),
        key_used(owner, legacy=9999, first_used=-491),
    }
    kept = {
        key_used(owner, expires=-399, revoked=-399),
        key_used(owner, expires=30, first_used=-900),
        key_used(owner, legacy=-399, first_used=-402),
        key_used(owner, first_used=-900),
        key_used(owner, expires=-401, last_used=-399),
    }
    assert prune(projector)["ops.key_uses"] == len(gone)
    assert {key for (key,) in owner.execute("select key from ops.key_uses").fetchall()} == kept


def test_a_second_run_removes_nothing(log, owner, projector):
    aged(owner, created(log), 2 * DAY)
    prune(projector)
    assert set(prune(projector).values()) == {0}


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_relay", "bioscope_inference"])
@pytest.mark.parametrize("function", ["es.prune_commands(0)", "es.prune_refresh_tokens(0)", "ops.prune_key_uses(0)"])
def test_only_the_projector_may_prune(postgres, database, role, function):
    with psycopg.connect(postgres.url(user=role, database=database)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"select {function}")


@pytest.mark.parametrize(
    "statement", ["delete from es.commands", "select * from es.commands", "delete from es.refresh_tokens", "delete from ops.key_uses"]
)
def test_the_projector_has_no_other_right_to_these_tables(projector, statement):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        projector.execute(statement)


def audited(log):
    audit = TableAudit(log)
    audit.take(log.read(0, 100))
    return list(audit.finish())


def test_the_audit_takes_a_forgotten_command_for_lost_only_where_it_should_still_be_there(log, owner):
    old, young = created(log), created(log)
    owner.execute("set session_replication_role = replica")
    owner.execute("update es.events set recorded_at = now() - interval '25 hours' where notification_id = 1")
    owner.execute("delete from es.commands")
    assert audited(log) == [f"command {young.id}: it is missing, so a repeated request would be executed again"]
    assert log.outcome(old) is None


def test_the_audit_misses_no_command_that_is_pruned_while_it_runs(log, owner, projector):
    created(log), created(log)
    moment = owner.execute("select clock_timestamp() - %s::interval", (DAY - timedelta(seconds=1),)).fetchone()
    owner.execute("update es.commands set recorded_at = %s where position = 2", moment)
    owner.execute("set session_replication_role = replica")
    owner.execute("update es.events set recorded_at = %s where notification_id = 2", moment)
    audit = TableAudit(log)
    audit.take(log.read(0, 100))
    time.sleep(1.1)
    assert prune(projector)["es.commands"] == 1
    assert list(audit.finish()) == []
