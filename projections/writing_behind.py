"""Read models that nobody else uses: while a batch of changes is written, the next one is folded."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import structlog

from projections.batches import Behind, Changes, ReadModels, Target
from projections.checkpoints import Checkpoint, Outrun
from projections.tables import Key, Row

log = structlog.get_logger()


class WritingBehind:
    """The port `projections.batches.ReadModels` over two others, of one database: one to read by, one to write by.

    What is under way is read from memory, all else from the database. When a write fails, the next one raises Outrun, so that its
    caller reads the checkpoint again; from then on each is waited for, and raises its own error. When the connection was lost over it,
    whatever is called next raises that.
    """

    def __init__(self, reading: ReadModels, writing: ReadModels) -> None:
        self._reading, self._writing = reading, writing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing behind")
        self._under_way: Future[None] | None = None
        self._rows: dict[str, dict[Key, Row | None]] = {}
        self._careful = False

    @property
    def closed(self) -> bool:
        return self._reading.closed or self._writing.closed

    def close(self) -> None:
        self._thread.shutdown()
        self._reading.close()
        self._writing.close()

    def target(self) -> Target:
        self._settled()
        return self._reading.target()

    def behind(self) -> Behind:
        self._settled()
        return self._reading.behind()

    def load(self, wanted: Mapping[str, set[Key]]) -> dict[str, dict[Key, Row]]:
        here = {name: self._rows.get(name, {}) for name in wanted}
        elsewhere = {name: rest for name, keys in wanted.items() if (rest := keys - here[name].keys())}
        found = {name: dict(rows) for name, rows in self._reading.load(elsewhere).items()}
        for name, keys in wanted.items():
            found.setdefault(name, {}).update({key: row for key in keys & here[name].keys() if (row := here[name][key]) is not None})
        return found

    def write(self, target: Target, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        if not self._settled():
            raise Outrun
        if self._careful:
            return self._writing.write(target, to, changes, generations=generations)
        self._rows = _rows_of(changes)
        self._under_way = self._thread.submit(self._writing.write, target, to, changes, generations=generations)
        return None

    def held(self) -> AbstractContextManager[Target]:
        self._settled()
        self._careful = True
        return self._writing.held()

    def _settled(self) -> bool:
        """Wait for what is under way; False when it failed."""
        under_way, self._under_way, self._rows = self._under_way, None, {}
        error = under_way.exception() if under_way is not None else None
        if error is None:
            return True
        if self._writing.closed:
            raise error
        log.warning("a write failed; now one after the other", error=type(error).__name__)
        self._careful = True
        return False


def _rows_of(changes: Changes) -> dict[str, dict[Key, Row | None]]:
    """What `load` would find of them, were they written."""
    return {
        table.name: {row.id: row for row in upserts} | dict.fromkeys(deletes)  # type: ignore[attr-defined]
        for table, upserts, deletes in changes.rows
        if table.loads
    }
