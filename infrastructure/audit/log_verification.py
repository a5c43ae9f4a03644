"""The verification of the whole log. A long log is verified in ranges, by several processes."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final, NamedTuple

import msgspec
import structlog

from application.history.hash_chain import START
from application.ports import BlobStore, RecordedEvent
from infrastructure.audit.chain_verification import Segment, VerificationResult, end_finding, signed_hashes, walk
from infrastructure.audit.parallel import results_in_order
from infrastructure.audit.record_rules import RecordAudit
from infrastructure.audit.side_tables import TableAudit, TableNotes
from infrastructure.audit.signed_heads import all_heads
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.event_store import PostgresEventStore, open_event_store
from infrastructure.eventstore.garbage_collection import infrequent_collection
from infrastructure.process_lifecycle import die_with_parent
from infrastructure.processors import available_processors
from infrastructure.security.key_ring import Purpose
from infrastructure.security.process_keys import operator_keys

NEWEST: Final = "select position, hash from es.head"
BEYOND: Final = "select from es.events where notification_id > (select position from es.head) limit 1"


class VerificationLimits(NamedTuple):
    """`processes` is the maximum number, limited by `available_processors`; each needs about 110 MiB. One range needs no process."""

    events_per_range: int = 100_000
    events_per_batch: int = 1000
    processes: int = 8


DEFAULT_LIMITS: Final = VerificationLimits()


class Range(NamedTuple):
    """The positions after `after` up to `until`, or (None) to the last row. `expected` are hashes of signed heads by position."""

    after: int
    until: int | None
    expected: Mapping[int, str]


class RangeResult(NamedTuple):
    segment: Segment
    tables: TableNotes
    unchecked: int


def verify_log(
    given: Settings,
    log: PostgresEventStore,
    *,
    blobs: BlobStore | None = None,
    progress: Callable[[int], None] = lambda _: None,
    limits: VerificationLimits = DEFAULT_LIMITS,
) -> VerificationResult:
    """Verify the whole log: its hash chain, all signed heads, the rules of events, and the tables beside it.

    Raises Unavailable, WrongRootKey.
    """
    keys = operator_keys(given)
    heads = all_heads(log, blobs or open_blobs(given, keys))
    (stored_head,) = log.recorder.rows(NEWEST)
    expected, forged = signed_hashes(heads, keys.public(Purpose.HEADS))
    segment, tables, unchecked = Segment(0, START, forged), TableAudit(log), 0
    ranges = [] if forged else list(_ranges(log, expected, stored_head[0], limits))
    with _results(given, log, ranges, limits) as results:
        for part, result in zip(ranges, results, strict=True):
            segment, unchecked = result.segment, unchecked + result.unchecked
            if segment.finding:
                break
            tables.add(result.tables)
            progress(segment.position)
            if part.until is not None and segment.position < part.until:
                break  # the log ends here, whatever the head says
    finding = segment.finding or end_finding(segment, expected, stored_head)
    found = VerificationResult(events=segment.position, hash=segment.hash.hex(), heads=len(expected), finding=finding, unchecked=unchecked)
    return found if finding else msgspec.structs.replace(found, discrepancies=tuple(tables.finish()))


def _ranges(log: PostgresEventStore, expected: Mapping[int, str], head: int, limits: VerificationLimits) -> Iterator[Range]:
    """The ranges up to the head, since events are appended in the meantime; beyond it only if there are rows that it does not count."""
    starts = range(0, max(head, 1), limits.events_per_range)
    for after in starts:
        until = min(after + limits.events_per_range, head)
        is_open = until >= head and bool(log.recorder.rows(BEYOND))
        heads = {position: digest for position, digest in expected.items() if after < position and (is_open or position <= until)}
        yield Range(after, None if is_open else until, heads)


@contextmanager
def _results(
    given: Settings, log: PostgresEventStore, ranges: Sequence[Range], limits: VerificationLimits
) -> Iterator[Iterable[RangeResult]]:
    """The results of the ranges, in order. Several processes work ahead."""
    processes = min(limits.processes, available_processors(), len(ranges))
    if processes <= 1:
        with infrequent_collection():
            yield (walk_range(log, one, limits) for one in ranges)
        return
    with results_in_order(
        partial(_walk_range_here, limits), ranges, processes=processes, initializer=partial(_begin, given, os.getpid())
    ) as results:
        yield results


# ---- in the processes --------------------------------------------------------------------------------------------------------------
_log: PostgresEventStore | None = None
_open = ExitStack()  # until the process ends


def _begin(given: Settings, parent: int) -> None:
    global _log
    die_with_parent(parent)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout may be JSON
    _open.enter_context(infrequent_collection())
    _log = _open.enter_context(open_event_store(given))


def _walk_range_here(limits: VerificationLimits, part: Range) -> RangeResult:
    assert _log is not None
    return walk_range(_log, part, limits)


def walk_range(log: PostgresEventStore, part: Range, limits: VerificationLimits) -> RangeResult:
    """The first problem in a range, and its notes for the audit of the whole log. Raises Unavailable."""
    rules, tables = RecordAudit(log), TableAudit(log, is_part=True)
    start = Segment(part.after, _hash_at(log, part.after))
    batches = _audited(tables, _batches(log, part, limits.events_per_batch))
    segment = walk(batches, start=start, expected=part.expected, violation_of=rules.violation_of)
    return RangeResult(segment, tables.notes(), rules.unchecked)


def _hash_at(log: PostgresEventStore, position: int) -> bytes:
    """The stored hash at `position`. The verification of the range before it checks this row, and reports it if it is missing."""
    if position == 0:
        return START
    return next((event.hash for event in log.at([position])), b"")


def _audited(tables: TableAudit, batches: Iterable[Sequence[RecordedEvent]]) -> Iterator[Sequence[RecordedEvent]]:
    """The batches. Each is passed to `tables` when the next one is requested, so after its verification."""
    for batch in batches:
        yield batch
        tables.take(batch)


def _batches(log: PostgresEventStore, part: Range, size: int) -> Iterator[Sequence[RecordedEvent]]:
    after = part.after
    while part.until is None or after < part.until:
        batch = log.read(after, size if part.until is None else min(size, part.until - after))
        if not batch:
            return
        yield batch
        after = batch[-1].position
