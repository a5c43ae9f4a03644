"""The heartbeats of a worker, which show that it is alive and renew its leases."""

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from threading import Lock
from uuid import UUID

import psycopg

from infrastructure.postgres.profiles import WORKER
from infrastructure.postgres.system import workers


class Heartbeats:
    """Sends heartbeats until they are withdrawn. Calls block. They raise psycopg.Error; the next call reconnects.

    Calls may come from several threads, because the thread of a cancelled task goes on: what it sends after `withdraw` is not sent.
    `lanes`: name and number of slots of each lane, by the id that the scheduler sees.
    """

    def __init__(self, url: str, lanes: Mapping[str, tuple[str, int]]) -> None:
        self._url, self._lanes = url, lanes
        self._connection: psycopg.Connection | None = None
        self._lock = Lock()
        self._withdrawn = False

    def send(self, leased_work: Sequence[UUID]) -> Mapping[UUID, int]:
        """Send a heartbeat that renews the leases of `leased_work`; return the numbers of versions in production by model."""
        with self._lock:
            return {} if self._withdrawn else workers.record_heartbeat(self._connected(), self._lanes, leased_work)

    def read_models_are_current(self) -> bool:
        """Whether the read models show the whole log, so that a model missing in them does not exist."""
        with self._lock:
            return not self._withdrawn and workers.are_read_models_caught_up(self._connected())

    def withdraw(self) -> None:
        """Delete the worker's rows, so that no work is dispatched to it."""
        with self._lock:
            self._withdrawn = True
            with suppress(psycopg.Error), closing(self._connected()) as connection:
                workers.remove(connection, list(self._lanes))

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = WORKER.connect(self._url)
        return self._connection
