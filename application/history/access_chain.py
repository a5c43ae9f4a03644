"""The hash chain over the trail of access. It covers a salted digest of each address, so that addresses can be erased."""

import hashlib
import struct
from typing import Final
from uuid import UUID

from application.history.access_records import RecordedAccess
from application.history.hash_chain import EPOCH, MICROSECOND

ACCESS_START: Final = hashlib.sha256(b"bioscope access").digest()
_LONG = struct.Struct(">iq")
_INT = struct.Struct(">ii")
_LENGTH = struct.Struct(">i")


def access_link(previous: bytes, record: RecordedAccess) -> bytes:
    """The hash of a record: SHA-256 over the previous hash and every stored column, each prefixed with its length (4 bytes, big-endian)."""
    parts = (
        previous,
        _LONG.pack(8, record.position),
        _LONG.pack(8, (record.recorded_at - EPOCH) // MICROSECOND),
        _LONG.pack(8, (record.at - EPOCH) // MICROSECOND),
        _text(record.kind),
        _text(record.outcome),
        _uuid(record.actor_id),
        _text(record.actor_kind),
        _uuid(record.key_id),
        _text(record.noun),
        _uuid(record.object_id),
        _uuid(record.dataset_id),
        _text(record.route),
        _text(record.request_id),
        _INT.pack(4, record.count),
        _framed(record.address_digest),
    )
    return hashlib.sha256(b"".join(parts)).digest()


def address_digest(salt: bytes, address: str) -> bytes:
    return hashlib.sha256(salt + address.encode()).digest()


def _text(value: str) -> bytes:
    return _framed(value.encode())


def _uuid(value: UUID | None) -> bytes:
    return _framed(b"" if value is None else value.bytes)


def _framed(part: bytes) -> bytes:
    return _LENGTH.pack(len(part)) + part
