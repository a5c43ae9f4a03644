"""Wake-ups: notifications that say where to look, sent after the commit that they speak of.

They are hints only: each may be lost, and every listener also looks by itself after some seconds (`look_interval.LONGEST_SECONDS`).
A transaction that notifies takes a lock of the whole Postgres server while it commits, so that databases on one server wait for each
other's disk. So none that writes notifies: a session of its own does, which waits for no disk.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Final

import psycopg
import structlog

from infrastructure.postgres.profiles import WAKE_UPS

log = structlog.get_logger()

APPENDED: Final = "bioscope_appended"  # there is more of the log; the process that appended sends it
PUBLISHED: Final = "bioscope_published"  # Kafka has more of the log; the relay sends it
DISPATCHED: Final = "bioscope_given_out"  # Kafka has tasks; the scheduler sends it
PROJECTED: Final = "bioscope_projected"  # the read models are further; the projector sends it, with the position

MIN_INTERVAL_SECONDS: Final = 0.005  # between two notifications of one process: what happens meanwhile is sent together
CONNECTION_IDLE_SECONDS: Final = 60.0  # that the session is kept without a wake-up
STOP_TIMEOUT_SECONDS: Final = 1.0  # that the last wake-up may take at the end
NOTIFY: Final = "select pg_notify(channel, payload) from unnest(%s::text[], %s::text[]) as due (channel, payload)"


class WakeUps:
    """The wake-ups of one process. `send` may be called from any thread, returns at once, and raises nothing.

    Of several for one channel that come within GAP_SECONDS only the last is sent.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._queue: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._beginning = Lock()
        self._thread: Thread | None = None
        self._connection: psycopg.Connection | None = None

    def send(self, channel: str, payload: str = "") -> None:
        self._queue.put((channel, payload))
        if self._thread is None:
            self._begin()

    def close(self) -> None:
        """Send what was to be sent before, then end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def _begin(self) -> None:
        """A process that changes nothing has no such thread."""
        with self._beginning:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="wakes", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        going = True
        while going:
            gathered = self._gathered()
            going = None not in gathered
            if due := dict(wake for wake in gathered if wake is not None):
                self._notify(due)
            else:
                self._disconnect()
            time.sleep(MIN_INTERVAL_SECONDS)
        self._disconnect()

    def _gathered(self) -> list[tuple[str, str] | None]:
        """All that is to be sent, once there is something; nothing after KEPT_SECONDS."""
        gathered: list[tuple[str, str] | None] = []
        with suppress(Empty):
            gathered.append(self._queue.get(timeout=CONNECTION_IDLE_SECONDS))
            while True:
                gathered.append(self._queue.get_nowait())
        return gathered

    def _notify(self, due: Mapping[str, str]) -> None:
        """Once more on a new connection: the server may have ended the old one while nothing was sent."""
        for connect_again in (True, False):
            try:
                self._connected().execute(NOTIFY, (list(due), list(due.values())), prepare=True)
            except psycopg.Error as error:
                self._disconnect()
                if not connect_again:
                    log.warning("nobody was woken", channels=sorted(due), error=type(error).__name__)
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
