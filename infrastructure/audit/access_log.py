"""The trail of access in Postgres: records are queued, and appended in batches by a thread."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from threading import Event, Lock, Thread
from typing import Final, NamedTuple
from uuid import uuid4

import structlog

from application.history.access_records import Access
from application.limits.access_budget import AccessBudget
from domain.errors import Unavailable
from infrastructure.observability.metrics import ACCESS_RECORDS, LOST_ACCESS_RECORDS
from infrastructure.postgres.statement_pool import StatementPool

log = structlog.get_logger()

MAX_ADDRESS: Final = 64  # characters
MAX_NOUN: Final = 32
MAX_ROUTE: Final = 256
MAX_REQUEST_ID: Final = 64

APPEND: Final = """select ops.append_access(%(writer)s, %(batch)s, %(at)s::timestamptz[], %(kind)s::text[], %(outcome)s::text[],
  %(actor)s::uuid[], %(actor_kind)s::text[], %(key)s::uuid[], %(noun)s::text[], %(object)s::uuid[], %(dataset)s::uuid[],
  %(route)s::text[], %(request)s::text[], %(count)s::integer[], %(address)s::text[], %(person)s::uuid[])"""


class TrailLimits(NamedTuple):
    """At most `queued` records wait; further ones are lost and counted. A batch has at most `batch` records.

    Records are appended every `seconds`, after a failure again after `retry_seconds`. `stop` waits at most `stop_seconds`.
    """

    queued: int = 10_000
    batch: int = 500
    seconds: float = 0.5
    retry_seconds: float = 1.0
    stop_seconds: float = 3.0


DEFAULT_LIMITS: Final = TrailLimits()


class AccessLog:
    """Implements `AccessTrail`. A crash loses the records of the last `seconds`. A batch whose outcome is unknown is appended once."""

    def __init__(
        self,
        url: str,
        *,
        limits: TrailLimits = DEFAULT_LIMITS,
        budget: AccessBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits, self._budget, self._clock = limits, budget or AccessBudget(), clock
        self._pool = StatementPool(url, max_size=1)
        self._lock, self._queue = Lock(), deque[Access]()
        self._writer, self._numbers = uuid4(), count(1)
        self._batch: list[Access] = []  # not known to be appended
        self._apart = deque[list[Access]]()  # batches of one, whose common batch was refused
        self._batch_number = 0
        self._stopped, self._is_due = Event(), Event()
        self._stop_by = float("inf")
        self._failed_at: float | None = None
        self._lost = 0
        self._thread = Thread(target=self._run, name="access trail", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Append what is queued, then stop. Waits at most `stop_seconds`."""
        self._stop_by = self._clock() + self._limits.stop_seconds
        self._stopped.set()
        self._is_due.set()
        if self._thread.is_alive():
            self._thread.join(self._limits.stop_seconds)

    def close(self) -> None:
        self._pool.close()

    def record(self, access: Access) -> None:
        with self._lock:
            if self._budget.admits(access, self._clock()):
                self._put(access)

    def failing_seconds(self) -> float | None:
        """For how long no record could be appended; None while that works."""
        failed_at = self._failed_at
        return None if failed_at is None else self._clock() - failed_at

    def _put(self, access: Access) -> None:
        if len(self._queue) >= self._limits.queued:
            self._lose(1)
            return
        self._queue.append(access)
        if len(self._queue) >= self._limits.batch:
            self._is_due.set()

    def _lose(self, records: int) -> None:
        self._lost += records
        LOST_ACCESS_RECORDS.inc(records)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._is_due.wait(self._limits.seconds)
            self._is_due.clear()
            self._append_all()
            if self._failed_at is not None:
                self._stopped.wait(self._limits.retry_seconds)
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            for summary in self._budget.drained():
                self._put(summary)
        self._append_all()

    def _append_all(self) -> None:
        with self._lock:
            for summary in self._budget.summaries(self._clock()):
                self._put(summary)
        while self._take() and self._clock() < self._stop_by:
            try:
                self._append(self._batch)
            except Unavailable:
                self._fail("the database is unavailable")
                return
            except Exception as error:  # a record that cannot be stored must neither stop the trail nor cost it the others
                if len(self._batch) > 1:
                    self._apart.extend([one] for one in self._batch)
                else:
                    self._lose(1)
                    log.exception("an access record was lost", error=type(error).__name__)
            self._batch = []
            self._recover()

    def _take(self) -> bool:
        """The batch to append: the one that failed, or the next records. False if there is none."""
        if not self._batch and self._apart:
            self._batch, self._batch_number = self._apart.popleft(), next(self._numbers)
        elif not self._batch:
            with self._lock:
                self._batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._limits.batch))]
            self._batch_number = next(self._numbers)
        return bool(self._batch)

    def _append(self, batch: Sequence[Access]) -> None:
        self._pool.rows(
            APPEND,
            {
                "writer": self._writer,
                "batch": self._batch_number,
                "at": [one.at for one in batch],
                "kind": [one.kind.value for one in batch],
                "outcome": [one.outcome.value for one in batch],
                "actor": [one.actor_id for one in batch],
                "actor_kind": [one.actor_kind for one in batch],
                "key": [one.key_id for one in batch],
                "noun": [_plain(one.noun, MAX_NOUN) for one in batch],
                "object": [one.object_id for one in batch],
                "dataset": [one.dataset_id for one in batch],
                "route": [_plain(one.route, MAX_ROUTE) for one in batch],
                "request": [_plain(one.request_id, MAX_REQUEST_ID) for one in batch],
                "count": [one.count for one in batch],
                "address": [_plain(one.address, MAX_ADDRESS) for one in batch],
                "person": [one.person for one in batch],
            },
        )
        ACCESS_RECORDS.inc(len(batch))

    def _fail(self, reason: str) -> None:
        if self._failed_at is None:
            self._failed_at = self._clock()
            log.warning("access records are waiting", reason=reason)

    def _recover(self) -> None:
        if self._failed_at is not None:
            self._failed_at = None
            log.info("access records are appended again", lost=self._lost)


def _plain(text: str, maximum: int) -> str:
    """Printable ASCII of at most `maximum` characters; anything else becomes `?`."""
    text = text[:maximum]
    return text if text.isascii() and text.isprintable() else "".join(one if " " <= one <= "~" else "?" for one in text)
