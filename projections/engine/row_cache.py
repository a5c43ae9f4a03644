"""A cache of read model rows, so that few rows are loaded again. It also remembers which rows do not exist."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from projections.engine.batches import TABLES, Changes, CheckpointToken, ParkedEvents, ReadModels
from projections.engine.checkpoints import Checkpoint
from projections.engine.projection import Key, Row, TableChanges

MAX_ROWS: Final = 20_000  # of all tables, the most recently used

LOADED: Final = {table.name for table in TABLES if table.loads}

RowKey = tuple[str, int]
"""Table name, and the row's id as a number, which is hashed faster."""

ABSENT: Final = Row()
"""In the place of a row that does not exist."""


class RowCache:
    """Implements `projections.engine.batches.ReadModels` over other read models that only this cache uses.

    A process that changes rows moves the checkpoint or its generation, which makes other `write`s fail. So while `write` succeeds, cached
    rows equal those of the database. A failed `write` clears the cache, and so does reading the checkpoint, which follows any error.
    """

    def __init__(self, models: ReadModels, *, max_rows: int = MAX_ROWS) -> None:
        self._models, self._max_rows = models, max_rows
        self._rows: OrderedDict[RowKey, Row] = OrderedDict()

    @property
    def closed(self) -> bool:
        return self._models.closed

    def close(self) -> None:
        self._models.close()

    def read_checkpoint(self) -> CheckpointToken:
        self._rows.clear()
        return self._models.read_checkpoint()

    def parked_events(self) -> ParkedEvents:
        return self._models.parked_events()

    def load(self, keys: Mapping[str, set[Key]]) -> dict[str, dict[Key, Row]]:
        found: dict[str, dict[Key, Row]] = {}
        missing: dict[str, set[Key]] = {}
        for name, ids in keys.items():
            found[name] = {}
            for key in ids:
                if (row := self._rows.get((name, key.int))) is not None:
                    self._rows.move_to_end((name, key.int))
                    if row is not ABSENT:
                        found[name][key] = row
                else:
                    missing.setdefault(name, set()).add(key)
        for name, rows in self._models.load(missing).items():
            found[name].update(rows)
            self._rows.update(((name, key.int), rows.get(key, ABSENT)) for key in missing[name])
        return found

    def write(self, token: CheckpointToken, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        try:
            self._models.write(token, to, changes, generations=generations)
        except BaseException:
            self._rows.clear()
            raise
        for written in changes.rows:
            self._keep(written)
        while len(self._rows) > self._max_rows:
            self._rows.popitem(last=False)

    def _keep(self, written: TableChanges) -> None:
        name = written.table.name
        if name not in LOADED:
            return
        for row in written.upserts:
            key = (name, row.id.int)  # type: ignore[attr-defined]
            self._rows[key] = row
            self._rows.move_to_end(key)
        for key in written.deletes:
            self._rows[(name, key.int)] = ABSENT

    @contextmanager
    def locked_checkpoint(self) -> Iterator[CheckpointToken]:
        self._rows.clear()
        try:
            with self._models.locked_checkpoint() as token:
                yield token
        except BaseException:
            self._rows.clear()
            raise
