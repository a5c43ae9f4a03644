"""The heartbeats of a worker: they record that it is alive, and renew the leases of the work that it has."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from infrastructure.postgres.connections import MonitoredConnection

CONNECTION_OPTIONS: Final = "-c statement_timeout=5s -c timezone=UTC"

RECORD_HEARTBEAT = """insert into ops.workers (id, seen_at, slots, lane) values (%s, now(), %s, %s)
  on conflict (id) do update set seen_at = excluded.seen_at, slots = excluded.slots"""
DELETE_WORKERS = "delete from ops.workers where id = any(%s)"
RENEW_LEASES = "update ops.releases set held_at = clock_timestamp() where id = any(%s)"


class ReadModelQueries(NamedTuple):
    """What a worker asks of the read models: the production version of each model, and whether they show the whole log."""

    models_in_use: Callable[[psycopg.Connection], Mapping[UUID, int]]
    show_whole_log: Callable[[psycopg.Connection], bool]


class WorkerRow(NamedTuple):
    """A lane of a worker, as the scheduler sees it."""

    id: str
    slots: int
    lane: str


class Heartbeats:
    """Calls block, and belong to one thread at a time. They raise psycopg.Error; the next call connects again."""

    def __init__(self, url: str, rows: Sequence[WorkerRow], read_models: ReadModelQueries) -> None:
        self._url, self._rows, self._read_models = url, rows, read_models
        self._connection: psycopg.Connection | None = None

    def send(self, leased_work: Sequence[UUID]) -> Mapping[UUID, int]:
        """Send one, and return the models in use with their production versions."""
        connection = self._connected()
        with connection.pipeline():
            for row in self._rows:
                connection.execute(RECORD_HEARTBEAT, row)
            if leased_work:
                connection.execute(RENEW_LEASES, (list(leased_work),))
            return self._read_models.models_in_use(connection)

    def read_models_are_current(self) -> bool:
        """Whether the read models show the whole log, so that a model they lack does not exist."""
        return self._read_models.show_whole_log(self._connected())

    def withdraw(self) -> None:
        """Delete the worker's rows, so that no work is dispatched to it."""
        with suppress(psycopg.Error), closing(self._connected()) as connection:
            connection.execute(DELETE_WORKERS, ([row.id for row in self._rows],))

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = MonitoredConnection.connect(self._url, autocommit=True, options=CONNECTION_OPTIONS)
        return self._connection
