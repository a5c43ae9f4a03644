"""Discards registrations that were not verified in time, in the background."""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Final
from uuid import UUID, uuid4

import psycopg
import structlog

from application.ports import Command, RefreshTokens
from application.registrations import discard_expired
from domain.access import Actor
from domain.errors import DomainError, Unavailable
from domain.registration import LIFETIME
from domain.values import system_actor
from infrastructure.eventstore.event_store import PostgresEventStore

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 300.0
STOP_TIMEOUT_SECONDS: Final = 1.0
REGISTRATIONS_PER_QUERY: Final = 500
EXPIRED: Final = "select id from read.registrations where requested_at <= %s order by requested_at, id limit %s"
SYSTEM: Final = Actor(id=system_actor("registration expiry"), kind="system", name="registration expiry")


class RegistrationExpiry:
    """Looks for expired registrations every `seconds`. Several processes may do so at once."""

    def __init__(
        self,
        event_log: PostgresEventStore,
        tokens: RefreshTokens,
        *,
        seconds: float = INTERVAL_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log, self._tokens, self._seconds, self._clock = event_log, tokens, seconds, clock
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="registration-expiry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop soon. Waits at most `STOP_TIMEOUT_SECONDS` for an append in progress."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def discard(self) -> int:
        """Discard a group of registrations that have expired; how many the read models showed. Blocks. Raises Unavailable."""
        now = self._clock()
        expired: list[UUID] = [found for (found,) in self._log.recorder.rows(EXPIRED, now - LIFETIME, REGISTRATIONS_PER_QUERY)]
        for registration_id in expired:
            if self._stopped.is_set():
                break
            discard_expired(registration_id, command=Command(id=uuid4(), actor=SYSTEM, at=now), log=self._log, tokens=self._tokens)
        return len(expired)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.discard()
            except (Unavailable, psycopg.OperationalError):  # the latter if the event store was closed in the meantime
                log.warning("expired registrations were not discarded: the database is unavailable")
            except DomainError as error:
                log.warning("expired registrations were not discarded", reason=error.code)
            except Exception:  # the thread must survive every failure: a later attempt may succeed
                log.exception("expired registrations were not discarded")
            self._stopped.wait(self._seconds)
