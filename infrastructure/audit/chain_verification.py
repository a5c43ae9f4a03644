"""Signed heads, and the verification of the hash chain: no event was changed, and the log was not truncated."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from application.history.hash_chain import START, link
from application.ports import RecordedEvent
from infrastructure.security.key_ring import public_key_id


class SignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """A signed statement that the log had `hash` at `position`. It is also stored outside the database.

    `key_id` identifies the key of the signature; it is empty in heads of early releases.
    """

    position: int
    hash: str
    signed_at: datetime
    signature: str = ""
    key_id: str = ""

    def _signed(self) -> bytes:
        return f"{self.position}:{self.hash}:{self.signed_at.isoformat()}".encode()

    def sign(self, key: Ed25519PrivateKey) -> "SignedHead":
        signature = base64.b64encode(key.sign(self._signed())).decode()
        return msgspec.structs.replace(self, signature=signature, key_id=public_key_id(key.public_key()))

    def genuine(self, keys: Sequence[Ed25519PublicKey]) -> bool:
        """Whether the signature is by the key of `keys` that the head names, or by any of them if it names none."""
        return any(self._is_signed_by(key) for key in keys if self.key_id in {"", public_key_id(key)})

    def _is_signed_by(self, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(base64.b64decode(self.signature), self._signed())
        except (InvalidSignature, ValueError):
            return False
        return True


class ChainFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The first problem in the log: its position, and a description.

    `tampered`: the event is not the one that was appended. Otherwise it is, but it breaks a rule.
    """

    position: int
    what: str
    tampered: bool = True


class VerificationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verification: number of `events`, last `hash`, number of verified `heads`, and the first problem.

    `discrepancies` are differences between the log and the tables beside it, which are only searched for without a `finding`.
    `unchecked` is the number of events whose content only a newer release can check.
    """

    events: int
    hash: str
    heads: int
    finding: ChainFinding | None
    discrepancies: tuple[str, ...] = ()
    unchecked: int = 0

    @property
    def problem(self) -> str | None:
        """The first problem as a text; None if there is none."""
        if self.finding is not None:
            verdict = "tampered" if self.finding.tampered else "against the rules"
            return f"{verdict} at position {self.finding.position}: {self.finding.what}"
        if self.discrepancies:
            more = f" (and {len(self.discrepancies) - 1} more)" if len(self.discrepancies) > 1 else ""
            return f"the log is intact, but the tables beside it differ from it: {self.discrepancies[0]}{more}"
        return None


def _row_problem(event: RecordedEvent, expected: int, digest: bytes) -> str | None:
    if event.position != expected:
        return f"missing: the log continues with position {event.position}"
    return None if event.hash == digest else "this row or the one before it was changed"


class Segment(NamedTuple):
    """A verified part of the log: its last position, the hash there, and the first problem."""

    position: int
    hash: bytes
    finding: ChainFinding | None = None


def walk(
    batches: Iterable[Sequence[RecordedEvent]],
    *,
    start: Segment,
    expected: Mapping[int, str],
    violation_of: Callable[[RecordedEvent], str | None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Segment:
    """Verify the chain after `start`, up to the first problem.

    `expected` are the hashes of signed heads by position. `violation_of` is called with each event in order, `progress` with positions.
    """
    position, previous = start.position, start.hash

    def found(where: int, what: str, *, tampered: bool = True) -> Segment:
        return Segment(position, previous, ChainFinding(position=where, what=what, tampered=tampered))

    for batch in batches:
        for event in batch:
            digest = link(previous, event)
            if (wrong := _row_problem(event, position + 1, digest)) is not None:
                return found(position + 1, wrong)
            previous, position = digest, event.position
            if position in expected and expected[position] != previous.hex():
                return found(position, "the chain was rewritten: a signed head has another hash")
            if (violation := violation_of(event)) is not None:
                return found(position, f"{event.type}: {violation}", tampered=False)
        progress(position)
    return Segment(position, previous)


def signed_hashes(heads: Iterable[SignedHead], keys: Sequence[Ed25519PublicKey]) -> tuple[dict[int, str], ChainFinding | None]:
    """The hash of each signed head by position, and a finding for the first head with a wrong signature."""
    expected: dict[int, str] = {}
    forged: SignedHead | None = None
    for head in heads:
        if head.genuine(keys):
            expected[head.position] = head.hash
        else:
            forged = forged or head
    what = "a signed head was not signed by this installation"
    return expected, ChainFinding(position=forged.position, what=what) if forged else None


def end_finding(segment: Segment, expected: Mapping[int, str], stored_head: tuple[int, bytes]) -> ChainFinding | None:
    """The problem at the end of a log that was verified up to `segment`, or None."""
    position = segment.position
    latest = max([*expected, stored_head[0]], default=0)
    if latest > position:
        return ChainFinding(position=position + 1, what=f"truncated: there were {latest} events")
    if stored_head != (position, segment.hash):
        return ChainFinding(position=min(position, stored_head[0] + 1), what="the head does not match the newest row")
    return None


def verify(
    batches: Iterable[Sequence[RecordedEvent]],
    *,
    heads: Sequence[SignedHead],
    keys: Sequence[Ed25519PublicKey],
    stored_head: tuple[int, bytes],
    violation_of: Callable[[RecordedEvent], str | None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> VerificationResult:
    """Verify the whole log. The result names the first event that was changed, deleted, reordered or inserted, or that breaks a rule.

    `violation_of` is called with each event in order.
    """
    expected, forged = signed_hashes(heads, keys)
    segment = Segment(0, START, forged)
    if not forged:
        segment = walk(batches, start=segment, expected=expected, violation_of=violation_of, progress=progress)
    finding = segment.finding or end_finding(segment, expected, stored_head)
    return VerificationResult(events=segment.position, hash=segment.hash.hex(), heads=len(expected), finding=finding)
