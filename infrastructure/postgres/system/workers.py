"""Inference workers in Postgres: heartbeats, which renew leases."""

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

SEEN: Final = """insert into ops.workers (id, seen_at, slots, lane) values (%s, now(), %s, %s)
  on conflict (id) do update set seen_at = excluded.seen_at, slots = excluded.slots"""
RENEW: Final = "update ops.releases set held_at = clock_timestamp() where id = any(%s)"
PRODUCTION_MODELS: Final = """select m.id, (one ->> 'number')::integer from read.models m, jsonb_array_elements(m.versions) one
  where not m.retired and one ->> 'number' = m.aliases ->> 'production' and one ->> 'kind' is distinct from 'external'"""
REMOVE: Final = "delete from ops.workers where id = any(%s)"
CAUGHT_UP: Final = "select c.position >= h.position from es.head h, read.checkpoint c where c.projection = 'main'"


def record_heartbeat(connection: Connection[Any], lanes: Mapping[str, tuple[str, int]], work: Collection[UUID]) -> dict[UUID, int]:
    """Record a heartbeat of the `lanes` (name and slots by id), and renew the leases of `work`.

    Returns the number of the version in production by the id of its model; only of models that have one, without external ones. Raises
    psycopg.Error.
    """
    with connection.pipeline():
        for lane, (name, slots) in lanes.items():
            connection.execute(SEEN, (lane, slots, name))
        if work:
            connection.execute(RENEW, (list(work),))
        return dict(connection.execute(PRODUCTION_MODELS).fetchall())


def remove(connection: Connection[Any], lanes: Collection[str]) -> None:
    """Remove the lanes of a stopped worker. Raises psycopg.Error."""
    connection.execute(REMOVE, (list(lanes),))


def are_read_models_caught_up(connection: Connection[Any]) -> bool:
    """Whether the read models show the whole log, so that a model missing in them does not exist. Raises psycopg.Error."""
    row = connection.execute(CAUGHT_UP).fetchone()
    return row is not None and bool(row[0])
