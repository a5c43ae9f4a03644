"""Signed heads of the log, stored in the database and outside it: a hash chain alone cannot show that its end was cut off."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import Any, Final

import msgspec
import psycopg
import structlog

from application.history.hash_chain import START, link
from application.ports import BlobStore, RecordedEvent
from domain.errors import CorruptBlob
from infrastructure.audit.chain_verification import SignedHead
from infrastructure.eventstore.event_store import PostgresEventStore
from infrastructure.eventstore.recorder import EVENT_COLUMNS, recorded_from
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keys import Keys

log = structlog.get_logger()

SIGN_INTERVAL_SECONDS: Final = 60.0
SIGN_AFTER_EVENTS: Final = 1000
FIRST_DAY_NAME: Final = "heads/began"  # blob that names the day of the first head
ONE_DAY: Final = timedelta(days=1)
MAX_CLOCK_DIFFERENCE: Final = 2 * ONE_DAY  # the relay's clock may be a day ahead and ours a day behind, or the reverse
OLDEST_DAY: Final = date(2026, 1, 1)  # no head was signed before: an earlier beginning was not written by us
EVENTS_PER_BATCH: Final = 1000
JSON_LINES: Final = "application/x-ndjson"

NEWEST = "select position, hash from es.head"
STORE_HEAD = "insert into ops.heads (position, hash, signed_at, signature, key_id) values (%s, %s, %s, %s, %s) on conflict do nothing"
STORED_HEADS = "select position, hash, signed_at, signature, key_id from ops.heads order by position"
EVENTS_BEYOND_HEAD = "select from es.events where notification_id > (select position from es.head) limit 1"
LAST_HEAD = "select position, hash, signed_at, signature, key_id from ops.heads order by position desc limit 1"
EVENTS_BETWEEN = f"""select {EVENT_COLUMNS} from es.events where notification_id > %s and notification_id <= %s
  order by notification_id"""  # noqa: S608 - constants

UNSIGNED: Final = SignedHead(position=0, hash="", signed_at=datetime.min.replace(tzinfo=UTC))
_line = msgspec.json.Decoder(SignedHead)


class BrokenChain(Exception):
    """The log does not go on from the last signed head as it was written; the text says where."""


class HeadSigner:
    """Signs the newest head, once the chain leads to it from the last signed one.

    Calls block, and raise what the database raises, and Unavailable when the blob store is away. `signed`: the position of the last one.
    `broken`: why nothing is signed any more. Use a new one each time that the lead was taken.
    """

    def __init__(self, keys: Keys, blobs: BlobStore, connection: psycopg.Connection, *, events_per_batch: int = EVENTS_PER_BATCH) -> None:
        self._events_per_batch = events_per_batch
        self.broken: BrokenChain | None = None
        self._key, self._archive = keys.signing(Purpose.HEADS), HeadArchive(blobs)
        self.signed, self._verified_position, self._hash = 0, 0, START
        self._verifying = Lock()
        if (row := connection.execute(LAST_HEAD).fetchone()) is not None:
            last = _head_of_row(row)
            if last.genuine(keys.public(Purpose.HEADS)):
                self.signed, self._verified_position, self._hash = last.position, last.position, bytes.fromhex(last.hash)
            else:
                self.broken = BrokenChain(f"the signed head at position {last.position} does not carry this installation's signature")

    def sign(self, connection: psycopg.Connection, *, at: datetime) -> None:
        """Nothing when nothing has happened since the last one; what could not be put off the database then is put there now.

        Raises BrokenChain, then and at each later call.
        """
        if self.broken:
            raise self.broken
        try:
            position, digest = self._verified(connection)
        except BrokenChain as broken:
            self.broken = broken
            raise
        if position > self.signed:
            head = SignedHead(position=position, hash=digest.hex(), signed_at=at.astimezone(UTC)).sign(self._key)
            connection.execute(STORE_HEAD, (head.position, head.hash, head.signed_at, head.signature, head.key_id))
            self._archive.add(head)
            self.signed = position
        self._archive.put()

    def take(self, events: Sequence[RecordedEvent]) -> None:
        """Verify what was read of the log for another reason, so that `sign` need not read it again. Never waits; from any thread."""
        if not self._verifying.acquire(blocking=False):
            return
        try:
            new = [event for event in events if event.position > self._verified_position]
            if new and new[0].position == self._verified_position + 1:
                with suppress(BrokenChain):  # `sign` comes upon it
                    self._extend(new)
        finally:
            self._verifying.release()

    def _verified(self, connection: psycopg.Connection) -> tuple[int, bytes]:
        """Position and hash of the newest event, once the chain leads to it."""
        with self._verifying:
            position, digest = _row(connection, NEWEST)
            while self._verified_position < position:
                rows = connection.execute(
                    EVENTS_BETWEEN,
                    (self._verified_position, min(position, self._verified_position + self._events_per_batch)),
                    prepare=True,
                    binary=True,
                ).fetchall()
                if not rows:
                    raise BrokenChain(f"the log ends before its head: there is no row at position {self._verified_position + 1}")
                self._extend(map(recorded_from, rows))
            if position > self.signed and self._hash != digest:
                raise BrokenChain(f"the head does not hold the hash of the event at position {position}")
            return position, digest

    def _extend(self, events: Iterable[RecordedEvent]) -> None:
        for expected, event in enumerate(events, self._verified_position + 1):
            if event.position != expected or event.hash != link(self._hash, event):
                raise BrokenChain(f"the row at position {expected}, or the one before it, is not what was written")
            self._verified_position, self._hash = event.position, event.hash


class HeadArchive:
    """Heads among the derived blobs, a file a day: each can be asked for without a list of names, and stays small."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._day: date | None = None
        self._archived: list[SignedHead] = []
        self._pending: list[SignedHead] = []

    def add(self, head: SignedHead) -> None:
        self._pending.append(head)

    def put(self) -> None:
        if not self._pending:
            return
        day = self._pending[-1].signed_at.date()
        if day != self._day:
            self._load_day(day)
        together = [*self._archived, *self._pending]
        self._blobs.put_derived(_name(day), b"\n".join(map(msgspec.json.encode, together)), JSON_LINES)
        self._archived, self._pending = together, []

    def everything(self, *, since: date | None, until: date) -> Iterator[SignedHead]:
        """Those of each day from the first, or `since` where that is earlier. What cannot be read is given as a head nobody signed."""
        first = since or until
        try:
            first = min(first, self._first_day() or until)
        except ValueError:
            yield UNSIGNED
        for number in range(-MAX_CLOCK_DIFFERENCE.days, (until - first).days + MAX_CLOCK_DIFFERENCE.days + 1):
            yield from self._of(first + timedelta(days=number))

    def _first_day(self) -> date | None:
        """Raises ValueError for what we never wrote."""
        first = self._read(FIRST_DAY_NAME)
        day = date.fromisoformat(first.decode()) if first else None
        if day is not None and day < OLDEST_DAY:
            raise ValueError(day)
        return day

    def _load_day(self, day: date) -> None:
        if self._read(FIRST_DAY_NAME) is None:
            self._blobs.put_derived(FIRST_DAY_NAME, day.isoformat().encode(), "text/plain")
        self._archived, self._day = self._of(day), day

    def _of(self, day: date) -> list[SignedHead]:
        found = self._read(_name(day)) or b""
        return [_head_of_line(line) for line in found.splitlines()]

    def _read(self, name: str) -> bytes | None:
        """What is too large to be a day's heads holds one that nobody signed."""
        try:
            return self._blobs.get_derived(name)
        except CorruptBlob:
            return b"?"


def all_heads(log: PostgresEventStore, blobs: BlobStore) -> list[SignedHead]:
    """Every head that was ever signed: of the database, and of the blob store."""
    table = list(map(_head_of_row, log.recorder.rows(STORED_HEADS)))
    since = min((head.signed_at.date() for head in table), default=None)
    return [*table, *HeadArchive(blobs).everything(since=since, until=datetime.now(UTC).date())]


def _head_of_line(line: bytes) -> SignedHead:
    try:
        return _line.decode(line)
    except msgspec.MsgspecError:
        return UNSIGNED


def _head_of_row(row: tuple[Any, ...]) -> SignedHead:
    position, digest, signed_at, signature, key_id = row
    return SignedHead(position=position, hash=digest, signed_at=signed_at.astimezone(UTC), signature=signature, key_id=key_id)


def _name(day: date) -> str:
    return f"heads/{day.isoformat()}"


def _row(connection: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row
