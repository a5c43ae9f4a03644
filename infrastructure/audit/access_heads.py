"""Signed heads of the trail of access, stored in the database and in the blob store beside those of the log."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import psycopg

from application.history.access_chain import ACCESS_START, access_link
from application.history.access_records import RecordedAccess
from application.ports import BlobStore
from infrastructure.audit.access_rows import ENDS, RECORDS_BETWEEN, recorded_access_from
from infrastructure.audit.chain_verification import SignedHead
from infrastructure.audit.signed_heads import FOLDER, BrokenChain, HeadArchive
from infrastructure.eventstore.event_store import PostgresEventStore
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keys import Keys

ACCESS_FOLDER: Final = f"{FOLDER}/access"
RECORDS_PER_BATCH: Final = 1000

STORE_HEAD: Final = (
    "insert into ops.access_heads (position, hash, signed_at, signature, key_id) values (%s, %s, %s, %s, %s) on conflict do nothing"
)
STORED_HEADS: Final = "select position, hash, signed_at, signature, key_id from ops.access_heads order by position"
LAST_HEAD: Final = "select position, hash, signed_at, signature, key_id from ops.access_heads order by position desc limit 1"


class AccessHead(SignedHead, frozen=True, kw_only=True):
    """A signed statement about the trail of access. No signature of a head of the log fits it."""

    def _signed(self) -> bytes:
        return b"access:" + super()._signed()


_line = msgspec.json.Decoder(AccessHead)


class AccessHeadSigner:
    """Signs the newest head of the trail of access after verifying its chain from the last signed head.

    `broken` is the reason if nothing is signed any more. Calls block, and raise psycopg errors, and Unavailable if the blob store is
    unavailable.
    """

    def __init__(self, keys: Keys, blobs: BlobStore, connection: psycopg.Connection) -> None:
        self._key = keys.signing(Purpose.HEADS)
        self._archive = HeadArchive(blobs, folder=ACCESS_FOLDER, line=_line)
        self.broken: BrokenChain | None = None
        self.signed, self._hash = 0, ACCESS_START
        if (row := connection.execute(LAST_HEAD).fetchone()) is not None:
            last = _head_of(row)
            if last.genuine(keys.public(Purpose.HEADS)):
                self.signed, self._hash = last.position, bytes.fromhex(last.hash)
            else:
                self.broken = BrokenChain(f"the signed head at position {last.position} was not signed by this installation")

    def sign(self, connection: psycopg.Connection, *, at: datetime) -> None:
        """Sign the newest head if there are new records, and store pending heads in the blob store.

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
            head = AccessHead(position=position, hash=digest.hex(), signed_at=at.astimezone(UTC)).sign(self._key)
            connection.execute(STORE_HEAD, (head.position, head.hash, head.signed_at, head.signature, head.key_id))
            self._archive.add(head)
            self.signed, self._hash = position, digest
        self._archive.put()

    def _verified(self, connection: psycopg.Connection) -> tuple[int, bytes]:
        """The position and hash of the newest record, after verifying the chain from the last signed head."""
        row = connection.execute(ENDS).fetchone()
        if row is None:
            raise BrokenChain("the head of the trail of access is missing")
        position, stored, *_ = row
        reached, digest = self.signed, self._hash
        while reached < position:
            rows = connection.execute(RECORDS_BETWEEN, (reached, min(position, reached + RECORDS_PER_BATCH)), binary=True).fetchall()
            if not rows:
                raise BrokenChain(f"the trail of access ends before its head: record {reached + 1} is missing")
            reached, digest = _extended(reached, digest, map(recorded_access_from, rows))
        if (reached, digest) != (position, stored):
            raise BrokenChain(f"the head of the trail of access is not that of the record at position {position}")
        return position, digest


def all_access_heads(log: PostgresEventStore, blobs: BlobStore) -> list[SignedHead]:
    """All signed heads of the trail of access, from the database and from the blob store."""
    table = list(map(_head_of, log.recorder.rows(STORED_HEADS)))
    since = min((head.signed_at.date() for head in table), default=None)
    archive = HeadArchive(blobs, folder=ACCESS_FOLDER, line=_line)
    return [*table, *archive.everything(since=since, until=datetime.now(UTC).date())]


def _extended(position: int, digest: bytes, records: Iterable[RecordedAccess]) -> tuple[int, bytes]:
    for expected, record in enumerate(records, position + 1):
        if record.position != expected or record.hash != access_link(digest, record):
            raise BrokenChain(f"the record at position {expected} of the trail of access, or the one before it, was changed")
        position, digest = record.position, record.hash
    return position, digest


def _head_of(row: tuple[Any, ...]) -> SignedHead:
    position, digest, signed_at, signature, key_id = row
    return AccessHead(position=position, hash=digest, signed_at=signed_at.astimezone(UTC), signature=signature, key_id=key_id)
