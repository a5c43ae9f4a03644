"""The hash chain over the log: the hash of each row covers every stored column and the hash of the row before it."""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from application.ports import ChainedEvent, RecordedEvent

START = hashlib.sha256(b"bioscope").digest()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_POSITION = struct.Struct(">iq")
_NUMBER = struct.Struct(">ii")
_LENGTH = struct.Struct(">i")


def link(previous: bytes, event: RecordedEvent) -> bytes:
    """The hash of an event: SHA-256 over the previous hash and every stored column, each prefixed with its length (4 bytes, big-endian)."""
    assert event.recorded_at is not None
    microseconds = (event.recorded_at - EPOCH) // MICROSECOND
    kind = event.type.encode()
    return hashlib.sha256(
        b"".join(
            (
                previous,
                _POSITION.pack(8, event.position),
                b"\0\0\0\x10",
                event.stream.bytes,
                _NUMBER.pack(4, event.version),
                _LENGTH.pack(len(kind)),
                kind,
                _NUMBER.pack(4, event.schema_version),
                _LENGTH.pack(len(event.data)),
                event.data,
                _LENGTH.pack(len(event.meta)),
                event.meta,
                b"\0\0\0\x10",
                event.event_id.bytes,
                _POSITION.pack(8, microseconds),
            )
        )
    ).digest()


def chained(previous: bytes, event: RecordedEvent) -> RecordedEvent:
    return msgspec.structs.replace(event, hash=link(previous, event))


def linked(events: Iterable[RecordedEvent], previous: bytes) -> Iterator[ChainedEvent]:
    """Consecutive events, each with the stored hash of the event before it. `previous` is the hash before the first one."""
    for event in events:
        yield ChainedEvent(event, previous)
        previous = event.hash
