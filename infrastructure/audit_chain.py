"""The hash chain over the log, and signed heads that show when its end was cut off."""

import base64
import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from application.ports import Recorded

START = hashlib.sha256(b"bioscope").digest()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POSITION = struct.Struct(">iq")
_NUMBER = struct.Struct(">ii")
_LENGTH = struct.Struct(">i")


def link(previous: bytes, event: Recorded) -> bytes:
    """sha256 over the previous hash and every stored column, each behind its length (4 bytes, big-endian)."""
    assert event.recorded_at is not None
    micros = (event.recorded_at - EPOCH) // timedelta(microseconds=1)
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
                _POSITION.pack(8, micros),
            )
        )
    ).digest()


def chained(previous: bytes, event: Recorded) -> Recorded:
    return msgspec.structs.replace(event, hash=link(previous, event))


class SignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The log had `hash` at `position` when it was signed: kept where the database cannot reach."""

    position: int
    hash: str
    signed_at: datetime
    signature: str = ""

    def _signed(self) -> bytes:
        return f"{self.position}:{self.hash}:{self.signed_at.isoformat()}".encode()

    def sign(self, key: Ed25519PrivateKey) -> "SignedHead":
        return msgspec.structs.replace(self, signature=base64.b64encode(key.sign(self._signed())).decode())

    def genuine(self, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(base64.b64decode(self.signature), self._signed())
        except (InvalidSignature, ValueError):
            return False
        return True


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The first position at which the record is not what was written, and what is wrong there.

    Not `tampered`: it is what was written, and says what cannot be.
    """

    position: int
    what: str
    tampered: bool = True


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    events: int
    hash: str
    heads: int
    finding: Finding | None


def _wrong_place(event: Recorded, expected: int, digest: bytes) -> str | None:
    if event.position != expected:
        return f"missing: the log goes on with {event.position}"
    return None if event.hash == digest else "the row, or the one before it, is not what was written"


def verify(
    batches: Iterator[Sequence[Recorded]],
    *,
    heads: Sequence[SignedHead],
    key: Ed25519PublicKey,
    stored_head: tuple[int, bytes],
    violation_of: Callable[[Recorded], str | None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Walk the whole log; the first position that was edited, deleted, reordered, inserted or cut off is named, or breaks a rule.

    `violation_of` gets each event in its turn.
    """
    expected = {head.position: head for head in heads if head.genuine(key)}
    previous, position = START, 0

    def found(where: int, what: str, *, tampered: bool = True) -> Verified:
        finding = Finding(position=where, what=what, tampered=tampered)
        return Verified(events=position, hash=previous.hex(), heads=len(expected), finding=finding)

    forged = [head for head in heads if not head.genuine(key)]
    if forged:
        return found(forged[0].position, "a signed head does not carry this installation's signature")
    for batch in batches:
        for event in batch:
            digest = link(previous, event)
            if (wrong := _wrong_place(event, position + 1, digest)) is not None:
                return found(position + 1, wrong)
            previous, position = digest, event.position
            if position in expected and expected[position].hash != previous.hex():
                return found(position, "the chain was written anew: a signed head says otherwise")
            if (violation := violation_of(event)) is not None:
                return found(position, f"{event.type}: {violation}", tampered=False)
        progress(position)
    latest = max([*expected, stored_head[0]], default=0)
    if latest > position:
        return found(position + 1, f"cut off: there were {latest} events")
    if stored_head != (position, previous):
        return found(min(position, stored_head[0] + 1), "the head does not match the newest row")
    return Verified(events=position, hash=previous.hex(), heads=len(expected), finding=None)
