"""How far mails were sent: the checkpoint and the failures, in Postgres."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from psycopg import Connection

from application.mail.mails import MAILED
from application.ports import RecordedEvent
from domain.registry import EVENTS
from infrastructure.eventstore.recorder import EVENT_COLUMNS, recorded_from

FAILURES_KEPT: Final = "90 days"

HEAD: Final = "select position from es.head"
CHECKPOINT: Final = "select position from ops.mail_checkpoint"
ADVANCE: Final = "update ops.mail_checkpoint set position = %s, problem = '', problem_since = null"
REPORT: Final = "update ops.mail_checkpoint set problem = %s, problem_since = coalesce(problem_since, now())"
AFTER: Final = f"""select {EVENT_COLUMNS} from es.events
  where notification_id > %s and notification_id <= %s and (topic = any(%s) or topic <> all(%s))
  order by notification_id limit %s"""  # noqa: S608 - constants
FAIL: Final = """insert into ops.mail_failures as f (position, number, reason, attempts, failed_at, next_attempt_at)
  values (%s, %s, %s, 1, %s, %s) on conflict (position, number) do update
  set reason = excluded.reason, attempts = f.attempts + 1, failed_at = excluded.failed_at, next_attempt_at = excluded.next_attempt_at"""
FORGET: Final = "delete from ops.mail_failures where position = %s and number = %s"
PRUNE: Final = f"delete from ops.mail_failures where next_attempt_at is null and failed_at < now() - interval '{FAILURES_KEPT}'"  # noqa: S608
DEFERRED: Final = """select position, number, attempts from ops.mail_failures
  where next_attempt_at <= %s order by next_attempt_at limit %s"""
RECORDED: Final = "select number from ops.mail_failures where position = %s"
NEXT: Final = "select min(next_attempt_at) from ops.mail_failures"
STATUS: Final = """select c.position, h.position as head, c.problem, c.problem_since,
    (select count(*) from ops.mail_failures f where f.next_attempt_at is not null) as deferred,
    (select count(*) from ops.mail_failures f where f.next_attempt_at is null) as refused
  from ops.mail_checkpoint c, es.head h"""
FAILURES: Final = """select position, reason, attempts, failed_at, next_attempt_at from ops.mail_failures
  order by failed_at desc, position desc, number limit %s"""


class DeferredMail(NamedTuple):
    """A mail that the server did not accept yet: mail `number` of the event at `position`."""

    position: int
    number: int
    attempts: int


class MailFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A mail of the event at `position` that was refused, or deferred until `next_attempt_at`."""

    position: int
    reason: str
    attempts: int
    failed_at: datetime
    next_attempt_at: datetime | None


class MailRecords:
    """The checkpoint and the failures. `connection` is in autocommit mode. Calls raise psycopg.Error."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    def head(self) -> int:
        return int(self._value(HEAD))

    def position(self) -> int:
        """The position up to which all mails were sent, deferred or refused."""
        return int(self._value(CHECKPOINT))

    def advance(self, position: int) -> None:
        """Move the checkpoint. A problem that was reported is over."""
        self._connection.execute(ADVANCE, (position,))

    def events(self, after: int, until: int, limit: int) -> Sequence[RecordedEvent]:
        """The first events in this range that may cause a mail, or have a type that this release does not know."""
        parameters = (after, until, [kind.__name__ for kind in MAILED], list(EVENTS), limit)
        return [recorded_from(row) for row in self._connection.execute(AFTER, parameters, binary=True)]

    def fail(self, position: int, number: int, reason: str, *, at: datetime, next_attempt_at: datetime | None) -> None:
        """Record that a mail was refused for good, or is tried again later. Old failures are deleted."""
        with self._connection.transaction():
            self._connection.execute(FAIL, (position, number, reason, at, next_attempt_at))
            self._connection.execute(PRUNE)

    def recorded(self, position: int) -> set[int]:
        """The mails of this event that were deferred or refused before the checkpoint moved."""
        return {number for (number,) in self._connection.execute(RECORDED, (position,))}

    def forget(self, position: int, number: int) -> None:
        """The deferred mail was sent."""
        self._connection.execute(FORGET, (position, number))

    def deferred(self, at: datetime, limit: int) -> Sequence[DeferredMail]:
        """Mails whose next attempt is due."""
        return [DeferredMail(*row) for row in self._connection.execute(DEFERRED, (at, limit))]

    def next_attempt_at(self) -> datetime | None:
        moment: datetime | None = self._value(NEXT)
        return moment

    def report(self, problem: str) -> None:
        """Record why no mail can be sent, for readiness, until the next `advance`."""
        self._connection.execute(REPORT, (problem,))

    def _value(self, query: str) -> Any:
        row = self._connection.execute(query).fetchone()
        assert row is not None
        return row[0]


class MailStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint, the end of the log, and what hinders mails."""

    position: int
    head: int
    problem: str
    problem_since: datetime | None
    deferred: int
    refused: int
    failures: tuple[MailFailure, ...]


def mail_status(connection: Connection[Any], *, failures: int) -> MailStatus:
    """The status, with the newest `failures`. Raises psycopg.Error."""
    (position, head, problem, since, deferred, refused) = connection.execute(STATUS).fetchone() or (0, 0, "", None, 0, 0)
    rows = connection.execute(FAILURES, (failures,))
    newest = tuple(MailFailure(position=p, reason=r, attempts=n, failed_at=at, next_attempt_at=again) for p, r, n, at, again in rows)
    return MailStatus(
        position=position, head=head, problem=problem, problem_since=since, deferred=deferred, refused=refused, failures=newest
    )
