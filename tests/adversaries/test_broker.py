"""An attacker with write access to the broker: nothing outside the log is ever shown, and true events still are."""

import os
import random
from contextlib import closing
from uuid import uuid4

import msgspec
import psycopg
import pytest
from aiokafka.errors import KafkaError

from application.history.hash_chain import chained
from application.ports import ChainedEvent
from infrastructure.kafka.cloud_events import RecordKey, headers
from infrastructure.kafka.limits import MAX_RECORD_BYTES
from infrastructure.security.keys import RootKey
from projections.process.rebuilds import rebuild
from tests.adversaries.attackers import TEN_MEGABYTES, Attacker
from tests.adversaries.forging import altered, following_event, forgeries
from tests.kafka.system_processes import SystemProcesses

pytestmark = pytest.mark.long


@pytest.fixture
def processes(settings):
    with closing(SystemProcesses(settings)) as processes:
        processes.start("relay", "projector")
        processes.until_kafka_delivers()
        yield processes


@pytest.fixture
def attacker(processes):
    return Attacker(processes.settings.kafka_url)


def rejected(processes):
    return dict(processes.reads.execute("select label, value from ops.counters where name = 'rejected_records'").fetchall())


def shows_the_log_and_goes_on(processes):
    """What happens next is shown, and the read models are those of the log."""
    made = processes.dataset().id
    processes.until_shown()
    assert processes.row("select not deleted from read.datasets where id = %s", made) == (True,)
    assert processes.shown == processes.log.head()
    assert rebuild(processes.settings, check=True).differing == ()
    return True


def test_a_forged_share_gives_nobody_access_and_hides_no_event(processes, attacker):
    """The share is of the last dataset; everything in its record but the key is right."""
    cells = processes.dataset().id
    processes.until_shown()
    stranger = uuid4()
    record = attacker.records()[-1]
    assert dict(record.headers)["ce_subject"].decode() == str(cells)
    share = {"at": "2026-01-01T00:00:00Z", "by": str(processes.ada.id), "user_id": str(stranger), "grant": "analyst"}
    attacker.send(following_event(record, type="DatasetShared", data=msgspec.json.encode(share), event_id=uuid4()))
    assert shows_the_log_and_goes_on(processes)
    assert processes.row("select count(*) from read.dataset_access where subject = %s", stranger) == (0,)
    processes.until(lambda: rejected(processes).get("forged", 0) == 1)


def test_forged_altered_swapped_replayed_and_foreign_records_and_garbage_are_rejected(processes, attacker):
    for _ in range(4):
        processes.dataset()
    processes.until_shown()
    records = attacker.records()
    last, before = records[-1], records[-2]
    swapped = [(list(last.headers), before.value), (list(before.headers), last.value)]
    replayed = [(list(record.headers), record.value) for record in records]
    attacker.send(*forgeries(last, random.Random(1)), *swapped, *replayed, *reversed(replayed))
    assert shows_the_log_and_goes_on(processes)
    processes.until(lambda: {"forged", "altered", "foreign", "malformed"} <= rejected(processes).keys())


def test_huge_records_hold_nobody_up(processes, attacker):
    """The broker takes none of ten megabytes; the largest one that it takes is rejected."""
    with pytest.raises(KafkaError):
        attacker.send(([], os.urandom(TEN_MEGABYTES)))
    (record,) = attacker.records()[-1:]
    largest = os.urandom(MAX_RECORD_BYTES - 10_000)
    attacker.send((altered(record, ce_position=b"%d" % (processes.log.head() + 1)), largest), ([], largest))
    assert shows_the_log_and_goes_on(processes)
    processes.until(lambda: rejected(processes).get("malformed", 0) >= 1)
    processes.until_kafka_delivers()


def test_a_future_that_the_log_does_not_hold_is_rejected_even_with_the_right_key(processes, attacker):
    """As a relay of an older database would have left it: each record follows the one before it, and carries a valid MAC."""
    key = RecordKey(RootKey.read(processes.settings.root_key_path))
    processes.until_shown()
    (event,) = processes.log.read(processes.log.head() - 1, 1)
    future, streams = [], [uuid4() for _ in range(3)]
    for number, stream in enumerate(streams, 1):
        previous = event.hash
        fields = {"position": event.position + 1, "version": number, "stream": stream, "event_id": uuid4()}
        event = chained(previous, msgspec.structs.replace(event, **fields))
        future.append((headers(ChainedEvent(event, previous), key), event.data))
    attacker.send(*future)
    assert shows_the_log_and_goes_on(processes)
    processes.until(lambda: rejected(processes).keys() & {"not_in_log", "ahead"})
    assert processes.row("select count(*) from read.activity where stream = any(%s)", streams) == (0,)


@pytest.mark.long
def test_after_a_fail_over_to_an_older_database_its_own_future_is_shown(settings, owner_url):
    """The topic still holds what happened after the copy was taken."""
    with closing(SystemProcesses(settings)) as processes:
        processes.start("relay", "projector")
        processes.until_kafka_delivers()
        processes.until_shown()
        processes.stop()
    older = copied(settings, owner_url)

    with closing(SystemProcesses(settings, member=processes.ada)) as processes:
        for _ in range(5):
            processes.dataset()
        processes.start("relay")
        processes.until(lambda: processes.row("select position from ops.relay")[0] == processes.log.head())
        processes.stop()

    with closing(SystemProcesses(older, member=processes.ada)) as again:
        for _ in range(3):
            again.dataset()
        again.start("relay", "projector")
        again.until_shown()
        assert all(shows_the_log_and_goes_on(again) for _ in range(5))
        again.until_kafka_delivers()
        assert again.stop() == [0, 0]


def copied(settings, owner_url):
    """The settings of a copy of the database as it is now."""
    name = psycopg.conninfo.conninfo_to_dict(owner_url)["dbname"]
    with psycopg.connect(settings.postgres_owner_url, dbname="postgres", autocommit=True) as server:
        server.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        server.execute(f"create database {name}_older template {name}")
    return msgspec.structs.replace(
        settings,
        root_key_file=settings.root_key_path,
        data=settings.data / "older",
        postgres_url=settings.postgres_url.replace(name, f"{name}_older"),
        postgres_owner_url=settings.postgres_owner_url.replace(name, f"{name}_older"),
    )
