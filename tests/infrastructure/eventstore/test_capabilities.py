"""Capabilities: each process declares its own while it runs, within limits."""

from uuid import uuid4

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from domain.errors import Unavailable, UpgradeNeeded
from domain.registry import EVENTS
from infrastructure.eventstore.capabilities import PAUSE_SHOWN_SECONDS, Capabilities, require_understood
from tests.rigs.waiting import wait_until

DECLARE = "select ops.declare_capabilities(%s, %s, %s, %s, %s, %s, %s)"
SHOWN = "select role, kind, process, release, types, versions, paused from ops.capabilities order by seen_at desc"


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def as_role(postgres, database):
    """Run a statement as a role; its rows."""

    def run(role, query, *arguments):
        with psycopg.connect(postgres.url(user=role, database=database), autocommit=True) as connection:
            cursor = connection.execute(query, arguments)
            return cursor.fetchall() if cursor.description else []

    return run


def declared(as_role, role="bioscope_inference", *, id=None, types=("UserRegistered",), versions=(1,), paused=""):  # noqa: A002
    as_role(role, DECLARE, id or uuid4(), "inference", "host:7", "0.2.0", list(types), list(versions), paused)


def test_a_process_declares_itself_from_its_start_to_its_end(log, as_role):
    capabilities = Capabilities(log.recorder.rows, "projector")
    capabilities.start()
    ((_, kind, process, release, types, versions, paused),) = as_role("bioscope_api", SHOWN)
    assert (kind, paused) == ("projector", "")
    assert dict(zip(types, versions, strict=True)) == {name: known.schema_version for name, known in EVENTS.items()}
    assert ":" in process
    assert release
    capabilities.stop()
    assert as_role("bioscope_api", SHOWN) == []


def test_the_reason_of_a_pause_is_shown_at_once_and_for_a_minute_after_it_was_met(log, as_role):
    clock = Clock()
    capabilities = Capabilities(log.recorder.rows, "projector", clock=clock)
    capabilities.start()
    capabilities.pausing("position 17 holds ImageTagged version 1")
    wait_until(lambda: as_role("bioscope_api", SHOWN)[0][-1] == "position 17 holds ImageTagged version 1")
    clock.now += PAUSE_SHOWN_SECONDS + 1
    assert capabilities.paused == ""
    capabilities.stop()


def test_a_database_that_is_away_ends_no_process():
    asked = []

    def away(query, *_):
        asked.append(query)
        raise Unavailable("away")

    capabilities = Capabilities(away, "api")
    capabilities.start()
    capabilities.stop()
    assert len(asked) == 2, "it declares itself, and withdraws that at its end"


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_projector", "bioscope_inference"])
def test_no_role_sees_or_changes_the_rows_of_others(as_role, role):
    known = uuid4()
    declared(as_role, "bioscope_app", id=known)
    for forbidden in ("select id from ops.capabilities", "delete from ops.capabilities", "update ops.capabilities set release = ''"):
        with pytest.raises(InsufficientPrivilege):
            as_role(role, forbidden)
    declared(as_role, role, id=known, paused="of somebody else")
    as_role(role, "select ops.withdraw_capabilities(%s)", known)
    ((owner, *_, paused),) = as_role("bioscope_app", SHOWN)
    assert (owner, paused) == ("bioscope_app", "")


def test_false_declarations_stay_few_and_small(as_role):
    with pytest.raises(psycopg.DatabaseError, match="at most 500 types"):
        declared(as_role, types=["T"] * 501, versions=[1] * 501)
    with pytest.raises(psycopg.DatabaseError, match="at most 500 types"):
        declared(as_role, types=["T" * 70_000])
    with pytest.raises(psycopg.DatabaseError, match="each with a version"):
        declared(as_role, types=["T", "U"])
    declared(as_role, "bioscope_api")
    for _ in range(70):
        declared(as_role, paused="x" * 10_000)
    roles = [row[0] for row in as_role("bioscope_app", SHOWN)]
    assert (roles.count("bioscope_inference"), roles.count("bioscope_api")) == (64, 1)
    assert max(len(row[-1]) for row in as_role("bioscope_app", SHOWN)) == 500


def test_a_row_is_written_at_most_once_a_second(as_role, postgres, database):
    known = uuid4()
    with psycopg.connect(postgres.url(user="bioscope_inference", database=database), autocommit=True) as connection:
        for number in range(20):
            declared(lambda _, *statement: connection.execute(statement[0], statement[1:]), id=known, paused=str(number))
    assert as_role("bioscope_app", SHOWN)[0][-1] == "0"


def test_who_was_not_seen_for_half_a_minute_is_waited_for_no_longer(as_role, owner_url):
    declared(as_role)
    assert as_role("bioscope_app", "select ops.begin_to_write('ImageTagged', 1)") == [("inference host:7 (release 0.2.0)",)]
    with psycopg.connect(owner_url) as owner:
        owner.execute("update ops.capabilities set seen_at = seen_at - interval '31 s'")
    assert as_role("bioscope_app", "select ops.begin_to_write('ImageTagged', 1)") == [(None,)]


@pytest.mark.parametrize("type_name", ["DatasetCreated", "UserRoleChanged", "NobodyWritesThis"])
def test_no_role_begins_to_write_what_it_may_not_append(as_role, type_name):
    before = as_role("bioscope_app", "select topic, schema_version from ops.written_types order by 1, 2")
    as_role("bioscope_inference", "select ops.begin_to_write(%s, 7)", type_name)
    as_role("bioscope_app", "select ops.begin_to_write(%s, 100000)", type_name)
    assert as_role("bioscope_app", "select topic, schema_version from ops.written_types order by 1, 2") == before
    with pytest.raises(InsufficientPrivilege):
        as_role("bioscope_relay", "select ops.begin_to_write(%s, 1)", type_name)


def test_a_process_that_understands_nothing_delays_new_types_and_stops_nothing_that_is_written(as_role):
    declared(as_role, types=[], versions=[])
    for type_name in ("DatasetCreated", "UserRegistered", "ChunkJudged"):
        assert as_role("bioscope_app", "select ops.begin_to_write(%s, 1)", type_name) == [(None,)]
    assert as_role("bioscope_app", "select ops.begin_to_write('ImageTagged', 1)") != [(None,)]


def test_a_backup_is_left_to_a_release_that_knows_every_type_that_is_written(log, as_role):
    require_understood(log)
    as_role("bioscope_app", "select ops.begin_to_write('ImageTagged', 1)")
    with pytest.raises(UpgradeNeeded, match=r"^the log holds ImageTagged version 1, which a newer release wrote"):
        require_understood(log)
