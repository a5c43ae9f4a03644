"""Make the read models again beside the live ones, and change over in one transaction; or compare the two."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from application.ports import EventStore
from domain.errors import Conflict
from projections.engine.checkpoints import Checkpoint, CheckpointConflict
from projections.engine.projector import Projector
from projections.rebuild import bulk_schema
from projections.rebuild.digests import LIVE_SCHEMA, TABLES_COMPARED, ComparedTable, Key, Range, digest_at, first_difference, ranges

NEXT_SCHEMA, OLD_SCHEMA = "read_next", "read_old"
REBUILD_LOCK = 0x72656275696C64  # one rebuild at a time
EVENTS_PER_BATCH = 4000  # events: a row that changes often is written once
MAX_ATTEMPTS: Final = 2  # of one batch
SALT_BYTES: Final = 32
MAX_COMPARISONS: Final = 20  # at a difference, before it counts as one while the projector still has something to do
COMPARE_AGAIN_SECONDS: Final = 0.5

POSITION = "select position from read.checkpoint where projection = 'main'"
LOCK_POSITION = f"{POSITION} for update"  # the projector waits
READ_BY_KEY = "set enable_seqscan = off"  # a range is read by its key, also of a table that nobody has analysed yet
COPY_KAFKA_POSITION = """update read_next.checkpoint n set cluster = l.cluster, next_offset = l.next_offset
  from read.checkpoint l where l.projection = n.projection"""

NOTIFY_PROJECTED = "select pg_notify('bioscope_projected', position::text) from read.checkpoint where projection = 'main'"

Progress = Callable[[str, int], None]
"""`progress(what, done)`: "events" that were applied, or the name of a table of which so many rows were compared."""


class Difference(NamedTuple):
    """A live table that is not what the log says, and the first key in which it differs."""

    table: str
    key: Key

    def __str__(self) -> str:
        return f"{self.table}, first at {' '.join(map(str, self.key))}"


class RebuildResult(NamedTuple):
    """`events` is the position up to which the log was read; `differing` is empty where nothing was compared."""

    events: int
    differing: tuple[Difference, ...] = ()


class AlreadyRebuilding(Conflict):
    """Another rebuild is under way."""


def rebuild(
    owner: psycopg.Connection,
    *,
    projector_over: Callable[[str], Projector],
    log: EventStore,
    check: bool,
    progress: Progress = lambda *_: None,
) -> RebuildResult:
    """Put read models that were made anew in the place of the live ones; with `check` compare the two instead, and change nothing.

    `owner` may create schemas, and commits by itself; `projector_over` makes a projector over the read models in a schema.
    Raises AlreadyRebuilding.
    """
    with rebuild_lock(owner):
        _drop(owner, NEXT_SCHEMA, OLD_SCHEMA)
        owner.execute("call ops.create_read_models(%s)", (NEXT_SCHEMA,))
        left_out = bulk_schema.prepare(owner, NEXT_SCHEMA)
        projector = projector_over(NEXT_SCHEMA)
        making = _RebuildSubscription(projector, log, progress)
        try:
            making.follow(_position(owner) if check else log.head())
            if check:
                return RebuildResult(making.position, _compared(owner, making))
            bulk_schema.finish(owner, NEXT_SCHEMA, left_out)
            making.follow(log.head())
            _change_over(owner, making)
            return RebuildResult(making.position)
        finally:
            projector.close()
            _drop(owner, NEXT_SCHEMA, OLD_SCHEMA)


class rebuild_lock:  # noqa: N801 - reads as a word
    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        row = self._connection.execute("select pg_try_advisory_lock(%s)", (REBUILD_LOCK,)).fetchone()
        if not (row and row[0]):
            raise AlreadyRebuilding("Another rebuild is under way")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("select pg_advisory_unlock(%s)", (REBUILD_LOCK,))


class _RebuildSubscription:
    """The read models that are made anew, and how far they are."""

    def __init__(self, projector: Projector, log: EventStore, progress: Progress) -> None:
        self._projector, self._log, self.progress = projector, log, progress
        self.position = 0

    def follow(self, position: int) -> None:
        until = min(position, self._log.head()) if position > self.position else 0
        if until > self.position:
            replay(self._projector, self._log, until, lambda position: self.progress("events", position))
            self.position = until

    def is_at_head(self) -> bool:
        return self.position >= self._log.head()


def replay(projector: Projector, log: EventStore, until: int, progress: Callable[[int], None] = lambda _: None) -> None:
    """Raises Outrun where another process moves the checkpoint too."""
    at, tries = projector.checkpoint().position, 0
    while at < until:
        before, tries = at, tries + 1
        if tries > MAX_ATTEMPTS:
            raise CheckpointConflict
        with suppress(CheckpointConflict):  # a batch that was to be written behind was not: it is applied again
            _replay_from(at, projector, log, until, progress)
        at = projector.checkpoint().position
        tries = 0 if at > before else tries


def _replay_from(at: int, projector: Projector, log: EventStore, until: int, progress: Callable[[int], None]) -> None:
    """While one batch is folded the next one is read."""
    with ThreadPoolExecutor(1, thread_name_prefix="reading ahead") as ahead:
        coming = ahead.submit(log.read, at, min(EVENTS_PER_BATCH, until - at)) if at < until else None
        while coming is not None:
            events = coming.result()
            at = events[-1].position
            coming = ahead.submit(log.read, at, min(EVENTS_PER_BATCH, until - at)) if at < until else None
            projector.apply(events, Checkpoint(at))
            progress(at)


# ---- comparing ---------------------------------------------------------------------------------------------------------------------
def _compared(owner: psycopg.Connection, making: _RebuildSubscription) -> tuple[Difference, ...]:
    salt = os.urandom(SALT_BYTES)
    owner.execute(READ_BY_KEY)
    try:
        return tuple(found for table in TABLES_COMPARED if (found := _difference(owner, making, table, salt)) is not None)
    finally:
        owner.execute("reset enable_seqscan")


def _difference(owner: psycopg.Connection, making: _RebuildSubscription, table: ComparedTable, salt: bytes) -> Difference | None:
    """The first one of a table, whose ranges are compared one by one."""
    rows = 0
    for span in ranges(owner, [LIVE_SCHEMA, NEXT_SCHEMA], table):
        count, equal = _equal(owner, making, table, span, salt)
        if not equal and (key := _confirmed(owner, making, table, span)) is not None:
            return Difference(table.name, key)
        rows += count
        making.progress(table.name, rows)
    return None


def _equal(owner: psycopg.Connection, making: _RebuildSubscription, table: ComparedTable, span: Range, salt: bytes) -> tuple[int, bool]:
    """How many rows a range has, and whether they are equal at one position.

    Nobody waits for that: the live digest comes with the position at which it was true, and there the new read models then stand.
    """
    position, live = digest_at(owner, LIVE_SCHEMA, table, span, salt=salt)
    making.follow(position)
    _, made = digest_at(owner, NEXT_SCHEMA, table, span, salt=salt)
    return live.rows, live == made


def _confirmed(owner: psycopg.Connection, making: _RebuildSubscription, table: ComparedTable, span: Range) -> Key | None:
    """The first key that differs while the projector waits; None where none does.

    Results of a large job are hidden ahead of the event that says so (`read_models`), which the projector then applies: so a
    difference counts when nothing is left to do, or when it stays.
    """
    for _ in range(MAX_COMPARISONS):
        with owner.transaction():
            position = _position(owner, LOCK_POSITION)
            making.follow(position)
            key = first_difference(owner, (LIVE_SCHEMA, NEXT_SCHEMA), table, span)
        if key is None or making.is_at_head():
            return key
        time.sleep(COMPARE_AGAIN_SECONDS)
    return key


def _position(connection: psycopg.Connection, query: str = POSITION) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


# ---- changing over -----------------------------------------------------------------------------------------------------------------
def _change_over(owner: psycopg.Connection, making: _RebuildSubscription) -> None:
    """While the live checkpoint is locked nothing moves: the new read models catch up and take the place of the live ones."""
    with owner.transaction():
        owner.execute("lock table read.checkpoint in access exclusive mode")
        making.follow(_position(owner))
        bulk_schema.require_logged(owner, NEXT_SCHEMA)
        owner.execute(COPY_KAFKA_POSITION)
        owner.execute(SQL("alter schema {} rename to {}").format(Identifier(LIVE_SCHEMA), Identifier(OLD_SCHEMA)))
        owner.execute(SQL("alter schema {} rename to {}").format(Identifier(NEXT_SCHEMA), Identifier(LIVE_SCHEMA)))
    owner.execute(NOTIFY_PROJECTED)  # by itself: a notification must not wait for the disk (infrastructure/postgres/wake_ups.py)


def _drop(owner: psycopg.Connection, *schemas: str) -> None:
    for schema in schemas:
        owner.execute(SQL("drop schema if exists {} cascade").format(Identifier(schema)))
