"""Signed heads, stored in the database and in the blob store. A hash chain alone does not reveal that the log was truncated."""

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
FOLDER: Final = "heads"
FIRST_DAY: Final = "began"  # the blob that contains the day of the first head
FIRST_DAY_NAME: Final = f"{FOLDER}/{FIRST_DAY}"
ONE_DAY: Final = timedelta(days=1)
MAX_CLOCK_DIFFERENCE: Final = 2 * ONE_DAY  # the clocks of the relay and of this process may each be wrong by a day
OLDEST_DAY: Final = date(2026, 1, 1)  # no head was signed earlier, so an earlier day is forged
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
    """The log after the last signed head is not what was appended. The message names the position."""


class HeadSigner:
    """Signs the newest head after verifying the chain from the last signed one.

    `signed` is the position of the last signed head; `broken` is the reason if nothing is signed any more. Create a new signer after each
    change of the lead. Calls block, and raise psycopg errors, and Unavailable if the blob store is unavailable.
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
                self.broken = BrokenChain(f"the signed head at position {last.position} was not signed by this installation")

    def sign(self, connection: psycopg.Connection, *, at: datetime) -> None:
        """Sign the newest head if there are new events, and store pending heads in the blob store.

        Raises BrokenChain, also at each later call.
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
        """Verify events that were read for another purpose, so that `sign` need not read them again. Never blocks. Thread-safe."""
        if not self._verifying.acquire(blocking=False):
            return
        try:
            new = [event for event in events if event.position > self._verified_position]
            if new and new[0].position == self._verified_position + 1:
                with suppress(BrokenChain):  # `sign` raises it
                    self._extend(new)
        finally:
            self._verifying.release()

    def _verified(self, connection: psycopg.Connection) -> tuple[int, bytes]:
        """The position and hash of the newest event, after verifying the chain up to it."""
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
                    raise BrokenChain(f"the log ends before its head: row {self._verified_position + 1} is missing")
                self._extend(map(recorded_from, rows))
            if position > self.signed and self._hash != digest:
                raise BrokenChain(f"the hash of the head is not that of the event at position {position}")
            return position, digest

    def _extend(self, events: Iterable[RecordedEvent]) -> None:
        for expected, event in enumerate(events, self._verified_position + 1):
            if event.position != expected or event.hash != link(self._hash, event):
                raise BrokenChain(f"the row at position {expected} or the one before it was changed")
            self._verified_position, self._hash = event.position, event.hash


class HeadArchive:
    """Heads in the blob store, one file per day, so that each file is small and its name is known without a listing.

    `folder` is that of the files, `line` decodes a head.
    """

    def __init__(self, blobs: BlobStore, *, folder: str = FOLDER, line: "msgspec.json.Decoder[Any] | None" = None) -> None:
        self._blobs, self._folder, self._line = blobs, folder, line or _line
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
        self._blobs.put_derived(self._name(day), b"\n".join(map(msgspec.json.encode, together)), JSON_LINES)
        self._archived, self._pending = together, []

    def everything(self, *, since: date | None, until: date) -> Iterator[SignedHead]:
        """The heads of each day, from the first day or `since`, whichever is earlier. Unreadable content gives an unsigned head."""
        first = since or until
        try:
            first = min(first, self._first_day() or until)
        except ValueError:
            yield UNSIGNED
        for number in range(-MAX_CLOCK_DIFFERENCE.days, (until - first).days + MAX_CLOCK_DIFFERENCE.days + 1):
            yield from self._of(first + timedelta(days=number))

    def _first_day(self) -> date | None:
        """The day of the first head. Raises ValueError for invalid content."""
        first = self._read(self._name(FIRST_DAY))
        day = date.fromisoformat(first.decode()) if first else None
        if day is not None and day < OLDEST_DAY:
            raise ValueError(day)
        return day

    def _load_day(self, day: date) -> None:
        if self._read(self._name(FIRST_DAY)) is None:
            self._blobs.put_derived(self._name(FIRST_DAY), day.isoformat().encode(), "text/plain")
        self._archived, self._day = self._of(day), day

    def _of(self, day: date) -> list[SignedHead]:
        found = self._read(self._name(day)) or b""
        return [self._head(line) for line in found.splitlines()]

    def _head(self, line: bytes) -> SignedHead:
        try:
            head: SignedHead = self._line.decode(line)
        except msgspec.MsgspecError:
            return UNSIGNED
        return head

    def _name(self, part: date | str) -> str:
        return f"{self._folder}/{part}"

    def _read(self, name: str) -> bytes | None:
        """The content of a blob. One that is too large gives invalid content."""
        try:
            return self._blobs.get_derived(name)
        except CorruptBlob:
            return b"?"


def all_heads(log: PostgresEventStore, blobs: BlobStore) -> list[SignedHead]:
    """All signed heads, from the database and from the blob store."""
    table = list(map(_head_of_row, log.recorder.rows(STORED_HEADS)))
    since = min((head.signed_at.date() for head in table), default=None)
    return [*table, *HeadArchive(blobs).everything(since=since, until=datetime.now(UTC).date())]


def _head_of_row(row: tuple[Any, ...]) -> SignedHead:
    position, digest, signed_at, signature, key_id = row
    return SignedHead(position=position, hash=digest, signed_at=signed_at.astimezone(UTC), signature=signature, key_id=key_id)


def _row(connection: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row
