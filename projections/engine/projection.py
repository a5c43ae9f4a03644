"""Projections as pure folds: the rows that an event touches, and the next state of each row."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from domain.events import Event

Key = Any  # a UUID, or a tuple that begins with the columns of a composite key
Row = msgspec.Struct
RowLookup = Callable[[str, UUID], Any]
"""Gives the row of another table (by name and id) after the event; None if there is none."""


class PositionedEvent(NamedTuple):
    """An event with its position in the log."""

    position: int
    event: Event


def _reads_nothing(_: PositionedEvent) -> Iterable[tuple[str, UUID]]:
    return ()


class Table(NamedTuple):
    """A table of the read models, with the event types (`kinds`) that it reads.

    `keys` gives the keys of the rows that an event touches; `fold` gives the next row for one key, or None to delete it. Both are pure and
    accept every event of these types. `loads`: rows are loaded before the fold, which is required if rows change later. `first_stays`: the
    first row of a key is never replaced. `reads` gives rows of other tables (name and id) that the fold looks up though the event does not
    touch them.

    `fold_version` must be increased when the same events give other rows than before; the read models are then rebuilt.
    """

    name: str
    row: type[Row]
    kinds: tuple[type[Event], ...]
    keys: Callable[[PositionedEvent], Iterable[Key]]
    fold: Callable[[Key, Any, PositionedEvent, RowLookup], Any]
    key: tuple[str, ...] = ("id",)
    loads: bool = True
    first_stays: bool = False
    fold_version: int = 1
    reads: Callable[[PositionedEvent], Iterable[tuple[str, UUID]]] = _reads_nothing


class TouchedRows(NamedTuple):
    table: Table
    keys: Sequence[Key]


class EventStep(NamedTuple):
    positioned: PositionedEvent
    touches: Sequence[TouchedRows]


class TableChanges(NamedTuple):
    """The changes of a batch in one table."""

    table: Table
    upserts: Sequence[Row]
    deletes: Sequence[Key]


def event_steps(tables: Sequence[Table], events: Iterable[PositionedEvent]) -> list[EventStep]:
    concerned: dict[type[Event], list[Table]] = {}
    found: list[EventStep] = []
    for positioned in events:
        kind = type(positioned.event)
        if kind not in concerned:
            concerned[kind] = [table for table in tables if issubclass(kind, table.kinds)]
        found.append(
            EventStep(positioned, [TouchedRows(table, keys) for table in concerned[kind] if (keys := tuple(table.keys(positioned)))])
        )
    return found


def needed_rows(batch: Iterable[EventStep]) -> dict[str, set[Key]]:
    """The keys of the rows to load, by table: all rows that are touched or read, except those of streams that begin in the batch."""
    needed: dict[str, dict[Hashable, Key]] = {}
    created: set[Hashable] = set()
    for positioned, touches in batch:
        if positioned.event.originator_version == 1:
            created.add(positioned.event.originator_id.int)
        for table, keys in touches:
            if table.loads:
                indexed = needed.setdefault(table.name, {})
                indexed.update((index, key) for key in keys if (index := _index(key)) not in created)
            for name, key in table.reads(positioned):
                if key.int not in created:
                    needed.setdefault(name, {})[key.int] = key
    return {name: set(keys.values()) for name, keys in needed.items() if keys}


def fold_batch(batch: Iterable[EventStep], loaded: Mapping[str, Mapping[Key, Row]]) -> list[TableChanges]:
    """Fold the events, in order, over the loaded rows."""
    tables: dict[str, _TableFold] = {name: _TableFold({_index(key): row for key, row in rows.items()}) for name, rows in loaded.items()}

    def lookup(name: str, key: UUID) -> Row | None:
        return tables[name].rows.get(key.int) if name in tables else None

    for positioned, touches in batch:
        for table, keys in touches:
            if (table_fold := tables.get(table.name)) is None:
                table_fold = tables[table.name] = _TableFold({})
            table_fold.table, rows = table, table_fold.rows
            for key in keys:
                index = _index(key)
                row = rows[index] = table.fold(key, rows.get(index), positioned, lookup)
                if row is None:
                    table_fold.deleted[index] = key
    return [table_fold.changes(table_fold.table) for table_fold in tables.values() if table_fold.table is not None]


class _TableFold:
    """The rows of one table by key index, and the keys that were deleted at any time in the batch."""

    def __init__(self, loaded: Mapping[Hashable, Row]) -> None:
        self.table: Table | None = None
        self._loaded = loaded
        self.rows: dict[Hashable, Row | None] = dict(loaded)
        self.deleted: dict[Hashable, Key] = {}

    def changes(self, table: Table) -> TableChanges:
        deletes = [key for index, key in self.deleted.items() if self.rows[index] is None and (not table.loads or index in self._loaded)]
        upserts = [row for index, row in self.rows.items() if row is not None and row is not self._loaded.get(index)]
        return TableChanges(table, upserts, deletes)


def _index(key: Key) -> Hashable:
    """The key as a number, which is hashed and compared several times faster than a UUID."""
    if type(key) is UUID:
        return key.int
    return tuple(map(_index, key)) if type(key) is tuple else key


def stream_key(positioned: PositionedEvent) -> tuple[Key, ...]:
    """The key of a table with one row per stream."""
    return (positioned.event.originator_id,)
