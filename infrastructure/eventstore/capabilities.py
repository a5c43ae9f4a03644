"""Declares which events this process understands while it runs, and why it is paused."""

import os
import socket
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Final
from uuid import uuid4

import structlog

from domain.errors import Unavailable, UpgradeNeeded
from domain.registry import EVENTS, is_known
from domain.values import printable
from infrastructure.eventstore.event_store import PostgresEventStore
from infrastructure.postgres.schema import this_release

log = structlog.get_logger()

DECLARE_INTERVAL_SECONDS: Final = 10.0  # a process counts as running for 30 s after its last declaration (migration 0017)
MIN_DECLARE_INTERVAL_SECONDS: Final = 1.0  # between two declarations
PAUSE_SHOWN_SECONDS: Final = 60.0  # after the reason was last reported
STOP_TIMEOUT_SECONDS: Final = 2.5  # for a declaration in progress

DECLARE: Final = "select ops.declare_capabilities(%s, %s, %s, %s, %s, %s, %s)"
WRITTEN: Final = "select topic, schema_version from ops.written_types order by 1, 2"
WITHDRAW: Final = "select ops.withdraw_capabilities(%s)"

Rows = Callable[..., list[tuple[Any, ...]]]
"""Runs a query with its arguments. Raises Unavailable."""


def capabilities_of(events: PostgresEventStore, kind: str) -> "Capabilities":
    """The declaration of this process, a `kind` such as `api`. An event of a newer release in `events` is reported as a pause."""
    capabilities = Capabilities(events.recorder.rows, kind)
    events.pausing = capabilities.pausing
    return capabilities


def require_understood(events: PostgresEventStore) -> None:
    """Raises UpgradeNeeded if events may exist that this release does not understand, since they may refer to stored files."""
    for type_name, schema_version in events.recorder.rows(WRITTEN):
        if not is_known(type_name, schema_version):
            raise UpgradeNeeded("the log", type_name, schema_version)


class Capabilities:
    """Declares the known event types from `start` to `stop`, on its own thread. An unavailable database only delays it."""

    def __init__(self, rows: Rows, kind: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows, self._kind, self._clock = rows, kind, clock
        self._id, self._process = uuid4(), f"{printable(socket.gethostname())}:{os.getpid()}"
        self._reason, self._reason_at = "", 0.0
        self._changed, self._is_stopping = Event(), False
        self._thread = Thread(target=self._run, name="capabilities", daemon=True)

    def start(self) -> None:
        """Start declaring. The first attempt is made before this returns."""
        self._declare()
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def pausing(self, reason: object) -> None:
        """Report that work of this process waits for its upgrade. Thread-safe. To be repeated as long as that is so."""
        is_new = str(reason) != self.paused
        self._reason, self._reason_at = str(reason), self._clock()
        if is_new:
            log.warning("paused until this process is upgraded", reason=self._reason)
            self._changed.set()

    @property
    def paused(self) -> str:
        """The reason of the pause, or an empty text."""
        return self._reason if self._clock() - self._reason_at < PAUSE_SHOWN_SECONDS else ""

    def _run(self) -> None:
        while not self._is_stopping:
            self._changed.wait(DECLARE_INTERVAL_SECONDS)
            self._changed.clear()
            if not self._is_stopping:
                time.sleep(MIN_DECLARE_INTERVAL_SECONDS)
                self._declare()
        self._run_query(WITHDRAW, self._id)

    def _declare(self) -> None:
        versions = [kind.schema_version for kind in EVENTS.values()]
        self._run_query(DECLARE, self._id, self._kind, self._process, this_release(), list(EVENTS), versions, self.paused)

    def _run_query(self, query: str, *arguments: object) -> None:
        try:
            self._rows(query, *arguments)
        except Unavailable as error:
            log.info("capabilities not declared", reason=error.detail)
