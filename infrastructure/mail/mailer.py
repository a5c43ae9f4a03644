"""The background work of an API process that sends mails. One process at a time does so: an advisory lock decides which."""

import os
import random
import select
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Final, NamedTuple

import psycopg
import structlog
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from application.mail.mail import MailServerUnavailable
from domain.errors import Unavailable
from infrastructure.mail.delivery import MailDelivery
from infrastructure.postgres.advisory_locks import AdvisoryLock, try_lock
from infrastructure.postgres.profiles import MAILER
from infrastructure.postgres.wake_ups import APPENDED

log = structlog.get_logger()

MOST_EXPONENT: Final = 16


class MailerLimits(NamedTuple):
    """The pauses of the mailer, in seconds.

    `poll`: between two looks at the log, in case a wake-up was lost; also between two attempts to take the lead, and to reconnect.
    `gather`: after a wake-up, so that a busy log is not read after each event. `first_pause` and `longest_pause`: between attempts while
    the server is unavailable; each is twice as long as the one before. `stop`: the longest wait for a mail in progress at the end.
    """

    poll: float = 5.0
    gather: float = 0.2
    first_pause: float = 1.0
    longest_pause: float = 300.0
    stop: float = 2.0


DEFAULT_LIMITS: Final = MailerLimits()


class Mailer:
    """Sends mails in a thread. `delivery` makes the delivery over the connection that holds the lead."""

    def __init__(self, url: str, delivery: Callable[[Connection[Any]], MailDelivery], *, limits: MailerLimits = DEFAULT_LIMITS) -> None:
        self._url, self._delivery, self._limits = url, delivery, limits
        self._stopped = Event()
        self._wake_reader = self._wake_writer = -1
        self._thread = Thread(target=self._run, name="mailer", daemon=True)
        self._failures = 0

    def start(self) -> None:
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread.start()

    def stop(self) -> None:
        """Stop soon. A mail in progress is finished, unless that takes longer than the limit; then another process repeats it."""
        self._stopped.set()
        os.write(self._wake_writer, b"x")
        self._thread.join(self._limits.stop)
        if not self._thread.is_alive():
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with MAILER.connect(self._url) as connection:
                    self._work(connection)
            except (psycopg.Error, Unavailable) as error:
                if not self._stopped.is_set():
                    log.warning("no mails are sent for now", error=type(error).__name__)
            except Exception:  # the thread must survive every failure: a later attempt may succeed
                log.exception("no mails are sent")
            self._stopped.wait(self._limits.poll)

    def _work(self, connection: Connection[Any]) -> None:
        """Take the lead, and send mails until the end."""
        while not try_lock(connection, AdvisoryLock.MAIL):
            if self._stopped.wait(self._limits.poll):
                return
        connection.execute(SQL("listen {}").format(Identifier(APPENDED)))
        delivery = self._delivery(connection)
        while not self._stopped.is_set():
            try:
                delivery.run(self._stopped.is_set)
            except MailServerUnavailable as problem:
                self._pause(connection, str(problem))
            else:
                self._failures = 0
                self._wait_for_events(connection, delivery.seconds_until_due())

    def _pause(self, connection: Connection[Any], problem: str) -> None:
        """Wait longer after each failure. The session is used meanwhile, so that the server does not end it, and its lock with it."""
        longest = self._limits.first_pause * 2 ** min(self._failures, MOST_EXPONENT)
        seconds = min(longest, self._limits.longest_pause) * random.uniform(0.8, 1.0)  # noqa: S311 - jitter
        self._failures += 1
        log.warning("mails wait", reason=problem, seconds=round(seconds, 1))
        while seconds > 0 and not self._stopped.wait(min(seconds, self._limits.poll)):
            seconds -= self._limits.poll
            connection.execute("select 1")

    def _wait_for_events(self, connection: Connection[Any], due: float | None) -> None:
        """Wait for a wake-up, for a deferred mail to be due, or for the end."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        poll.register(connection.fileno(), select.POLLIN)
        seconds = self._limits.poll if due is None else min(due, self._limits.poll)
        if _is_notified(connection) or poll.poll(1000 * seconds):
            self._stopped.wait(self._limits.gather)
        _is_notified(connection)


def _is_notified(connection: Connection[Any]) -> bool:
    """Whether wake-ups have arrived; they are removed."""
    return bool(list(connection.notifies(timeout=0)))
