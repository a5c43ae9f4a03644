"""Projection in batches and with one event per transaction, and a rebuild of all read models from the log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import psycopg

from benchmarks.filled_log import fill
from benchmarks.measure import Row, database, measure_alternately
from infrastructure.embedded.postgres.server import Postgres
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.garbage_collection import infrequent_collection
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from projections.engine.batches import TABLES
from projections.engine.checkpoints import Checkpoint
from projections.engine.projector import Projector
from projections.process.composition import projector_over
from projections.rebuild import bulk_schema, rebuilding

IMAGES = 6000
SINGLE = 300  # events
numbers = count(1)


def rows() -> Iterator[Row]:
    with database() as server:
        root = RootKey(bytes(32))
        log = RecorderEventStore(PostgresRecorder(server.app_url, root), root)
        fill(log, images=IMAGES, jobs=4)
        few, all_of_it = 2 * IMAGES, log.head()
        sides = measure_alternately(
            {
                "batches": lambda: replayed(server, log, few, lambda projector: in_batches(projector, log, 500, few))[0],
                "single": lambda: replayed(server, log, SINGLE, lambda projector: in_batches(projector, log, 1, SINGLE))[0],
            },
            rounds=3,
        )
        yield Row(
            name="projection: batches of 500 beside one event a transaction", value=sides["batches"] / sides["single"], unit="x", goal=100
        )
        yield Row(name="projection: events/s", value=sides["batches"], unit="events/s", goal=100 * sides["single"])
        made = measure_alternately({"rows": lambda: rebuilt(server, log, all_of_it)}, rounds=3)
        yield Row(name="rebuild from the store", value=made["rows"], unit="rows/s", goal=40_000)
        log.close()


def replayed(server: Postgres, log: RecorderEventStore, until: int, replay: Callable[[Projector], None]) -> tuple[float, float]:
    """(events per second, rows per second) of a replay into separate read models."""
    with read_models_of_its_own(server) as (owner, schema):
        projector = projector_over(server.owner_url, log, schema=schema)
        began = time.perf_counter()
        with infrequent_collection():  # as in the projector process
            replay(projector)
        seconds = time.perf_counter() - began
        projector.close()
        return until / seconds, rows_in(owner, schema) / seconds


def rebuilt(server: Postgres, log: RecorderEventStore, until: int) -> float:
    """Rows per second of a rebuild, which creates indexes at the end, until the rows are durable."""
    with read_models_of_its_own(server) as (owner, schema):
        began = time.perf_counter()
        left_out = bulk_schema.prepare(owner, schema)
        projector = projector_over(server.owner_url, log, schema=schema, exclusive=True)
        with infrequent_collection():
            rebuilding.replay(projector, log, until)
        projector.close()
        bulk_schema.finish(owner, schema, left_out)
        return rows_in(owner, schema) / (time.perf_counter() - began)


@contextmanager
def read_models_of_its_own(server: Postgres) -> Iterator[tuple[psycopg.Connection, str]]:
    schema = f"bench_{next(numbers)}"
    with psycopg.connect(server.owner_url, autocommit=True) as owner:
        owner.execute("call ops.create_read_models(%s)", (schema,))
        yield owner, schema
        owner.execute(f"drop schema {schema} cascade")  # type: ignore[arg-type]


def rows_in(owner: psycopg.Connection, schema: str) -> int:
    return sum(int(owner.execute(f"select count(*) from {schema}.{table.name}").fetchone()[0]) for table in TABLES)  # type: ignore[index,arg-type]


def in_batches(projector: Projector, log: RecorderEventStore, batch: int, until: int) -> None:
    at, waiting = 0, []
    while at < until:
        waiting = waiting or list(log.read(at, 1000))
        events, waiting = waiting[: min(batch, until - at)], waiting[min(batch, until - at) :]
        at = events[-1].position
        projector.apply(events, Checkpoint(at))
