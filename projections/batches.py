"""A batch of events as statements: rows loaded, folded and written in as few round trips as can be."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier

from application.ports import Recorded
from domain.classification import ClassificationDeleted
from domain.events import Event
from domain.image import ImageDeleted
from domain.user import UserErased
from projections import activity, classifications, datasets, devices, images, models, results, sessions, users, work
from projections.checkpoints import Checkpoint, Outrun
from projections.tables import Happened, Key, Row, Step, Table, Written, folded, needed, steps

TABLES: tuple[Table, ...] = (
    users.TABLE,
    sessions.TABLE,
    datasets.TABLE,
    datasets.ACCESS,
    images.TABLE,
    devices.TABLE,
    models.TABLE,
    classifications.TABLE,
    classifications.FAILURES,
    work.TABLE,
    results.TABLE,
    activity.TABLE,  # last: it looks at the rows of the others
)
WAKES_SCHEDULER = {work.TABLE.name, classifications.TABLE.name, images.TABLE.name}
NAME = "bioscope projector"
OPTIONS = "-c search_path=read -c lock_timeout=5s -c statement_timeout=30s -c idle_in_transaction_session_timeout=5s -c timezone=UTC"


class Decoder(Protocol):
    """Events out of the log. `decode` raises what makes an event undecodable; keys of subjects are remembered until `forget`."""

    def prefetch(self, recorded: Sequence[Recorded]) -> None: ...

    def decode(self, recorded: Recorded) -> Event: ...

    def forget(self, subject: UUID) -> None: ...


class Letter(msgspec.Struct, frozen=True):
    """An event that was set aside, and why."""

    position: int
    stream: UUID
    type: str
    reason: str


class Applied(NamedTuple):
    """What a batch touched: for those who wait for it."""

    position: int
    datasets: frozenset[UUID] = frozenset()
    users: frozenset[UUID] = frozenset()
    tables: frozenset[str] = frozenset()
    letters: tuple[Letter, ...] = ()

    @property
    def wakes_scheduler(self) -> bool:
        return bool(self.tables & WAKES_SCHEDULER)

    def then(self, later: "Applied") -> "Applied":
        return Applied(
            later.position,
            self.datasets | later.datasets,
            self.users | later.users,
            self.tables | later.tables,
            self.letters + later.letters,
        )


class Target(NamedTuple):
    """Where the read models stand: the checkpoint, and the generation that somebody else's changes move."""

    at: Checkpoint
    generation: int


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
            "insert into {table} ({columns}) select {columns} from jsonb_populate_recordset(null::{table}, %s::jsonb)"
            " on conflict ({key}) do update set {sets}"
        )
        .format(**names, sets=SQL(", ").join(sets))
        .as_bytes(),
        delete=SQL("delete from {table} t using jsonb_populate_recordset(null::{table}, %s::jsonb) k where {same}")
        .format(**names, same=SQL(" and ").join(same))
        .as_bytes(),
    )


STATEMENTS = {table.name: _statements(table) for table in TABLES}
ROWS: dict[str, msgspec.json.Decoder[list[Any]]] = {table.name: msgspec.json.Decoder(list[table.row]) for table in TABLES}  # type: ignore[name-defined]
READ_CHECKPOINT = "select position, cluster, next_offset, generation from checkpoint where projection = 'main'"
ADVANCE = "select ops.advance(%s, %s, %s, %s, %s, %s)"
HIDE = "update results set hidden = true where not hidden and (classification_id = any(%s) or image_id = any(%s))"


def connect(url: str, *, schema: str = "read") -> psycopg.Connection:
    """A connection for a projector over the read models in `schema`."""
    options = OPTIONS.replace("search_path=read", f"search_path={schema}")
    return psycopg.connect(url, autocommit=True, options=options, connect_timeout=3, prepare_threshold=2, application_name=NAME)


def read_target(connection: psycopg.Connection, *, lock: bool = False) -> Target:
    """`lock`: until the transaction ends nobody else moves it."""
    row = connection.execute(READ_CHECKPOINT + (" for update" if lock else "")).fetchone()
    assert row is not None
    return Target(Checkpoint(*row[:3]), row[3])


def load(connection: psycopg.Connection, wanted: Mapping[str, set[Key]]) -> dict[str, dict[Key, Row]]:
    """One statement a table, all in one round trip."""
    if not wanted:
        return {}
    with connection.pipeline():
        cursors = {name: connection.execute(STATEMENTS[name].load, (list(keys),)) for name, keys in wanted.items()}
    return {name: {row.id: row for row in ROWS[name].decode(_text(cursor))} for name, cursor in cursors.items()}


def _text(cursor: psycopg.Cursor[Any]) -> str:
    row = cursor.fetchone()
    return str(row[0]) if row else "[]"


Statement = tuple[bytes | str, Sequence[Any]]


def statements_for(written: Iterable[Written], events: Iterable[Event]) -> list[Statement]:
    done: list[Statement] = []
    for table, upserts, deletes in written:
        if upserts:
            done.append((STATEMENTS[table.name].upsert, (msgspec.json.encode(upserts).decode(),)))
        if deletes:
            done.append((STATEMENTS[table.name].delete, (msgspec.json.encode([_named(table, key) for key in deletes]).decode(),)))
    jobs = [event.originator_id for event in events if isinstance(event, ClassificationDeleted)]
    gone = [event.originator_id for event in events if isinstance(event, ImageDeleted)]
    return [*done, (HIDE, (jobs, gone))] if jobs or gone else done


def _named(table: Table, key: Key) -> dict[str, Any]:
    return dict(zip(table.key, key if isinstance(key, tuple) else (key,), strict=True))


def write(connection: psycopg.Connection, target: Target, to: Checkpoint, statements: Sequence[Statement], *, generations: int = 0) -> None:
    """Everything or nothing, in one round trip. Raises Outrun."""
    where = to if to.cluster else Checkpoint(to.position, None, None)  # type: ignore[arg-type]
    try:
        with connection.pipeline(), connection.transaction():
            connection.execute(
                ADVANCE, (target.at.position, target.generation, where.position, where.cluster, where.next_offset, generations)
            )
            for statement, parameters in statements:
                connection.execute(statement, parameters)
    except psycopg.Error as error:
        if error.sqlstate == "BS001":
            raise Outrun from None
        raise


def decoded(decoder: Decoder, batch: Sequence[Recorded]) -> list[Happened]:
    """Raises what `decode` raises. A user who was erased is forgotten first: what was remembered of the key must not serve again."""
    for recorded in batch:
        if recorded.type == UserErased.__name__:
            decoder.forget(recorded.stream)
    decoder.prefetch(batch)
    return [Happened(recorded.position, decoder.decode(recorded)) for recorded in batch]


def project(connection: psycopg.Connection, batch: Sequence[Happened]) -> tuple[list[Statement], Applied]:
    """What a batch does to the read models as they stand, and whom it concerns."""
    taken = steps(TABLES, batch)
    written = folded(taken, load(connection, needed(taken)))
    return statements_for(written, [happened.event for happened in batch]), applied(taken, written, position=batch[-1].position)


def applied(taken: Iterable[Step], written: Iterable[Written], *, position: int) -> Applied:
    touched = [row for one in written if one.table is activity.TABLE for row in one.upserts]
    return Applied(
        position=position,
        datasets=frozenset(row.dataset for row in touched if row.dataset),  # type: ignore[attr-defined]
        users=frozenset(key for step in taken for table, keys in step.touches if table is users.TABLE for key in keys),
        tables=frozenset(one.table.name for one in written),
    )
