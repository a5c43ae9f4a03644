"""Signed heads, and whether the whole log is what was written: its hash chain holds, and no end was cut off."""

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
    """The log had `hash` at `position` when it was signed: kept where the database cannot reach.

    `key_id` names the key of the signature; heads that were signed before keys had ids have none.
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
        """Whether it was signed by the one of `keys` that it names, or where it names none by any of them."""
        return any(self._is_signed_by(key) for key in keys if self.key_id in {"", public_key_id(key)})

    def _is_signed_by(self, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(base64.b64decode(self.signature), self._signed())
        except (InvalidSignature, ValueError):
            return False
        return True


class ChainFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The first position at which the record is not what was written, and what is wrong there.

    Not `tampered`: it is what was written, and says what cannot be.
    """

    position: int
    what: str
    tampered: bool = True


class VerificationResult(msgspec.Struct, frozen=True, kw_only=True):
    """`discrepancies`: what the tables beside the log hold and the log does not say; not looked for where there is a finding.

    `unchecked`: events whose content only the rules of a newer release can judge.
    """

    events: int
    hash: str
    heads: int
    finding: ChainFinding | None
    discrepancies: tuple[str, ...] = ()
    unchecked: int = 0

    @property
    def problem(self) -> str | None:
        """What is wrong first, in words; None where all is as it was written."""
        if self.finding is not None:
            verdict = "tampered" if self.finding.tampered else "against the rules"
            return f"{verdict} at position {self.finding.position}: {self.finding.what}"
        if self.discrepancies:
            more = f" (and {len(self.discrepancies) - 1} more)" if len(self.discrepancies) > 1 else ""
            return f"the log is intact, and the tables beside it are not as it says: {self.discrepancies[0]}{more}"
        return None


def _row_problem(event: RecordedEvent, expected: int, digest: bytes) -> str | None:
    if event.position != expected:
        return f"missing: the log goes on with {event.position}"
    return None if event.hash == digest else "the row, or the one before it, is not what was written"


class Segment(NamedTuple):
    """A run of the log that was walked: its last position, the hash there, and what is wrong first."""

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
    """Follow the chain behind `start`. `expected`: hashes that signed heads name, by position. `violation_of` gets each event in turn."""
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
                return found(position, "the chain was written anew: a signed head says otherwise")
            if (violation := violation_of(event)) is not None:
                return found(position, f"{event.type}: {violation}", tampered=False)
        progress(position)
    return Segment(position, previous)


def signed_hashes(heads: Iterable[SignedHead], keys: Sequence[Ed25519PublicKey]) -> tuple[dict[int, str], ChainFinding | None]:
    """The hash that each head names, by position; and what is wrong with the first one that nobody here signed."""
    expected: dict[int, str] = {}
    forged: SignedHead | None = None
    for head in heads:
        if head.genuine(keys):
            expected[head.position] = head.hash
        else:
            forged = forged or head
    what = "a signed head does not carry this installation's signature"
    return expected, ChainFinding(position=forged.position, what=what) if forged else None


def end_finding(segment: Segment, expected: Mapping[int, str], stored_head: tuple[int, bytes]) -> ChainFinding | None:
    """What is wrong with the end of a log that was walked to `segment`."""
    position = segment.position
    latest = max([*expected, stored_head[0]], default=0)
    if latest > position:
        return ChainFinding(position=position + 1, what=f"cut off: there were {latest} events")
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
    """Walk the whole log; the first position that was edited, deleted, reordered, inserted or cut off is named, or breaks a rule.

    `violation_of` gets each event in its turn.
    """
    expected, forged = signed_hashes(heads, keys)
    segment = Segment(0, START, forged)
    if not forged:
        segment = walk(batches, start=segment, expected=expected, violation_of=violation_of, progress=progress)
    finding = segment.finding or end_finding(segment, expected, stored_head)
    return VerificationResult(events=segment.position, hash=segment.hash.hex(), heads=len(expected), finding=finding)
