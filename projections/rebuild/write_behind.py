"""Read models that write a batch while the next one is folded."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import structlog

from projections.engine.batches import Changes, CheckpointToken, ParkedEvents, ReadModels
from projections.engine.checkpoints import Checkpoint, CheckpointConflict
from projections.engine.projection import Key, Row

log = structlog.get_logger()


class WriteBehind:
    """Implements `projections.engine.batches.ReadModels` over other read models that no one else writes to: for a rebuild.

    `write` returns before the batch is written; at most one is pending. If writing fails, the next call raises CheckpointConflict, and
    `write` is synchronous up to the end of that batch, so that its errors belong to its own batch.
    """

    def __init__(self, models: ReadModels) -> None:
        self._models = models
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing behind")
        self._pending: Future[None] | None = None
        self._sync_until = 0

    @property
    def closed(self) -> bool:
        return self._models.closed

    def close(self) -> None:
        """Finish the pending batch, and close."""
        self._thread.shutdown()
        self._models.close()

    def read_checkpoint(self) -> CheckpointToken:
        """Finish the pending batch, and read the checkpoint, which includes that batch if it was written."""
        with suppress(CheckpointConflict):
            self._finish()
        return self._models.read_checkpoint()

    def parked_events(self) -> ParkedEvents:
        self._finish()
        return self._models.parked_events()

    def load(self, keys: Mapping[str, set[Key]]) -> Mapping[str, Mapping[Key, Row]]:
        if not keys:
            return {}
        self._finish()
        return self._models.load(keys)

    def write(self, token: CheckpointToken, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        self._finish()
        if to.position <= self._sync_until:
            self._models.write(token, to, changes, generations=generations)
        else:
            self._pending = self._thread.submit(self._write, token, to, changes, generations)

    @contextmanager
    def locked_checkpoint(self) -> Iterator[CheckpointToken]:
        self._finish()
        with self._models.locked_checkpoint() as token:
            yield token

    def _write(self, token: CheckpointToken, to: Checkpoint, changes: Changes, generations: int) -> None:
        try:
            self._models.write(token, to, changes, generations=generations)
        except Exception as error:
            log.warning("batch not written, applying it again", until=to.position, error=type(error).__name__)
            self._sync_until = to.position
            raise CheckpointConflict from None

    def _finish(self) -> None:
        """Wait for the pending batch. Raises CheckpointConflict if it was not written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
