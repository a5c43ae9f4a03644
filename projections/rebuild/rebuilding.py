"""The rebuild of read models beside the live ones, and the swap in one transaction, or the comparison of both."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from application.ports import EventStore, RecordedEvent
from domain.errors import Conflict
from infrastructure.postgres.advisory_locks import AdvisoryLock, try_lock, unlock
from projections.engine.checkpoints import Checkpoint, CheckpointConflict
from projections.engine.projector import Projector
from projections.policy_application import PolicyApplication
from projections.rebuild import bulk_schema
from projections.rebuild.digests import (
    LIVE_SCHEMA,
    ROWS_PER_RANGE,
    TABLES_COMPARED,
    ComparedTable,
    Key,
    Range,
    digest_at,
    first_difference,
    ranges,
)

NEXT_SCHEMA, OLD_SCHEMA = "read_next", "read_old"
SALT_BYTES: Final = 32

POSITION = "select position from read.checkpoint where projection = 'main'"
LOCK_POSITION = f"{POSITION} for update"  # the projector waits
READ_BY_KEY = "set enable_seqscan = off"  # reads ranges by key, even without statistics
COPY_KAFKA_POSITION = """update read_next.checkpoint n set cluster = l.cluster, next_offset = l.next_offset
  from read.checkpoint l where l.projection = n.projection"""

NOTIFY_PROJECTED = "select pg_notify('bioscope_projected', position::text) from read.checkpoint where projection = 'main'"

Progress = Callable[[str, int], None]
"""`progress(what, done)`: the number of applied "events", or of compared rows of the table `what`."""


class RebuildLimits(NamedTuple):
    """Batches of `events_per_batch` are large, so that a frequently changed row is written once. Each is tried `max_attempts` times.

    Ranges of `rows_per_range` rows are compared. A range that differs is compared up to `max_comparisons` times while the projector is
    behind the head.
    """

    events_per_batch: int = 4000
    max_attempts: int = 2
    max_comparisons: int = 20
    compare_again_seconds: float = 0.5
    rows_per_range: int = ROWS_PER_RANGE


DEFAULT_LIMITS: Final = RebuildLimits()


class Difference(NamedTuple):
    """A live table that differs from the rebuilt one, and the first differing key."""

    table: str
    key: Key

    def __str__(self) -> str:
        return f"{self.table}, first at {' '.join(map(str, self.key))}"


class RebuildResult(NamedTuple):
    """`events` is the last position that was read. `differing` is empty if nothing was compared."""

    events: int
    differing: tuple[Difference, ...] = ()


class AlreadyRebuilding(Conflict):
    """Another rebuild is in progress."""


def rebuild(
    owner: psycopg.Connection,
    *,
    projector_over: Callable[[str], Projector],
    log: EventStore,
    check: bool,
    progress: Progress = lambda *_: None,
    limits: RebuildLimits = DEFAULT_LIMITS,
) -> RebuildResult:
    """Replace the live read models by rebuilt ones; with `check`, only compare them.

    `owner` is in autocommit mode and may create schemas. `projector_over` creates a projector for the read models in a schema.
    Raises AlreadyRebuilding.
    """
    with rebuild_lock(owner):
        _drop(owner, NEXT_SCHEMA, OLD_SCHEMA)
        owner.execute("call ops.create_read_models(%s)", (NEXT_SCHEMA,))
        omitted = bulk_schema.prepare(owner, NEXT_SCHEMA)
        projector = projector_over(NEXT_SCHEMA)
        rebuilt = _RebuiltModels(owner, projector, log, progress, limits)
        try:
            rebuilt.follow(_position(owner) if check else log.head())
            if check:
                return RebuildResult(rebuilt.position, _compared(owner, rebuilt))
            bulk_schema.finish(owner, NEXT_SCHEMA, omitted)
            rebuilt.follow(log.head())
            rebuilt.apply_policies()
            _swap(owner, rebuilt)
            return RebuildResult(rebuilt.position)
        finally:
            projector.close()
            _drop(owner, NEXT_SCHEMA, OLD_SCHEMA)


@contextmanager
def rebuild_lock(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the rebuild lock during the block. Raises AlreadyRebuilding."""
    if not try_lock(connection, AdvisoryLock.REBUILD):
        raise AlreadyRebuilding("Another rebuild is in progress")
    try:
        yield
    finally:
        unlock(connection, AdvisoryLock.REBUILD)


class _RebuiltModels:
    """The rebuilt read models and their position."""

    def __init__(self, owner: psycopg.Connection, projector: Projector, log: EventStore, progress: Progress, limits: RebuildLimits) -> None:
        self._owner, self._projector, self._log, self.progress, self.limits = owner, projector, log, progress, limits
        self.position = 0

    def follow(self, position: int) -> None:
        """Apply the log up to `position`, or up to its head if that is earlier."""
        until = min(position, self._log.head()) if position > self.position else 0
        if until > self.position:
            replay(self._projector, self._log, until, lambda position: self.progress("events", position), limits=self.limits)
            self.position = until

    def apply_policies(self) -> None:
        """Let all rebuilt results follow the policies of this position, as the live ones do in the background."""
        with _in_schema(self._owner, NEXT_SCHEMA):
            PolicyApplication(self._owner).run_over_everything()

    def is_at_head(self) -> bool:
        return self.position >= self._log.head()


@contextmanager
def _in_schema(owner: psycopg.Connection, schema: str) -> Iterator[None]:
    """In the block, names without a schema are those of `schema`."""
    before = owner.execute("select current_setting('search_path')").fetchone()
    owner.execute(SQL("set search_path to {}").format(Identifier(schema)))
    yield
    owner.execute("select set_config('search_path', %s, false)", before)


def replay(
    projector: Projector,
    log: EventStore,
    until: int,
    progress: Callable[[int], None] = lambda _: None,
    *,
    limits: RebuildLimits = DEFAULT_LIMITS,
) -> None:
    """Apply the log up to position `until`. Raises CheckpointConflict if another process moves the checkpoint too."""
    position, attempts = projector.checkpoint().position, 0
    while position < until:
        before, attempts = position, attempts + 1
        if attempts > limits.max_attempts:
            raise CheckpointConflict
        with suppress(CheckpointConflict):  # a pending batch was not written, so it is applied again
            _replay_from(position, projector, log, until, progress, events_per_batch=limits.events_per_batch)
        position = projector.checkpoint().position
        attempts = 0 if position > before else attempts


def _replay_from(
    position: int, projector: Projector, log: EventStore, until: int, progress: Callable[[int], None], *, events_per_batch: int
) -> None:
    """Apply the log in batches, and read the next batch while one is folded."""
    with ThreadPoolExecutor(1, thread_name_prefix="reading ahead") as thread:

        def read_after(position: int) -> "Future[Sequence[RecordedEvent]] | None":
            return thread.submit(log.read, position, min(events_per_batch, until - position)) if position < until else None

        next_events = read_after(position)
        while next_events is not None:
            events = next_events.result()
            position = events[-1].position
            next_events = read_after(position)
            projector.apply(events, Checkpoint(position))
            progress(position)


# ---- comparing ---------------------------------------------------------------------------------------------------------------------
def _compared(owner: psycopg.Connection, rebuilt: _RebuiltModels) -> tuple[Difference, ...]:
    salt = os.urandom(SALT_BYTES)
    owner.execute(READ_BY_KEY)
    try:
        return tuple(found for table in TABLES_COMPARED if (found := _difference(owner, rebuilt, table, salt)) is not None)
    finally:
        owner.execute("reset enable_seqscan")


def _difference(owner: psycopg.Connection, rebuilt: _RebuiltModels, table: ComparedTable, salt: bytes) -> Difference | None:
    """The first difference of a table, or None. Ranges are compared one after the other."""
    rows = 0
    for span in ranges(owner, [LIVE_SCHEMA, NEXT_SCHEMA], table, rows=rebuilt.limits.rows_per_range):
        count, equal = _equal(owner, rebuilt, table, span, salt)
        if not equal and (key := _confirmed(owner, rebuilt, table, span)) is not None:
            return Difference(table.name, key)
        rows += count
        rebuilt.progress(table.name, rows)
    return None


def _equal(owner: psycopg.Connection, rebuilt: _RebuiltModels, table: ComparedTable, span: Range, salt: bytes) -> tuple[int, bool]:
    """The number of live rows in a range, and whether they equal the rebuilt ones at the same position.

    It blocks no other process: the live digest is read with its position, and the rebuilt read models are then brought to that position.
    """
    position, live = digest_at(owner, LIVE_SCHEMA, table, span, salt=salt)
    rebuilt.follow(position)
    rebuilt.apply_policies()
    _, other = digest_at(owner, NEXT_SCHEMA, table, span, salt=salt)
    return live.rows, live == other


def _confirmed(owner: psycopg.Connection, rebuilt: _RebuiltModels, table: ComparedTable, span: Range) -> Key | None:
    """The first differing key while the projector is locked out; None if there is none.

    The projector hides the results of a large job before it applies the event that deletes the job. So a difference counts only if the
    projector has caught up, or if it persists. It does not count either while live results do not follow a policy yet.
    """
    for _ in range(rebuilt.limits.max_comparisons):
        with _in_schema(owner, LIVE_SCHEMA):
            PolicyApplication(owner).run()
        with owner.transaction(), _in_schema(owner, LIVE_SCHEMA):
            position = _position(owner, LOCK_POSITION)
            rebuilt.follow(position)
            rebuilt.apply_policies()
            key = first_difference(owner, (LIVE_SCHEMA, NEXT_SCHEMA), table, span)
            is_settled = rebuilt.is_at_head() and PolicyApplication(owner).is_done()
        if key is None or is_settled:
            return key
        time.sleep(rebuilt.limits.compare_again_seconds)
    return key


def _position(connection: psycopg.Connection, query: str = POSITION) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


# ---- swapping ---------------------------------------------------------------------------------------------------------------------
def _swap(owner: psycopg.Connection, rebuilt: _RebuiltModels) -> None:
    """Lock the live checkpoint, catch up, and replace the live read models by the rebuilt ones."""
    with owner.transaction():
        owner.execute("lock table read.checkpoint in access exclusive mode")
        rebuilt.follow(_position(owner))
        bulk_schema.require_logged(owner, NEXT_SCHEMA)
        owner.execute(COPY_KAFKA_POSITION)
        owner.execute(SQL("alter schema {} rename to {}").format(Identifier(LIVE_SCHEMA), Identifier(OLD_SCHEMA)))
        owner.execute(SQL("alter schema {} rename to {}").format(Identifier(NEXT_SCHEMA), Identifier(LIVE_SCHEMA)))
    owner.execute(NOTIFY_PROJECTED)  # outside the transaction, see infrastructure/postgres/wake_ups.py


def _drop(owner: psycopg.Connection, *schemas: str) -> None:
    for schema in schemas:
        owner.execute(SQL("drop schema if exists {} cascade").format(Identifier(schema)))
