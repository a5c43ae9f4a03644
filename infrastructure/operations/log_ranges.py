"""Copies of the log in ranges of positions. Events do not change, so each range is copied in its own short transaction."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from application import derivatives
from infrastructure.operations.backup_files import Manifest, Progress, RangeFile, digest_of, range_file, write_hashed

POSITIONS_PER_RANGE: Final = 100_000
"""About 60 MB."""
COLUMNS: Final = """select column_name from information_schema.columns
  where table_schema = %s and table_name = %s and is_generated = 'NEVER' order by ordinal_position"""
BLOB_NAMES: Final = """select distinct match[1] from es.events,
    regexp_matches(convert_from(state, 'UTF8'), '"sha256":"([0-9a-f]{64})"', 'g') match
  where notification_id between %(first)s and %(last)s and topic = 'ImageUploaded'
  union
  select coalesce(nullif(v.version ->> 'package', ''), v.version ->> 'sha256')
    from (select convert_from(state, 'UTF8')::json -> 'version' as version from es.events
      where notification_id between %(first)s and %(last)s and topic = 'ModelVersionAdded') v
    where v.version ->> 'kind' is distinct from 'external'
  union
  select convert_from(e.state, 'UTF8')::json ->> 'sha256' from es.events e
    where e.notification_id between %(first)s and %(last)s and e.topic = 'ModelPackageUploaded' and not exists (
      select from es.stream_events(e.originator_id, 1) answer where answer.notification_id <= %(position)s)"""
"""Of images, of model versions (their packages, or the weights that earlier releases stored), and of packages that await their check.
External versions have no file.

An answer after `position` does not count: in a copy of the log that ends there, the check awaits it."""
READER_VERSIONS: Final = """select distinct u.state ->> 'sha256', coalesce((i.state ->> 'reader')::integer, 1)
  from (select originator_id, convert_from(state, 'UTF8')::json as state from es.events
    where notification_id between %s and %s and topic in ('ImageAccepted', 'ImageReinspected')) i
  join es.streams s on s.stream = i.originator_id
  cross join lateral (select convert_from(e.state, 'UTF8')::json as state from es.event_at(s.first) e where e.topic = 'ImageUploaded') u"""


def columns_of(connection: psycopg.Connection, table: str) -> tuple[str, ...]:
    """The stored columns of a table, which is named with its schema."""
    return tuple(column for (column,) in connection.execute(COLUMNS, table.split(".")).fetchall())


def is_same_log(connection: psycopg.Connection, manifest: Manifest) -> bool:
    """Whether this log continues the log of a backup."""
    row = connection.execute("select encode(ops.log_hash(%s), 'hex')", (manifest.position,)).fetchone()
    return row is not None and row[0] == manifest.hash


def copy_ranges(
    connection: psycopg.Connection,
    position: int,
    columns: Sequence[str],
    folder: Path,
    reusable: Iterable[RangeFile],
    progress: Progress,
    positions_per_range: int = POSITIONS_PER_RANGE,
) -> Iterator[RangeFile]:
    """Copy the events up to `position`. A range in `reusable` is kept if it is full and its file is intact."""
    known = {(range_.first, range_.last): range_ for range_ in reusable}
    ranges = _ranges(position, positions_per_range)
    for number, (first, last) in enumerate(ranges):
        progress("log", number, len(ranges))
        previous = known.get((first, last))
        if previous is not None and digest_of(range_file(folder, first)) == previous.sha256:
            yield previous
            continue
        query = SQL("select {} from es.events where notification_id between {} and {} order by notification_id").format(
            SQL(", ").join(map(Identifier, columns)), first, last
        )
        rows, digest = copy_command(connection, [query], range_file(folder, first))
        yield RangeFile(first, last, rows, digest)


def names_in(connection: psycopg.Connection, position: int, progress: Progress) -> tuple[list[str], list[str]]:
    """The sha256 of all blobs that the log up to `position` names, and the names of all renditions."""
    blob_names: set[str] = set()
    readers: set[tuple[str, int]] = set()
    ranges = _ranges(position)
    for number, between in enumerate(ranges):
        progress("names", number, len(ranges))
        limits = {"first": between[0], "last": between[1], "position": position}
        blob_names.update(sha256 for (sha256,) in connection.execute(BLOB_NAMES, limits))
        readers.update(connection.execute(READER_VERSIONS, between))
    return sorted(blob_names), [name for sha256, reader in sorted(readers) for name in derivatives.of_file(sha256, reader)]


def copy_command(connection: psycopg.Connection, queries: Iterable[SQL | Composed], path: Path) -> tuple[int, str]:
    """Write the rows of the queries to a file; return their number and the sha256 of the file in hexadecimal."""
    rows = 0

    def pieces() -> Iterator[bytes]:
        nonlocal rows
        for query in queries:
            with connection.cursor().copy(SQL("copy ({}) to stdout").format(query)) as copied:
                for piece in copied:
                    rows += 1  # the server sends one row per message
                    yield bytes(piece)

    digest = write_hashed(path, pieces())
    return rows, digest


def _ranges(position: int, size: int = POSITIONS_PER_RANGE) -> list[tuple[int, int]]:
    return [(first, min(first + size - 1, position)) for first in range(1, position + 1, size)]
