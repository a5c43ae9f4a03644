"""Make the read models again beside the live ones, compare, and change over in one transaction."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from application.ports import Log
from domain.errors import Conflict
from projections.batches import TABLES
from projections.checkpoints import Checkpoint
from projections.projector import Projector

LIVE, NEXT, OLD = "read", "read_next", "read_old"
LOCK = 0x72656275696C64  # one rebuild at a time
BATCH = 1000

POSITION = "select position from read.checkpoint where projection = 'main'"
DIGEST = """select count(*)::text || ':' || coalesce(md5(string_agg(row, '' order by row)), '')
  from (select md5(t::text) collate "C" as row from {} t) rows"""
TAKE_PLACE = """update read_next.checkpoint n set cluster = l.cluster, next_offset = l.next_offset
  from read.checkpoint l where l.projection = n.projection"""

NOTIFY_PROJECTED = "select pg_notify('bioscope_projected', position::text) from read.checkpoint where projection = 'main'"


class Rebuilt(NamedTuple):
    """`differing`: the tables in which the live read models were not what the log says, at position `events`."""

    events: int
    differing: tuple[str, ...]


class AlreadyRebuilding(Conflict):
    """Another rebuild is under way."""


def digests(connection: psycopg.Connection, *, schema: str = LIVE) -> dict[str, str]:
    """How many rows each read model has, and the MD5 of them all, in an order of its own: the same rows give the same text."""
    return {table.name: _digest(connection, Identifier(schema, table.name)) for table in TABLES}


def _digest(connection: psycopg.Connection, table: Identifier) -> str:
    row = connection.execute(SQL(DIGEST).format(table)).fetchone()
    assert row is not None
    return str(row[0])


def rebuild(
    owner: psycopg.Connection,
    *,
    projector_over: Callable[[str], Projector],
    log: Log,
    check: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> Rebuilt:
    """Compare the live read models, as they stand now, with those made anew; unless `check`, put the new ones in their place.

    `owner` may create schemas, and commits by itself; `projector_over` makes a projector over the read models in a schema.
    Raises AlreadyRebuilding.
    """
    with alone(owner):
        position, live = _live(owner)
        _drop(owner, NEXT, OLD)
        owner.execute("call ops.create_read_models(%s)", (NEXT,))
        projector = projector_over(NEXT)
        try:
            replay(projector, log, min(position, log.head()), progress)
            made = digests(owner, schema=NEXT)
            if not check:
                replay(projector, log, log.head(), progress)
                _change_over(owner, projector, log, progress)
        finally:
            projector.close()
            _drop(owner, NEXT, OLD)
    return Rebuilt(position, tuple(name for name, digest in live.items() if made[name] != digest))


class alone:  # noqa: N801 - reads as a word
    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        row = self._connection.execute("select pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if not (row and row[0]):
            raise AlreadyRebuilding("Another rebuild is under way")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("select pg_advisory_unlock(%s)", (LOCK,))


def _live(owner: psycopg.Connection) -> tuple[int, dict[str, str]]:
    """Position and digests of one moment."""
    with owner.transaction():
        owner.execute("set transaction isolation level repeatable read, read only")
        return _position(owner), digests(owner)


def _position(connection: psycopg.Connection) -> int:
    row = connection.execute(POSITION).fetchone()
    assert row is not None
    return int(row[0])


def replay(projector: Projector, log: Log, until: int, progress: Callable[[int], None] = lambda _: None) -> None:
    """While one batch is written the next one is read."""
    at = projector.checkpoint().position
    with ThreadPoolExecutor(1, thread_name_prefix="reading ahead") as ahead:
        coming = ahead.submit(log.read, at, min(BATCH, until - at)) if at < until else None
        while coming is not None:
            events = coming.result()
            at = events[-1].position
            coming = ahead.submit(log.read, at, min(BATCH, until - at)) if at < until else None
            projector.apply(events, Checkpoint(at))
            progress(at)


def _change_over(owner: psycopg.Connection, projector: Projector, log: Log, progress: Callable[[int], None]) -> None:
    """While the live checkpoint is locked nothing moves: the new read models catch up and take the place of the live ones."""
    with owner.transaction():
        owner.execute("lock table read.checkpoint in access exclusive mode")
        replay(projector, log, min(_position(owner), log.head()), progress)
        owner.execute(TAKE_PLACE)
        owner.execute(SQL("alter schema {} rename to {}").format(Identifier(LIVE), Identifier(OLD)))
        owner.execute(SQL("alter schema {} rename to {}").format(Identifier(NEXT), Identifier(LIVE)))
    owner.execute(NOTIFY_PROJECTED)  # by itself: a notification must not wait for the disk (infrastructure/postgres/wakes.py)


def _drop(owner: psycopg.Connection, *schemas: str) -> None:
    for schema in schemas:
        owner.execute(SQL("drop schema if exists {} cascade").format(Identifier(schema)))
