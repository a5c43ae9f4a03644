"""Appends of concurrent commands, compared with the recorder of the library, a serial INSERT, and INSERTs in a pipeline."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from application.ports import Command
from benchmarks.measure import Row, database, in_threads, measure_alternately, rate
from domain.access import Actor
from domain.classification import ClassificationRequested
from domain.values import system_actor
from infrastructure.embedded.postgres.server import Postgres
from infrastructure.eventstore.codec import Codec
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import DataKeys, RootKey

ACTOR = Actor(id=system_actor("benchmark"), kind="system")
WRITERS = (1, 16, 64, 256)
PLAIN = """create table if not exists public.plain (position bigserial primary key, stream uuid not null, version int not null,
  topic text not null, state bytea not null, at timestamptz not null default now(), unique (stream, version))"""
INSERT = "insert into public.plain (stream, version, topic, state) values (%s, 1, 'ClassificationRequested', %s)"
PIPELINED = 64  # per round trip and transaction


def event() -> ClassificationRequested:
    job = uuid4()
    return ClassificationRequested(
        originator_id=job,
        originator_version=1,
        at=datetime.now(UTC),
        by=ACTOR.id,
        dataset_id=job,
        image_id=None,
        model_id=job,
        model_name="pbc8",
        model_version=1,
        model_sha256="0" * 64,
        threshold=0.5,
    )


STATE = Codec(DataKeys(RootKey(bytes(32)), lambda _: {}), lambda _: ()).encode(event()).data


def rows() -> Iterator[Row]:
    with database() as server:
        log = RecorderEventStore(PostgresRecorder(server.app_url, RootKey(bytes(32))), RootKey(bytes(32)))
        sides = measure_alternately(
            {f"ours {writers}": lambda writers=writers: ours(log, writers) for writers in WRITERS}  # type: ignore[misc]
            | {
                "library": lambda: library(server, 64),
                "serial": lambda: serial(server, 300),
                "pipelined": lambda: pipelined(server, 3000),
            }
        )
        log.close()
    for writers in (1, 16, 256):
        beside = sides[f"ours {writers}"] / sides["serial"]
        yield Row(name=f"append, {writers} writers, beside a serial INSERT", value=beside, unit="x", goal=0.8)
    yield Row(name="append, 64 writers, beside the library", value=sides["ours 64"] / sides["library"], unit="x", goal=15)
    minimum = min(15.0, 0.5 * sides["pipelined"] / sides["serial"])
    yield Row(
        name="append, 64 writers, beside a serial INSERT",
        value=sides["ours 64"] / sides["serial"],
        unit="x",
        goal=minimum,
        limit=sides["pipelined"] / sides["serial"],
    )
    yield Row(
        name="append, 64 writers", value=sides["ours 64"], unit="commands/s", goal=minimum * sides["serial"], limit=sides["pipelined"]
    )


def ours(log: RecorderEventStore, writers: int) -> float:
    each = max(6, 3000 // writers) if writers > 1 else 300
    commands = [[(Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC)), event()) for _ in range(each)] for _ in range(writers)]

    def write(number: int) -> None:
        for command, appended in commands[number]:
            log.append(command, appended)

    return rate(each * writers, lambda: in_threads(writers, write))


def library(server: Postgres, writers: int) -> float:
    """The library's recorder with its own table and pool. Serialisation is not measured."""
    where = psycopg.conninfo.conninfo_to_dict(server.owner_url)
    each = 6
    store = PostgresDatastore(
        dbname=str(where["dbname"]), host=str(where["host"]), port=str(where.get("port", "5432")),
        user=str(where["user"]), password=str(where["password"]),
        pool_size=10, max_overflow=writers,
    )  # fmt: skip
    recorder = PostgresApplicationRecorder(store, events_table_name="library_events")
    recorder.create_table()

    def write(_: int) -> None:
        for _ in range(each):
            recorder.insert_events([StoredEvent(uuid4(), 1, "ClassificationRequested", STATE)])

    try:
        return rate(each * writers, lambda: in_threads(writers, write))
    finally:
        store.close()


def serial(server: Postgres, many: int) -> float:
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute(PLAIN)
        return rate(many, lambda: [connection.execute(INSERT, (uuid4(), STATE), prepare=True) for _ in range(many)])


def pipelined(server: Postgres, many: int) -> float:
    """PIPELINED INSERTs per transaction, sent without waiting for answers."""
    numbers = count()

    def write() -> None:
        while next(numbers) < many // PIPELINED:
            with connection.transaction(), connection.pipeline():
                for _ in range(PIPELINED):
                    connection.execute(INSERT, (uuid4(), STATE), prepare=True)

    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute(PLAIN)
        return rate(many // PIPELINED * PIPELINED, write)
