"""The end of heartbeats, while the thread of a cancelled task still sends one."""

from threading import Event, Thread

import psycopg
import pytest

from infrastructure.inference.heartbeats import Heartbeats
from infrastructure.postgres.system import workers

LANES = {"one/bulk": ("bulk", 2)}


@pytest.fixture
def heartbeats(settings):
    return Heartbeats(settings.postgres_url, LANES)


def rows(settings):
    with psycopg.connect(settings.postgres_url) as connection:
        return connection.execute("select id from ops.workers").fetchall()


def test_a_heartbeat_after_the_end_is_not_sent(heartbeats, settings):
    heartbeats.send([])
    assert rows(settings) == [("one/bulk",)]
    heartbeats.withdraw()
    assert heartbeats.send([]) == {}
    assert not heartbeats.read_models_are_current()
    assert rows(settings) == []
    assert heartbeats._connection.closed


def test_a_heartbeat_in_progress_at_the_end_leaves_nothing(heartbeats, settings, monkeypatch):
    recorded, entered, may_go_on = workers.record_heartbeat, Event(), Event()

    def delayed(*arguments):
        entered.set()
        may_go_on.wait(10)
        return recorded(*arguments)

    monkeypatch.setattr(workers, "record_heartbeat", delayed)
    sending, ending = Thread(target=heartbeats.send, args=([],)), Thread(target=heartbeats.withdraw)
    sending.start()
    assert entered.wait(10)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive(), "it waits for the heartbeat"
    may_go_on.set()
    for thread in (sending, ending):
        thread.join(10)
    assert rows(settings) == []
    assert heartbeats._connection.closed
