"""Inference workers in Postgres: their heartbeats, and the leases that these renew."""

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

SEEN: Final = """insert into ops.workers (id, seen_at, slots, lane) values (%s, now(), %s, %s)
  on conflict (id) do update set seen_at = excluded.seen_at, slots = excluded.slots"""
RENEW: Final = "update ops.releases set held_at = clock_timestamp() where id = any(%s)"
PRODUCTION_MODELS: Final = "select id, version from read.models where not retired"
REMOVE: Final = "delete from ops.workers where id = any(%s)"
CAUGHT_UP: Final = "select c.position >= h.position from es.head h, read.checkpoint c where c.projection = 'main'"


def record_heartbeat(connection: Connection[Any], lanes: Mapping[str, tuple[str, int]], work: Collection[UUID]) -> dict[UUID, int]:
    """Record that the `lanes` (id: name, slots) live, and renew the leases of `work`; the models in use, each with its version.

    Raises psycopg.Error.
    """
    with connection.pipeline():
        for lane, (name, slots) in lanes.items():
            connection.execute(SEEN, (lane, slots, name))
        if work:
            connection.execute(RENEW, (list(work),))
        return dict(connection.execute(PRODUCTION_MODELS).fetchall())


def remove(connection: Connection[Any], lanes: Collection[str]) -> None:
    """Raises psycopg.Error."""
    connection.execute(REMOVE, (list(lanes),))


def are_read_models_caught_up(connection: Connection[Any]) -> bool:
    """Whether the read models show the whole log, so that a model they lack does not exist. Raises psycopg.Error."""
    row = connection.execute(CAUGHT_UP).fetchone()
    return row is not None and bool(row[0])
