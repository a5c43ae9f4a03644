"""Wake-ups: sent together after the commit by a session of their own; for older releases by the database."""

from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from application.ports import Command
from domain import dataset
from domain.access import Actor
from domain.values import system_actor
from infrastructure.eventstore.codec import Codec
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.group_commit import APPEND, Append, Columns, PendingAppend, PendingResult
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.arrays import register
from infrastructure.postgres.profiles import SENDS_WAKE_UPS, Profile
from infrastructure.postgres.system.relay_checkpoint import RelayCheckpoint
from infrastructure.postgres.wake_ups import APPENDED, PROJECTED, PUBLISHED, WakeUpLimits, WakeUps
from infrastructure.relay.checkpoint_store import PostgresCheckpointStore
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import DataKeys, RootKey
from tests.rigs.waiting import wait_until

pytestmark = pytest.mark.anyio

ROOT = RootKey(bytes(32))
ACTOR = Actor(id=system_actor("test"), kind="system")
LAST = "last"
SENDS_ITS_WAKE_UPS = Profile(SENDS_WAKE_UPS).options


@pytest.fixture
def listener(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        for channel in (APPENDED, PUBLISHED, PROJECTED, LAST):
            connection.execute(f"listen {channel}")
        yield connection


@pytest.fixture
def wakes(app_url):
    one = WakeUps(app_url)
    yield one
    one.close()


def received(listener):
    """All notifications so far."""
    with psycopg.connect(listener.info.dsn, password=listener.info.password, autocommit=True) as other:
        other.execute(f"notify {LAST}")
    found = []
    for notification in listener.notifies(timeout=10):
        if notification.channel == LAST:
            return found
        found.append(notification)
    raise AssertionError("the last notification did not come")


def next_received(listener):
    return next(iter(listener.notifies(timeout=10, stop_after=1)))


def created():
    one, now = uuid4(), datetime.now(UTC)
    return dataset.create(one, name="cells", description=None, by=ACTOR.id, at=now)


def arguments():
    """Of `es.append`, for one command."""
    codec = Codec(DataKeys(ROOT, lambda _: {}), lambda _: ())
    command = Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC))
    return Columns(ClaimDigests(ROOT), [PendingAppend(Append(command=command), [codec.encode(created())], PendingResult())]).arguments()


def append(url, options):
    with psycopg.connect(url, autocommit=True, options=options) as connection:
        register(connection)
        connection.execute(APPEND, arguments())


def advance(url, options):
    with psycopg.connect(url, autocommit=True, options=f"-c search_path=read {options}") as connection:
        (generation,) = connection.execute("select generation from checkpoint").fetchone()
        digest = connection.execute("select hash from es.events where notification_id = 1").fetchone()
        connection.execute("select ops.advance(0, %s, 1, %s, null, null, 0)", (generation, digest[0]))


# ---- who sends them ----------------------------------------------------------------------------------------------------------------
def test_a_command_wakes_whoever_listens_and_its_own_session_sends_nothing(listener, app_url):
    log = RecorderEventStore(PostgresRecorder(app_url, ROOT), ROOT)
    log.append(Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC)), created())
    writer = log.recorder._writer._connection.info.backend_pid
    notification = next_received(listener)
    assert (notification.channel, notification.pid == writer) == (APPENDED, False)
    log.close()


def test_sessions_that_wake_by_themselves_notify_in_no_transaction(listener, app_url):
    append(app_url, SENDS_ITS_WAKE_UPS)
    advance(app_url, SENDS_ITS_WAKE_UPS)
    assert received(listener) == []


def test_for_a_session_of_an_earlier_release_the_database_notifies(listener, app_url):
    append(app_url, "")
    advance(app_url, "")
    assert [(one.channel, one.payload) for one in received(listener)] == [(APPENDED, "1"), (PROJECTED, "1")]


async def test_the_relay_tells_that_the_checkpoint_moved_and_notifies_in_no_transaction(listener, app_url):
    told = []
    async with await psycopg.AsyncConnection.connect(app_url, autocommit=True) as connection:
        published = PostgresCheckpointStore(connection, on_advanced=lambda: told.append("moved"))
        epoch, place = await published.take_over()
        assert await published.advance(epoch, place, RelayCheckpoint(0, "one", 1))
        assert told == ["moved"]
        assert not await published.advance(epoch, place, RelayCheckpoint(0, "two", 1))
        assert told == ["moved"]
    assert received(listener) == []


# ---- how they are sent -------------------------------------------------------------------------------------------------------------
def test_wake_ups_that_come_together_are_sent_together(listener, app_url):
    wakes = WakeUps(app_url, WakeUpLimits(interval_seconds=0.5))
    wakes.send(PROJECTED, "0")
    assert next_received(listener).payload == "0"
    for position in range(1, 100):
        wakes.send(PROJECTED, str(position))
        wakes.send(PUBLISHED)
    wakes.close()
    found = received(listener)
    assert {one.channel: one.payload for one in found} == {PROJECTED: "99", PUBLISHED: ""}, "the last ones"
    assert len(found) < 20


def test_a_session_that_the_server_ended_is_made_again(listener, wakes, owner_url):
    wakes.send(APPENDED)
    ended = next_received(listener).pid
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("select pg_terminate_backend(%s, 5000)", (ended,))
    wakes.send(APPENDED)
    assert next_received(listener).pid != ended


def test_a_session_that_sends_nothing_for_long_is_closed(listener, app_url, owner_url):
    wakes = WakeUps(app_url, WakeUpLimits(idle_seconds=0.05))
    wakes.send(APPENDED)
    sender = next_received(listener).pid
    with psycopg.connect(owner_url, autocommit=True) as owner:
        wait_until(lambda: owner.execute("select from pg_stat_activity where pid = %s", (sender,)).fetchone() is None)
    wakes.send(APPENDED)
    assert next_received(listener).pid != sender


def test_a_database_that_is_away_is_no_error_for_whoever_sends():
    away = WakeUps("postgresql://nobody@127.0.0.1:1/none")
    away.send(APPENDED)
    away.close()
    assert not away._thread.is_alive()


def test_who_sends_nothing_has_neither_session_nor_thread(app_url):
    wakes = WakeUps(app_url)
    wakes.close()
    assert wakes._thread is None
