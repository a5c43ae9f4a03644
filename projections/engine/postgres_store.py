"""The read models on Postgres, loaded and written in few round trips."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier

from infrastructure.postgres.profiles import READ_MODELS, Profile
from projections.engine.batches import FOLD_VERSIONS, TABLES, Changes, CheckpointToken, ParkedEvents
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, CheckpointUnfit, NotInLog, folds_difference
from projections.engine.projection import Key, Row, Table, TableChanges


class Statements(NamedTuple):
    load: bytes
    upsert: bytes
    delete: bytes


def _statements(table: Table) -> Statements:
    columns = [field.name for field in msgspec.structs.fields(table.row)]
    names = {"table": Identifier(table.name), "key": SQL(", ").join(map(Identifier, table.key))}
    names["columns"] = SQL(", ").join(map(Identifier, columns))
    sets = [SQL("{0} = excluded.{0}").format(Identifier(name)) for name in columns if name not in table.key]
    same = [SQL("t.{0} = k.{0}").format(Identifier(name)) for name in table.key]
    return Statements(
        load=SQL("select coalesce(json_agg(t), '[]')::text from {table} t where {key} = any(%s)").format(**names).as_bytes(),
        upsert=SQL(
            "insert into {table} ({columns}) select {columns} from json_populate_recordset(null::{table}, %s::json)"
            " on conflict ({key}) do {otherwise}"
        )
        .format(**names, otherwise=SQL("update set ") + SQL(", ").join(sets) if sets and not table.first_stays else SQL("nothing"))
        .as_bytes(),
        delete=SQL("delete from {table} t using json_populate_recordset(null::{table}, %s::json) k where {same}")
        .format(**names, same=SQL(" and ").join(same))
        .as_bytes(),
    )


STATEMENTS = {table.name: _statements(table) for table in TABLES}
ROWS: dict[str, msgspec.json.Decoder[list[Any]]] = {table.name: msgspec.json.Decoder(list[table.row]) for table in TABLES}  # type: ignore[name-defined]
READ_CHECKPOINT = """select position, cluster, next_offset, hash, generation, hash is not distinct from ops.log_hash(position),
    (select coalesce(json_object_agg(f.name, f.version), '{}') from folds f) as versions
  from checkpoint where projection = 'main'"""
BEGIN_FOLDS = """insert into folds (name, version) select * from unnest(%s::text[], %s::integer[])
  where not exists (select from folds) and (select position from checkpoint where projection = 'main') = 0 on conflict do nothing"""
ADVANCE = "select ops.advance(%s, %s, %s, %s, %s, %s, %s)"
REFUSALS: dict[str | None, type[Exception]] = {"BS001": CheckpointConflict, "BS002": NotInLog}  # SQLSTATEs of `ops.advance`
HIDE = "update results set hidden = true where not hidden and (classification_id = any(%s) or image_id = any(%s))"
USE_INDEX = "set local enable_seqscan = off"  # after hiding a large job, the planner's statistics are outdated
AFTER = "classification_id = %s and not hidden and (created_at, id) > (%s, %s)"
LOCK_CHECKPOINT = "select from checkpoint where projection = 'main' for update"  # policies change results at the same time
HIDE_RANGE = f"update results set hidden = true where {AFTER} and (created_at, id) <= (%s, %s)"  # noqa: S608 - constants
LAST_OF_RANGE = f"select created_at, id from results where {AFTER} order by created_at, id offset %s limit 1"  # noqa: S608 - constants
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
ROWS_PER_STATEMENT = 1000  # more would exceed the memory of one statement
HIDDEN_ROWS_PER_STATEMENT = 20_000  # all results of a large job would exceed the statement timeout
DEAD_LETTERS = "select position, stream from dead_letters order by position"
PARKED = "select position, stream from parked order by position"
RESOLVE = "with gone as (delete from dead_letters where position = any(%s)) delete from parked where position = any(%s)"
ADD_DEAD_LETTER = """with freed as (delete from parked where position = %s)
  insert into dead_letters (position, stream, type, reason) values (%s, %s, %s, %s)
  on conflict (position) do update set reason = excluded.reason, at = now()"""
PARK = "insert into parked (position, stream) select * from unnest(%s::bigint[], %s::uuid[]) on conflict do nothing"

Statement = tuple[bytes | str, Sequence[Any]]


def connect(url: str, *, schema: str = "read", monitored: bool = False, profile: Profile = READ_MODELS) -> psycopg.Connection:
    """Connect to the read models in `schema`. A monitored connection raises ServerUnresponsive. Raises psycopg.Error."""
    profile = profile.having(search_path=schema)
    return profile.connect(url) if monitored else profile.connect_unmonitored(url)


class PostgresReadModels:
    """Implements `projections.engine.batches.ReadModels`. `fold_versions` are those of this release, by table."""

    def __init__(
        self,
        connection: psycopg.Connection,
        *,
        hidden_rows_per_statement: int = HIDDEN_ROWS_PER_STATEMENT,
        fold_versions: Mapping[str, int] = FOLD_VERSIONS,
    ) -> None:
        self._connection, self._hidden_rows_per_statement, self._fold_versions = connection, hidden_rows_per_statement, fold_versions

    @property
    def closed(self) -> bool:
        return self._connection.closed

    def close(self) -> None:
        self._connection.close()

    def read_checkpoint(self) -> CheckpointToken:
        return self._read_token(READ_CHECKPOINT)

    def parked_events(self) -> ParkedEvents:
        return ParkedEvents(dict(self._connection.execute(DEAD_LETTERS).fetchall()), dict(self._connection.execute(PARKED).fetchall()))

    def load(self, keys: Mapping[str, set[Key]]) -> dict[str, dict[Key, Row]]:
        """Load rows with one statement per table, in one round trip."""
        if not keys:
            return {}
        with self._connection.pipeline():
            cursors = {name: self._connection.execute(STATEMENTS[name].load, (list(ids),)) for name, ids in keys.items()}
        return {name: {row.id: row for row in ROWS[name].decode(_text(cursor))} for name, cursor in cursors.items()}

    def write(self, token: CheckpointToken, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        """Write in one round trip. Very many results are hidden before that in parts, which is harmless if the rest fails."""
        self._hide_ahead(changes)
        cluster, offset = (to.cluster, to.next_offset) if to.cluster else (None, None)
        advance = (token.checkpoint.position, token.generation, to.position, to.hash, cluster, offset, generations)
        try:
            with self._connection.pipeline(), self._connection.transaction():
                self._connection.execute(ADVANCE, advance)
                for statement, parameters in _statements_of(changes):
                    self._connection.execute(statement, parameters)
        except psycopg.Error as error:
            if refusal := REFUSALS.get(error.sqlstate):
                raise refusal from None
            raise

    def _hide_ahead(self, changes: Changes) -> None:
        """Hide the results of large jobs. That is correct even if this batch fails, because the log has deleted them."""
        for job in changes.hidden_jobs:
            after = BEFORE_ALL
            while last := self._connection.execute(LAST_OF_RANGE, (job, *after, self._hidden_rows_per_statement - 1)).fetchone():
                with self._connection.transaction():
                    self._connection.execute(LOCK_CHECKPOINT)
                    self._connection.execute(USE_INDEX)
                    self._connection.execute(HIDE_RANGE, (job, *after, *last))
                after = last

    @contextmanager
    def locked_checkpoint(self) -> Iterator[CheckpointToken]:
        with self._connection.transaction():
            yield self._read_token(READ_CHECKPOINT + " for update")

    def _read_token(self, query: str) -> CheckpointToken:
        row = self._connection.execute(query).fetchone()
        assert row is not None
        *at, generation, fits, folds = row
        if not fits:
            raise CheckpointUnfit(row[0])
        if not folds and row[0] == 0:
            self._connection.execute(BEGIN_FOLDS, (list(self._fold_versions), list(self._fold_versions.values())))
        elif (difference := folds_difference(self._fold_versions, folds)) is not None:
            raise difference
        return CheckpointToken(Checkpoint(*at), generation)


def _text(cursor: psycopg.Cursor[Any]) -> str:
    row = cursor.fetchone()
    return str(row[0]) if row else "[]"


def _statements_of(changes: Changes) -> list[Statement]:
    statements = [statement for written in changes.rows for statement in _row_statements(written)]
    if changes.hidden_jobs or changes.hidden_images:
        statements += [(USE_INDEX, ()), (HIDE, (list(changes.hidden_jobs), list(changes.hidden_images)))]
    if changes.resolved:
        statements.append((RESOLVE, (list(changes.resolved), list(changes.resolved))))
    statements += [
        (ADD_DEAD_LETTER, (letter.position, letter.position, letter.stream, letter.type, letter.reason)) for letter in changes.dead_letters
    ]
    if changes.parked:
        statements.append((PARK, ([event.position for event in changes.parked], [event.stream for event in changes.parked])))
    return statements


def _row_statements(written: TableChanges) -> Iterator[Statement]:
    table, upserts, deletes = written
    for start in range(0, len(upserts), ROWS_PER_STATEMENT):
        yield STATEMENTS[table.name].upsert, (msgspec.json.encode(upserts[start : start + ROWS_PER_STATEMENT]).decode(),)
    if deletes:
        yield STATEMENTS[table.name].delete, (msgspec.json.encode([_key_columns(table, key) for key in deletes]).decode(),)


def _key_columns(table: Table, key: Key) -> dict[str, Any]:
    return dict(zip(table.key, key if isinstance(key, tuple) else (key,), strict=True))
