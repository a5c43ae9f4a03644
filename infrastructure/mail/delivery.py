"""Sends the mails of the log, one after the other, each at least once."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from application.mail.mail import Mail, MailDeferred, MailRefused, MailServerUnavailable, MailTransport
from application.mail.mails import MailWriter
from application.ports import EventStore, RecordedEvent
from infrastructure.eventstore.codec import Undecodable
from infrastructure.mail.records import DeferredMail, MailRecords

log = structlog.get_logger()

EVENTS_PER_BATCH: Final = 100
POSITIONS_PER_QUERY: Final = 10_000  # so that each query is short, however long the log is
POSITIONS_PER_CHECKPOINT: Final = 1000  # without mails, after which the checkpoint moves
MINUTE: Final = timedelta(minutes=1)
DEFERRALS: Final = tuple(minutes * MINUTE for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480))
"""The times between the attempts to send a deferred mail. After the last one, it counts as refused."""
OUTDATED: Final = "its link no longer worked when the server accepted mails for this address"
UNREADABLE: Final = "the event cannot be read"


class MailDelivery:
    """The delivery of all mails after the checkpoint. Create a new one after each change of the lead.

    A mail is sent before the checkpoint moves, so a crash between the two repeats it, with the same Message-ID. `count` is called with the
    outcome of each mail: sent, deferred or refused. Calls block, and raise psycopg.Error, Unavailable, UpgradeNeeded.
    """

    def __init__(
        self,
        *,
        events: EventStore,
        writer: MailWriter,
        transport: MailTransport,
        records: MailRecords,
        count: Callable[[str], object] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._events, self._writer, self._transport, self._records = events, writer, transport, records
        self._count, self._clock = count, clock
        self._sent: set[str] = set()  # of the event in progress
        self._stored = records.position()
        if self._stored > (head := records.head()):
            log.warning("the mail checkpoint is beyond the log; mails continue with new events", checkpoint=self._stored, head=head)
            self._move(head)
        self._position = self._stored
        self._has_problem = True  # perhaps: another process may have reported one

    def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Send all mails that are due, or fewer once `stopped`. Raises MailServerUnavailable after recording the reason."""
        try:
            self._send_new(stopped)
            self._send_deferred(stopped)
        except MailServerUnavailable as problem:
            self._records.report(str(problem))
            self._has_problem = True
            raise
        if self._has_problem:
            self._records.advance(self._stored)
            self._has_problem = False

    def seconds_until_due(self) -> float | None:
        """The time until the next attempt to send a deferred mail; None if there is none."""
        moment = self._records.next_attempt_at()
        return None if moment is None else max(0.0, (moment - self._clock()).total_seconds())

    def _send_new(self, stopped: Callable[[], bool]) -> None:
        head = self._records.head()
        while self._position < head and not stopped():
            until = min(head, self._position + POSITIONS_PER_QUERY)
            events = self._records.events(self._position, until, EVENTS_PER_BATCH)
            for event in events:
                if stopped():
                    return
                recorded = self._records.recorded(event.position)
                for mail in self._mails(event):
                    if mail.number not in recorded:
                        self._send(mail, event.position)
                self._move(event.position)
            if len(events) < EVENTS_PER_BATCH:
                self._skip(until)

    def _skip(self, position: int) -> None:
        """No event up to `position` causes a mail. The checkpoint moves less often than that."""
        self._position = position
        if self._position - self._stored >= POSITIONS_PER_CHECKPOINT:
            self._move(position)

    def _send_deferred(self, stopped: Callable[[], bool]) -> None:
        for one in self._records.deferred(self._clock(), EVENTS_PER_BATCH):
            if stopped():
                return
            (event,) = self._events.at([one.position])
            mail = next((mail for mail in self._mails(event) if mail.number == one.number), None)
            if mail is None:
                self._refuse(one.position, one.number, OUTDATED)
            elif self._send(mail, event.position, deferred=one):
                self._records.forget(one.position, one.number)
            self._sent.clear()

    def _mails(self, event: RecordedEvent) -> Sequence[Mail]:
        try:
            return self._writer.mails(event, at=self._clock())
        except Undecodable:
            self._refuse(event.position, 0, UNREADABLE)
            return ()

    def _send(self, mail: Mail, position: int, deferred: DeferredMail | None = None) -> bool:
        """Whether the mail was sent, now or before a later mail of the same event failed. Raises MailServerUnavailable."""
        if mail.id in self._sent:
            return True
        try:
            self._transport.send(mail)
        except MailRefused as refused:
            self._refuse(position, mail.number, str(refused))
            return False
        except MailDeferred as reason:
            self._defer(position, mail.number, str(reason), attempts=deferred.attempts if deferred else 0)
            return False
        self._sent.add(mail.id)
        self._count("sent")
        log.info("a mail was sent", mail=mail.id, to=str(self._transport))
        return True

    def _refuse(self, position: int, number: int, reason: str) -> None:
        log.warning("a mail was not sent", position=position, reason=reason)
        self._records.fail(position, number, reason, at=self._clock(), next_attempt_at=None)
        self._count("refused")

    def _defer(self, position: int, number: int, reason: str, *, attempts: int) -> None:
        if attempts >= len(DEFERRALS):
            self._refuse(position, number, reason)
            return
        now = self._clock()
        self._records.fail(position, number, reason, at=now, next_attempt_at=now + DEFERRALS[attempts])
        self._count("deferred")

    def _move(self, position: int) -> None:
        self._records.advance(position)
        self._sent.clear()
        self._position = self._stored = position
