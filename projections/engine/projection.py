"""Read models as pure folds: which rows an event touches, and what becomes of each."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from domain.events import Event

Key = Any  # a UUID, or a tuple that begins with the columns of a longer key
Row = msgspec.Struct
RowLookup = Callable[[str, UUID], Any]
"""The row of another table (by its name and id) as it stands after the event; None where there is none."""


class PositionedEvent(NamedTuple):
    """An event at its place in the log."""

    position: int
    event: Event


class Table(NamedTuple):
    """A read model.

    Events of other `kinds` do not touch it. `keys` names the rows that an event touches; `fold` says what becomes of one of them (None:
    there is none). Both are pure, and take every event of those kinds. A table whose rows are never changed by a later event does not
    load them (`loads`). Where the first row of a key stays for ever (`first_stays`), a later one is not written.

    `fold_version` goes up when the same events make other rows than before: then the read models are made anew.
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


class TouchedRows(NamedTuple):
    table: Table
    keys: Sequence[Key]


class Step(NamedTuple):
    happened: PositionedEvent
    touches: Sequence[TouchedRows]


class TableChanges(NamedTuple):
    """What a batch leaves of one table."""

    table: Table
    upserts: Sequence[Row]
    deletes: Sequence[Key]


def steps(tables: Sequence[Table], events: Iterable[PositionedEvent]) -> list[Step]:
    concerned: dict[type[Event], list[Table]] = {}
    taken: list[Step] = []
    for happened in events:
        kind = type(happened.event)
        if kind not in concerned:
            concerned[kind] = [table for table in tables if issubclass(kind, table.kinds)]
        taken.append(Step(happened, [TouchedRows(table, keys) for table in concerned[kind] if (keys := tuple(table.keys(happened)))]))
    return taken


def needed_rows(batch: Iterable[Step]) -> dict[str, set[Key]]:
    """The rows to load, by table: all that are touched, but for those that begin within the batch."""
    wanted: dict[str, dict[Hashable, Key]] = {}
    begun: set[Hashable] = set()
    for happened, touches in batch:
        if happened.event.originator_version == 1:
            begun.add(happened.event.originator_id.int)
        for table, keys in touches:
            if table.loads:
                indexed = wanted.setdefault(table.name, {})
                indexed.update((index, key) for key in keys if (index := _index(key)) not in begun)
    return {name: set(keys.values()) for name, keys in wanted.items() if keys}


def fold_batch(batch: Iterable[Step], loaded: Mapping[str, Mapping[Key, Row]]) -> list[TableChanges]:
    """Fold the events in their order over the rows that were loaded."""
    tables: dict[str, _Folding] = {name: _Folding({_index(key): row for key, row in rows.items()}) for name, rows in loaded.items()}

    def look(name: str, key: UUID) -> Row | None:
        return tables[name].rows.get(key.int) if name in tables else None

    for happened, touches in batch:
        for table, keys in touches:
            if (mine := tables.get(table.name)) is None:
                mine = tables[table.name] = _Folding({})
            mine.table, rows = table, mine.rows
            for key in keys:
                index = _index(key)
                row = rows[index] = table.fold(key, rows.get(index), happened, look)
                if row is None:
                    mine.gone[index] = key
    return [folding.written(folding.table) for folding in tables.values() if folding.table is not None]


class _Folding:
    """The rows of one table by the index of their key, and the keys of those that were gone at some time."""

    def __init__(self, loaded: Mapping[Hashable, Row]) -> None:
        self.table: Table | None = None
        self._loaded = loaded
        self.rows: dict[Hashable, Row | None] = dict(loaded)
        self.gone: dict[Hashable, Key] = {}

    def written(self, table: Table) -> TableChanges:
        gone = [key for index, key in self.gone.items() if self.rows[index] is None and (not table.loads or index in self._loaded)]
        rows = [row for index, row in self.rows.items() if row is not None and row is not self._loaded.get(index)]
        return TableChanges(table, rows, gone)


def _index(key: Key) -> Hashable:
    """What a key is looked up by: numbers are hashed and compared several times as fast as UUIDs."""
    if type(key) is UUID:
        return key.int
    return tuple(map(_index, key)) if type(key) is tuple else key


def own(happened: PositionedEvent) -> tuple[Key, ...]:
    """The keys of a table that has one row a stream."""
    return (happened.event.originator_id,)
