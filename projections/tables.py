"""Read models as pure folds: which rows an event touches, and what becomes of each."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from domain.events import Event

Key = Any  # a UUID, or a tuple that begins with the columns of a longer key
Row = msgspec.Struct
Look = Callable[[str, UUID], Any]
"""The row of another table (by its name and id) as it stands after the event; None where there is none."""


class Happened(NamedTuple):
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
    keys: Callable[[Happened], Iterable[Key]]
    fold: Callable[[Key, Any, Happened, Look], Any]
    key: tuple[str, ...] = ("id",)
    loads: bool = True
    first_stays: bool = False
    fold_version: int = 1


class Touched(NamedTuple):
    table: Table
    keys: Sequence[Key]


class Step(NamedTuple):
    happened: Happened
    touches: Sequence[Touched]


class Written(NamedTuple):
    """What a batch leaves of one table."""

    table: Table
    upserts: Sequence[Row]
    deletes: Sequence[Key]


def steps(tables: Sequence[Table], events: Iterable[Happened]) -> list[Step]:
    concerned: dict[type[Event], list[Table]] = {}
    taken: list[Step] = []
    for happened in events:
        kind = type(happened.event)
        if kind not in concerned:
            concerned[kind] = [table for table in tables if issubclass(kind, table.kinds)]
        taken.append(Step(happened, [Touched(table, keys) for table in concerned[kind] if (keys := tuple(table.keys(happened)))]))
    return taken


def needed(batch: Iterable[Step]) -> dict[str, set[Key]]:
    """The rows to load, by table: all that are touched, but for those that begin within the batch."""
    wanted: dict[str, set[Key]] = {}
    begun: set[Hashable] = set()
    for happened, touches in batch:
        if happened.event.originator_version == 1:
            begun.add(happened.event.originator_id)
        for table, keys in touches:
            if table.loads:
                wanted.setdefault(table.name, set()).update(key for key in keys if key not in begun)
    return {name: keys for name, keys in wanted.items() if keys}


def folded(batch: Iterable[Step], loaded: Mapping[str, Mapping[Key, Row]]) -> list[Written]:
    """Fold the events in their order over the rows that were loaded."""
    tables: dict[str, Table] = {}
    rows: dict[str, dict[Key, Row | None]] = {name: dict(found) for name, found in loaded.items()}

    def look(name: str, key: UUID) -> Row | None:
        return rows[name].get(key) if name in rows else None

    for happened, touches in batch:
        for table, keys in touches:
            tables[table.name] = table
            mine = rows.setdefault(table.name, {})
            for key in keys:
                mine[key] = table.fold(key, mine.get(key), happened, look)
    return [_written(table, rows[name], loaded.get(name, {})) for name, table in tables.items()]


def _written(table: Table, rows: Mapping[Key, Row | None], loaded: Mapping[Key, Row]) -> Written:
    changed = {key: row for key, row in rows.items() if row is not loaded.get(key) or row is None}
    gone = [key for key, row in changed.items() if row is None and (key in loaded or not table.loads)]
    return Written(table, [row for row in changed.values() if row is not None], gone)


def own(happened: Happened) -> tuple[Key, ...]:
    """The keys of a table that has one row a stream."""
    return (happened.event.originator_id,)
