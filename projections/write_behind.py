"""Read models of which one batch is written while the next one is folded. For a rebuild: nobody waits for a batch of its own."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from projections.batches import Behind, Changes, ReadModels, Target
from projections.checkpoints import Checkpoint, Outrun
from projections.tables import Key, Row, Written


class WriteBehind:
    """The port `projections.batches.ReadModels` over two connections to the same read models: one loads while the other one writes.

    A batch that failed is noticed with the next call, which raises Outrun: the checkpoint is not where it should be. Up to where
    that batch ended everything is then written at once, so that an error is that of the event which it comes from.
    """

    def __init__(self, loading: ReadModels, writing: ReadModels) -> None:
        self._loading, self._writing = loading, writing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing behind")
        self._under_way: Future[None] | None = None
        self._position = 0  # of the batch under way
        self._rows: dict[str, dict[Key, Row | None]] = {}  # as that batch leaves them
        self._at_once_until = 0

    @property
    def closed(self) -> bool:
        return self._loading.closed or self._writing.closed

    def close(self) -> None:
        self._thread.shutdown()
        self._loading.close()
        self._writing.close()

    def target(self) -> Target:
        self._settle()
        return self._writing.target()

    def behind(self) -> Behind:
        self._settle()
        return self._writing.behind()

    def load(self, wanted: Mapping[str, set[Key]]) -> Mapping[str, Mapping[Key, Row]]:
        known = {name: self._rows.get(name, {}) for name in wanted}
        missing = {name: left for name, keys in wanted.items() if (left := keys - known[name].keys())}
        loaded = self._loading.load(missing)
        return {
            name: {**loaded.get(name, {}), **{key: row for key in keys & known[name].keys() if (row := known[name][key]) is not None}}
            for name, keys in wanted.items()
        }

    def write(self, target: Target, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        """Begins to write, once the batch before was written. Raises Outrun where that one failed."""
        if not self._settle():
            raise Outrun
        if target.at.position < self._at_once_until:
            self._writing.write(target, to, changes, generations=generations)
            return
        self._position, self._rows = to.position, dict(map(_left_by, changes.rows))
        self._under_way = self._thread.submit(self._writing.write, target, to, changes, generations=generations)

    @contextmanager
    def held(self) -> Iterator[Target]:
        self._settle()
        with self._writing.held() as target:
            yield target

    def _settle(self) -> bool:
        """Whether the batch under way was written."""
        under_way, self._under_way, self._rows = self._under_way, None, {}
        if under_way is not None and under_way.exception() is not None:
            self._at_once_until = self._position
            return False
        return True


def _left_by(written: Written) -> tuple[str, dict[Key, Row | None]]:
    table, upserts, deletes = written
    if not table.loads:
        return table.name, {}
    return table.name, {**dict.fromkeys(deletes), **{row.id: row for row in upserts}}  # type: ignore[attr-defined]
