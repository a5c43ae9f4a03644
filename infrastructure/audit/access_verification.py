"""The verification of the trail of access: its hash chain, its signed heads, and the addresses that are stored apart."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from application.history.access_chain import ACCESS_START, access_link, address_digest
from application.history.access_records import RecordedAccess
from application.ports import BlobStore
from infrastructure.audit.access_heads import all_access_heads
from infrastructure.audit.access_rows import ENDS, RECORDS_BETWEEN, recorded_access_from
from infrastructure.audit.chain_verification import signed_hashes
from infrastructure.eventstore.event_store import PostgresEventStore
from infrastructure.postgres.arrays import uuids
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keys import Keys

RECORDS_PER_BATCH: Final = 2000
MAX_ATTEMPTS: Final = 5  # repeated when the oldest records are removed meanwhile
WITH_ADDRESSES: Final = {"user", "pending"}
ADDRESSES: Final = "select position, salt, address from ops.access_addresses where position > %s and position <= %s"
WITHOUT_RECORD: Final = """select position from ops.access_addresses where position <= (select anchor_position from ops.access_head)
    or position > (select position from ops.access_head) limit 1"""
BEYOND: Final = "select position from ops.access_log where position > %s and position > (select position from ops.access_head) limit 1"
KEYS: Final = "select owner from es.secrets where kind = 'key' and owner = any(%s::uuid[])"


class Ends(NamedTuple):
    """Both ends of the trail: the newest record, and the last one that was removed."""

    position: int
    hash: bytes
    anchor_position: int
    anchor_hash: bytes


class AccessVerification(NamedTuple):
    """The result: number of `records`, time of the oldest one, number of signed `heads`, and the first problem."""

    records: int
    since: datetime | None
    heads: int
    problem: str | None


class _Broken(Exception):
    """The first problem, as a text that names the position."""


def verify_access(log: PostgresEventStore, keys: Keys, blobs: BlobStore) -> AccessVerification:
    """Verify the trail of access while it is written. Raises Unavailable."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        ends = _ends(log)
        result = _verify(log, ends, keys, blobs)
        if result.problem is None or attempt == MAX_ATTEMPTS or _ends(log).anchor_position == ends.anchor_position:
            break
    return result


def _verify(log: PostgresEventStore, ends: Ends, keys: Keys, blobs: BlobStore) -> AccessVerification:
    expected, forged = signed_hashes(all_access_heads(log, blobs), keys.public(Purpose.HEADS))
    records, since = 0, None
    try:
        if forged:
            raise _Broken(f"tampered at position {forged.position}: {forged.what}")
        _check_anchor(ends, expected)
        position, digest = ends.anchor_position, ends.anchor_hash
        while position < ends.position:
            until = min(position + RECORDS_PER_BATCH, ends.position)
            batch = [recorded_access_from(row) for row in log.recorder.rows(RECORDS_BETWEEN, position, until)]
            _check_chain(batch, position, digest, until, expected)
            _check_addresses(log, batch)
            since = since or batch[0].recorded_at
            position, digest, records = until, batch[-1].hash, records + len(batch)
        if digest != ends.hash:
            raise _Broken(f"tampered at position {ends.position}: the head does not match the newest record")
        _check_end(log, ends, expected)
    except _Broken as broken:
        return AccessVerification(records, since, len(expected), f"the trail of access: {broken}")
    return AccessVerification(records, since, len(expected), None)


def _ends(log: PostgresEventStore) -> Ends:
    rows = log.recorder.rows(ENDS)
    return Ends(*rows[0]) if rows else Ends(0, b"", 0, b"")


def _check_anchor(ends: Ends, expected: Mapping[int, str]) -> None:
    """The oldest records are removed up to a signed head."""
    if ends.anchor_position == 0:
        is_genuine = ends.anchor_hash == ACCESS_START
    else:
        is_genuine = expected.get(ends.anchor_position) == ends.anchor_hash.hex()
    if not is_genuine:
        raise _Broken(f"tampered at position {ends.anchor_position}: records were removed up to a position that was not signed")


def _check_chain(batch: Sequence[RecordedAccess], position: int, digest: bytes, until: int, expected: Mapping[int, str]) -> None:
    for record in batch:
        position += 1
        if record.position != position:
            raise _Broken(f"tampered at position {position}: missing, the trail continues with position {record.position}")
        if record.hash != access_link(digest, record):
            raise _Broken(f"tampered at position {position}: this record or the one before it was changed")
        if position in expected and expected[position] != record.hash.hex():
            raise _Broken(f"tampered at position {position}: the chain was rewritten, a signed head has another hash")
        digest = record.hash
    if position < until:
        raise _Broken(f"tampered at position {position + 1}: missing, the trail ends before its head")


def _check_end(log: PostgresEventStore, ends: Ends, expected: Mapping[int, str]) -> None:
    latest = max(expected, default=0)
    if latest > ends.position and latest > _ends(log).position:
        raise _Broken(f"tampered at position {ends.position + 1}: truncated, there were {latest} records")
    if rows := log.recorder.rows(BEYOND, ends.position):
        raise _Broken(f"tampered at position {rows[0][0]}: the head does not count this record")
    if rows := log.recorder.rows(WITHOUT_RECORD):
        raise _Broken(f"the address at position {rows[0][0]} belongs to no record")


def _check_addresses(log: PostgresEventStore, batch: Sequence[RecordedAccess]) -> None:
    """Each address is the one that was recorded. One may only be missing if the data key of its person was destroyed."""
    stored = {
        position: (salt, address) for position, salt, address in log.recorder.rows(ADDRESSES, batch[0].position - 1, batch[-1].position)
    }
    for record in batch:
        if record.position in stored and address_digest(*stored[record.position]) != record.address_digest:
            raise _Broken(f"tampered at position {record.position}: its address was changed")
    missing = [record for record in batch if record.position not in stored]
    if missing:
        persons = {person for record in missing for person in _persons(record)}
        known = {owner for (owner,) in log.recorder.rows(KEYS, uuids(list(persons)))}
        for record in missing:
            if _persons(record) <= known:
                raise _Broken(f"tampered at position {record.position}: its address is missing, but nobody was erased")


def _persons(record: RecordedAccess) -> set[UUID]:
    """The accounts with which the address of a record may have been erased."""
    actors = {record.actor_id} if record.actor_kind in WITH_ADDRESSES else set()
    objects = {record.object_id} if record.noun == "user" and record.actor_id is None else set()
    return {person for person in actors | objects if person is not None}
