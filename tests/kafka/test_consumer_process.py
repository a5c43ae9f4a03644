"""The consumer process: it ends at SIGTERM, and when its reader fails or hangs."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from application.jobs.topics import EVENTS
from infrastructure.embedded.broker import Broker
from infrastructure.embedded.child import Child, python
from infrastructure.kafka.group_timeouts import SESSION_TIMEOUT_SECONDS
from infrastructure.kafka.producer import Sender
from infrastructure.process_lifecycle import READY_FILE
from tests.rigs.waiting import wait_until


@pytest.fixture(params=["faust", "aiokafka"])
def reader(request, broker_url, tmp_path):
    """Starts a reader on one of the two clients; ended with the test."""
    started = []

    def start(behaviour, brokers=broker_url, groups="ungrouped"):
        variables = dict(os.environ) | {"PYTHONPATH": str(Path.cwd()), READY_FILE: str(tmp_path / "ready")}
        argv = python("tests.kafka.readers", request.param, behaviour, brokers, groups)
        started.append(Running(Child(argv, log=tmp_path / "reader.log", environment=variables, folder=Path("/proc"))))
        started[-1].ready = tmp_path / "ready"
        started[-1].log = tmp_path / "reader.log"
        return started[-1]

    yield start
    for running in started:
        running.child.kill()


class Running:
    def __init__(self, child):
        self.child = child

    def until(self, said, *, within=20):
        wait_until(lambda: said in self.log.read_text(), within=within, explain=self.log.read_text)

    def until_ready(self, *, within=20):
        wait_until(self.ready.exists, within=within, explain=self.log.read_text)

    def ended(self, *, within):
        assert self.child.ended(within=within), self.log.read_text()
        return self.child.exit_code


def values(running):
    """The values of the records that it took, in order."""
    lines = [line for line in running.log.read_text().splitlines() if line.startswith("values ")]
    return " ".join(line.removeprefix("values ").rstrip(".") for line in lines).split()


def send(brokers, number=1, value=b"value"):
    async def sent():
        sender = Sender(brokers)
        for _ in range(number):
            await sender(EVENTS, b"key", value)
        await sender.close()

    asyncio.run(sent())


def test_it_is_ready_once_it_has_joined_in_a_working_directory_that_cannot_be_written(reader, broker_url):
    running = reader("well")
    running.until_ready()
    running.until("joined")
    send(broker_url)
    running.until("took")


def test_it_reads_on_where_its_reader_says(reader, broker_url):
    send(broker_url, 4)
    running = reader("skips two")
    running.until("values")
    send(broker_url, 1, value=b"last")
    running.until("last.")
    assert values(running).count("value") == 2


def test_records_come_in_order_and_once(reader, broker_url):
    running = reader("well")
    running.until_ready()
    for number in range(30):
        send(broker_url, value=str(number).encode())
    running.until("29.")
    assert values(running) == [str(number) for number in range(30)]


def test_one_that_is_not_prepared_is_not_ready(reader):
    running = reader("unprepared")
    running.until("joined")
    time.sleep(1)
    assert not running.ready.exists()


def test_it_ends_at_once_at_sigterm(reader, broker_url):
    running = reader("well")
    send(broker_url)
    running.until("took")
    running.child.ask_to_stop()
    assert running.ended(within=5) == 0
    running.until("finished")


def test_it_ends_when_its_reader_fails(reader, broker_url):
    running = reader("raises")
    send(broker_url)
    assert running.ended(within=20) == 1
    assert "a reader that fails" in running.log.read_text()


def test_it_ends_when_what_runs_beside_has_ended(reader):
    assert reader("ends beside").ended(within=20) == 1


def test_the_watchdog_ends_one_that_hangs(reader, broker_url):
    running = reader("hangs")
    send(broker_url)
    running.until("took")
    send(broker_url)
    assert running.ended(within=15) == 1
    assert "no progress" in running.log.read_text()


@pytest.mark.long
def test_the_watchdog_leaves_one_alone_that_waits_for_something_else(reader, broker_url):
    running = reader("waits")
    send(broker_url)
    running.until("took")
    assert not running.child.ended(within=10)


@pytest.mark.long
def test_one_with_nothing_to_do_is_left_alone(reader, broker_url):
    running = reader("is idle")
    running.until("joined")
    assert not running.child.ended(within=10)
    send(broker_url, 3)
    running.until("took")


def test_it_waits_for_a_broker_that_is_away(reader, tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("gone")) as broker:
        url = broker.url
    running = reader("well", url)
    running.until("waiting for Kafka")
    running.until_ready()
    assert not running.child.ended(within=6)
    running.child.ask_to_stop()
    assert running.ended(within=5) == 0


@pytest.mark.long
def test_on_apache_kafka_it_joins_a_group_and_reads_and_leaves_it_at_once(reader, kafka_url):
    """The next member need not wait for the session to time out."""
    first = reader("well", kafka_url, "grouped")
    first.until_ready(within=40)
    send(kafka_url, value=b"first")
    first.until("first.")
    first.child.ask_to_stop()
    assert first.ended(within=5) == 0
    began = time.monotonic()
    second = reader("well", kafka_url, "grouped")
    second.until("first.", within=40)
    assert time.monotonic() - began < SESSION_TIMEOUT_SECONDS
