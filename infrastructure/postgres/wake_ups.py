"""Wake-ups: notifications that are sent after a commit.

They are hints: each may be lost, so every listener also polls (`application.poll_interval`). A transaction that notifies holds a lock of
the whole Postgres server during its commit, so databases on one server would wait for each other's disk. For that reason a separate
session notifies, which does not wait for the disk.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Final, NamedTuple

import psycopg
import structlog

from infrastructure.postgres.profiles import WAKE_UPS

log = structlog.get_logger()

APPENDED: Final = "bioscope_appended"  # the log has new events; sent by the appending process
PUBLISHED: Final = "bioscope_published"  # Kafka has new events; sent by the relay
DISPATCHED: Final = "bioscope_given_out"  # Kafka has new tasks; sent by the scheduler
PROJECTED: Final = "bioscope_projected"  # the read models have advanced; sent by the projector, with the position
ANSWERED: Final = "bioscope_answered"  # a bridge stored answers that another one waits for

NOTIFY: Final = "select pg_notify(channel, payload) from unnest(%s::text[], %s::text[]) as due (channel, payload)"


class WakeUpLimits(NamedTuple):
    """Within `interval_seconds`, only the last wake-up for a channel is sent. The connection is closed after `idle_seconds` without one.

    `close` waits at most `stop_seconds`.
    """

    interval_seconds: float = 0.005
    idle_seconds: float = 60.0
    stop_seconds: float = 1.0


DEFAULT_LIMITS: Final = WakeUpLimits()


class WakeUps:
    """Sends the wake-ups of one process. `send` is thread-safe, returns at once and never raises."""

    def __init__(self, url: str, limits: WakeUpLimits = DEFAULT_LIMITS) -> None:
        self._url, self._limits = url, limits
        self._queue: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._start_lock = Lock()
        self._thread: Thread | None = None
        self._connection: psycopg.Connection | None = None

    def send(self, channel: str, payload: str = "") -> None:
        self._queue.put((channel, payload))
        if self._thread is None:
            self._start_thread()

    def close(self) -> None:
        """Send the queued wake-ups, then stop."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(self._limits.stop_seconds)

    def _start_thread(self) -> None:
        """Start the thread with the first wake-up, so that a reading process has none."""
        with self._start_lock:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="wakes", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        running = True
        while running:
            collected = self._collect()
            running = None not in collected
            if payloads := dict(wake_up for wake_up in collected if wake_up is not None):
                self._notify(payloads)
            else:
                self._disconnect()
            time.sleep(self._limits.interval_seconds)
        self._disconnect()

    def _collect(self) -> list[tuple[str, str] | None]:
        """Wait for wake-ups and return all that are queued; empty after `idle_seconds`."""
        collected: list[tuple[str, str] | None] = []
        with suppress(Empty):
            collected.append(self._queue.get(timeout=self._limits.idle_seconds))
            while True:
                collected.append(self._queue.get_nowait())
        return collected

    def _notify(self, payloads: Mapping[str, str]) -> None:
        """Send; retry once on a new connection, since the server may have ended the idle one."""
        for may_reconnect in (True, False):
            try:
                self._connected().execute(NOTIFY, (list(payloads), list(payloads.values())), prepare=True)
            except psycopg.Error as error:
                self._disconnect()
                if not may_reconnect:
                    log.warning("wake-up not sent", channels=sorted(payloads), error=type(error).__name__)
            else:
                return

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = WAKE_UPS.connect(self._url)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
