"""Connections to a database that does not answer any more: noticed, closed and replaced."""

import asyncio
import contextlib
import random
import time
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest

from application import datasets
from application.ports import Command
from domain.access import Actor, Role
from domain.errors import Unavailable
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.connections import (
    LivenessLimits,
    MonitoredAsyncConnection,
    MonitoredConnection,
    ServerUnresponsive,
    notifications,
)
from infrastructure.postgres.query_database import PostgresQueryDatabase
from infrastructure.security.keys import RootKey
from tests.chaos.proxy import Link
from tests.given import NOW
from tests.rigs.waiting import wait_until, wait_until_async

ROOT = RootKey(bytes(32))
IMPATIENT = LivenessLimits(answer_seconds=1.5, listen_seconds=0.3)
ALWAYS_PROBED = LivenessLimits(idle_seconds=0.0, probe_seconds=1.0, answer_seconds=60.0)


@pytest.fixture
def link(postgres):
    link = Link("postgres", str(postgres.socket), chance=random.Random(1))
    yield link
    link.close()


@pytest.fixture
def url(link, postgres, database):
    return f"postgresql://bioscope_app:{postgres.password('bioscope_app')}@{link.address}/{database}?sslmode=disable"


@contextmanager
def mute_for_ever(link):
    """What was open says nothing any more, even afterwards; new connections are well again then."""
    link.spoil("half-open")
    yield
    link.mend()


def test_a_query_on_a_line_that_went_dead_ends(link, url):
    connection = MonitoredConnection.connect(url, autocommit=True, liveness=IMPATIENT)
    with mute_for_ever(link):
        pass
    with pytest.raises(ServerUnresponsive):
        connection.execute("select 1")
    assert connection.closed
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")


@pytest.mark.parametrize("asks", [lambda c: c.execute("select 1"), lambda c: c.pipeline().__enter__()])
def test_an_idle_connection_is_probed_first(link, url, asks):
    connection = MonitoredConnection.connect(url, autocommit=True, liveness=ALWAYS_PROBED)
    assert connection.execute("select 1").fetchone() == (1,)
    assert connection.execute("select 2").fetchone() == (2,)
    with mute_for_ever(link):
        pass
    began = time.monotonic()
    with pytest.raises(ServerUnresponsive):
        asks(connection)
    assert time.monotonic() - began < ALWAYS_PROBED.answer_seconds / 2, "the probe noticed it, not the statement"
    assert connection.closed


def test_an_idle_asynchronous_connection_is_probed_first(link, url):

    async def asks():
        connection = await MonitoredAsyncConnection.connect(url, autocommit=True, liveness=ALWAYS_PROBED)
        assert await (await connection.execute("select 1")).fetchone() == (1,)
        assert await (await connection.execute("select 2")).fetchone() == (2,)
        with mute_for_ever(link):
            pass
        began = time.monotonic()
        with pytest.raises(ServerUnresponsive):
            await connection.execute("select 3")
        assert time.monotonic() - began < ALWAYS_PROBED.answer_seconds / 2, "the probe noticed it, not the statement"
        assert connection.closed

    asyncio.run(asks())


def test_a_listening_connection_notices_too_and_stays_open_while_nothing_happens(link, url):
    async def listens():
        async with (
            await MonitoredAsyncConnection.connect(url, autocommit=True, liveness=IMPATIENT) as listening,
            await MonitoredAsyncConnection.connect(url, autocommit=True, liveness=IMPATIENT) as other,
        ):
            await listening.execute("listen something")
            heard = notifications(listening)
            next_heard, began = asyncio.create_task(anext(heard)), listening.answered_at
            await wait_until_async(lambda: listening.answered_at > began + IMPATIENT.answer_seconds)
            assert not next_heard.done(), "probes are answered, and are no notifications"
            await other.execute("notify something")
            first = await asyncio.wait_for(next_heard, 5)
            link.spoil("half-open")
            with pytest.raises(ServerUnresponsive):
                await asyncio.wait_for(anext(heard), 10)
            return first.channel

    assert asyncio.run(listens()) == "something"


def test_commands_go_on_after_their_connections_fell_silent(link, url):
    log = RecorderEventStore(PostgresRecorder(url, ROOT, liveness=IMPATIENT), ROOT)
    try:
        made(log)
        with mute_for_ever(link), pytest.raises(Unavailable):
            made(log)
        wait_until(lambda: made(log), ignoring=[Unavailable])
        assert log.head() >= 2, "a command whose answer came too late was repeated"
    finally:
        log.close()


AWAY_SECONDS = 9.0  # after which the delays of a pool without limit would be as long


@pytest.mark.long
def test_once_the_database_is_back_nobody_waits_for_as_long_as_it_was_away(link, url):
    async def asks():
        reads, log = PostgresQueryDatabase(url), RecorderEventStore(PostgresRecorder(url, ROOT), ROOT)
        await reads.open()

        async def ask():
            return await asyncio.gather(reads.rows("select 1 as number", {}, into=dict), asyncio.to_thread(log.head))

        try:
            await ask()
            link.spoil("reset")
            until = time.monotonic() + AWAY_SECONDS
            while time.monotonic() < until:
                with pytest.raises(Unavailable):
                    await ask()
            link.mend()
            async with asyncio.timeout(AWAY_SECONDS / 2):
                while True:
                    with contextlib.suppress(Unavailable):
                        return await ask()
        finally:
            log.close()
            await reads.close()

    assert asyncio.run(asks()) == [[{"number": 1}], 0]


def made(log):
    actor = Actor(id=uuid4(), role=Role.RESEARCHER)
    return datasets.create(name="cells", description=None, command=Command(id=uuid4(), actor=actor, at=NOW), log=log)


def test_queries_go_on_after_their_connections_fell_silent(link, url):
    async def asks():
        reads = PostgresQueryDatabase(url, liveness=IMPATIENT)
        await reads.open()
        try:
            assert await reads.rows("select 1 as number", {}, into=dict) == [{"number": 1}]
            with mute_for_ever(link), pytest.raises(Unavailable):
                await reads.rows("select 1 as number", {}, into=dict)
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(Unavailable):
                        return await reads.rows("select 2 as number", {}, into=dict)
        finally:
            await reads.close()

    assert asyncio.run(asks()) == [{"number": 2}]
