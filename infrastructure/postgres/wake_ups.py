"""Wake-ups: notifications about a commit, sent after it.

They are hints: each may be lost, and every listener also polls (`application.poll_interval`). A transaction that notifies takes a lock of
the whole Postgres server while it commits, so that databases on one server wait for each other's disk. Hence no transaction that writes
notifies: a separate session does, which waits for no disk.
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

APPENDED: Final = "bioscope_appended"  # there is more of the log; the process that appended sends it
PUBLISHED: Final = "bioscope_published"  # Kafka has more of the log; the relay sends it
DISPATCHED: Final = "bioscope_given_out"  # Kafka has tasks; the scheduler sends it
PROJECTED: Final = "bioscope_projected"  # the read models are further; the projector sends it, with the position

NOTIFY: Final = "select pg_notify(channel, payload) from unnest(%s::text[], %s::text[]) as due (channel, payload)"


class WakeUpLimits(NamedTuple):
    """Of several wake-ups for one channel within `interval_seconds` only the last is sent. The connection is closed after
    `idle_seconds` without one. The last one may take `stop_seconds`."""

    interval_seconds: float = 0.005
    idle_seconds: float = 60.0
    stop_seconds: float = 1.0


DEFAULT_LIMITS: Final = WakeUpLimits()


class WakeUps:
    """The wake-ups of one process. `send` may be called from any thread, returns at once, and raises nothing."""

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
        """Send what is queued, then end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(self._limits.stop_seconds)

    def _start_thread(self) -> None:
        """A process that changes nothing has no thread."""
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
        """Wait for something to send, then return all of it; nothing after a while."""
        collected: list[tuple[str, str] | None] = []
        with suppress(Empty):
            collected.append(self._queue.get(timeout=self._limits.idle_seconds))
            while True:
                collected.append(self._queue.get_nowait())
        return collected

    def _notify(self, payloads: Mapping[str, str]) -> None:
        """Once more on a new connection: the server may have ended the old one while nothing was sent."""
        for may_reconnect in (True, False):
            try:
                self._connected().execute(NOTIFY, (list(payloads), list(payloads.values())), prepare=True)
            except psycopg.Error as error:
                self._disconnect()
                if not may_reconnect:
                    log.warning("nobody was woken", channels=sorted(payloads), error=type(error).__name__)
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
