"""Digests of read models: equal for equal rows in any order, and additive over ranges of keys.

Each row contributes the first two 64-bit words of the sha256 of its text, summed separately. Chosen rows could produce given sums,
so each comparison adds a random salt to the texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from projections.engine.batches import TABLES

LIVE_SCHEMA: Final = "read"
ROWS_PER_RANGE: Final = 20_000  # takes some tenths of a second

Key = tuple[Any, ...]

NEXT_BOUND: Final = "select {key} from {table} t where {within} and {counts} order by {key} offset %(rows)s limit 1"
DIGEST: Final = """select (select c.position from {schema}.checkpoint c where c.projection = 'main'), count(*),
    coalesce(sum(('x' || encode(substr(row, 1, 8), 'hex'))::bit(64)::bigint), 0),
    coalesce(sum(('x' || encode(substr(row, 9, 8), 'hex'))::bit(64)::bigint), 0)
  from (select sha256(%(salt)s || convert_to(t::text, 'UTF8')) as row from {table} t where {within} and {counts}) rows"""
FIRST_DIFFERENCE: Final = """select {key} from (select * from {one} t where {within} and {counts}) a
  full join (select * from {other} t where {within} and {counts}) b using ({key})
  where a::text is distinct from b::text order by {key} limit 1"""


class ComparedTable(NamedTuple):
    """A table of the read models with its key. Only rows that match the condition `counts` are compared."""

    name: str
    key: tuple[str, ...]
    counts: str = "true"


STATISTICS_KEY: Final = ("dataset_id", "day", "model_name", "model_version", "device_id", "label", "verdict")
TABLES_COMPARED: Final = (
    *(ComparedTable(table.name, table.key) for table in TABLES),
    ComparedTable("effective_access", ("subject", "dataset")),
    ComparedTable("tallies", ("dataset_id", "minute"), counts="count <> 0"),  # an empty row may exist or not, also of statistics
    ComparedTable("statistics", STATISTICS_KEY, counts="count <> 0"),
)


class Digest(NamedTuple):
    """The digest of some rows: their number, and two sums over the rows."""

    rows: int = 0
    high: int = 0
    low: int = 0

    def merged(self, other: "Digest") -> "Digest":
        """The digest of both sets of rows, which must be disjoint."""
        return Digest(self.rows + other.rows, self.high + other.high, self.low + other.low)


class Range(NamedTuple):
    """The keys after `after`, up to and including `until`; None is no bound."""

    after: Key | None
    until: Key | None


def digests(connection: psycopg.Connection, *, schema: str = LIVE_SCHEMA, salt: bytes = b"") -> dict[str, Digest]:
    """The digest of each read model. Comparable only while the rows do not change."""
    return {table.name: _of_table(connection, schema, table, salt) for table in TABLES_COMPARED}


def _of_table(connection: psycopg.Connection, schema: str, table: ComparedTable, salt: bytes) -> Digest:
    total = Digest()
    for span in ranges(connection, [schema], table):
        total = total.merged(digest_at(connection, schema, table, span, salt=salt)[1])
    return total


def ranges(connection: psycopg.Connection, schemas: Sequence[str], table: ComparedTable, *, rows: int = ROWS_PER_RANGE) -> Iterator[Range]:
    """Ranges that cover all keys. In each of `schemas`, a range has at most `rows` rows, provided that the table does not change."""
    after: Key | None = None
    while True:
        bounds = [bound for schema in schemas if (bound := _next_bound(connection, schema, table, after, rows)) is not None]
        yield Range(after, min(bounds, default=None))
        if not bounds:
            return
        after = min(bounds)


def digest_at(connection: psycopg.Connection, schema: str, table: ComparedTable, span: Range, *, salt: bytes) -> tuple[int, Digest]:
    """The digest of the rows in a range, and the position of the checkpoint in the same snapshot."""
    query = _query(DIGEST, table, span, schema=Identifier(schema), table=Identifier(schema, table.name))
    position, *digest = _row(connection, query, _bounds(span) | {"salt": salt})
    return position, Digest(*map(int, digest))


def first_difference(connection: psycopg.Connection, schemas: tuple[str, str], table: ComparedTable, span: Range) -> Key | None:
    """The smallest key in a range whose rows differ or exist in only one of the schemas."""
    first, second = (Identifier(schema, table.name) for schema in schemas)
    return _found(connection, _query(FIRST_DIFFERENCE, table, span, one=first, other=second), _bounds(span))


def _next_bound(connection: psycopg.Connection, schema: str, table: ComparedTable, after: Key | None, rows: int) -> Key | None:
    span = Range(after, None)
    query = _query(NEXT_BOUND, table, span, table=Identifier(schema, table.name))
    return _found(connection, query, _bounds(span) | {"rows": rows - 1})


def _query(text: str, compared: ComparedTable, span: Range, **names: Composable) -> Composed:
    key = SQL(", ").join(map(Identifier, compared.key))
    within = SQL(" and ").join(
        SQL("({}) {} ({})").format(key, SQL(sign), SQL(", ").join(SQL(f"%({bound}{index})s") for index in range(len(compared.key))))
        for bound, sign, value in (("after", ">", span.after), ("until", "<=", span.until))
        if value is not None
    )
    none = SQL("true") if span == Range(None, None) else within
    return SQL(text).format(key=key, within=none, counts=SQL(compared.counts), **names)


def _bounds(span: Range) -> dict[str, Any]:
    bounds = {"after": span.after or (), "until": span.until or ()}
    return {f"{bound}{index}": value for bound, values in bounds.items() for index, value in enumerate(values)}


def _row(connection: psycopg.Connection, query: Composed, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row


def _found(connection: psycopg.Connection, query: Composed, parameters: Mapping[str, Any]) -> Key | None:
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else tuple(row)
