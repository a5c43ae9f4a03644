"""Folding of event batches over the current read models, and the port `ReadModels`, which loads and writes rows."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from application.ports import RecordedEvent
from domain.classification import ClassificationDeleted
from domain.events import Event
from domain.image import ImageDeleted
from domain.registry import ERASING
from projections import (
    activity,
    api_keys,
    classifications,
    datasets,
    devices,
    images,
    invitations,
    model_checks,
    models,
    policies,
    registrations,
    results,
    service_accounts,
    teams,
    users,
    work_items,
)
from projections.engine.checkpoints import Checkpoint
from projections.engine.projection import EventStep, Key, PositionedEvent, Row, Table, TableChanges, event_steps, fold_batch, needed_rows

TABLES: tuple[Table, ...] = (
    users.TABLE,
    registrations.TABLE,
    invitations.TABLE,
    service_accounts.TABLE,
    api_keys.TABLE,
    teams.TABLE,
    teams.MEMBERS,
    datasets.TABLE,
    datasets.ACCESS,
    images.TABLE,
    devices.TABLE,
    models.TABLE,
    model_checks.TABLE,
    classifications.TABLE,
    classifications.FAILURES,
    work_items.TABLE,
    policies.TABLE,
    results.TABLE,
    results.OUTDATED,
    activity.TABLE,  # last, since its fold reads rows of the others
)
FOLD_VERSIONS: Mapping[str, int] = {table.name: table.fold_version for table in TABLES}
ERASING_TYPES = frozenset(kind.__name__ for kind in ERASING)
SCHEDULER_TABLES = {work_items.TABLE.name, classifications.TABLE.name, images.TABLE.name}


class Decoder(Protocol):
    """Decodes events. `decode` raises an error for an undecodable event. Data keys are cached until `forget`."""

    def at(self, positions: Sequence[int]) -> Sequence[RecordedEvent]:
        """The events at these positions, in log order."""

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None: ...

    def decode(self, recorded: RecordedEvent) -> Event: ...

    def forget(self, subject: UUID) -> None: ...


class PoisonEvent(msgspec.Struct, frozen=True):
    """An event that cannot be applied, with the reason."""

    position: int
    stream: UUID
    type: str
    reason: str


class BatchResult(NamedTuple):
    """The effects of a batch, for notifications."""

    position: int
    datasets: frozenset[UUID] = frozenset()
    users: frozenset[UUID] = frozenset()
    tables: frozenset[str] = frozenset()
    dead_letters: tuple[PoisonEvent, ...] = ()

    @property
    def wakes_scheduler(self) -> bool:
        return bool(self.tables & SCHEDULER_TABLES)

    def merge(self, later: "BatchResult") -> "BatchResult":
        return BatchResult(
            later.position,
            self.datasets | later.datasets,
            self.users | later.users,
            self.tables | later.tables,
            self.dead_letters + later.dead_letters,
        )


class CheckpointToken(NamedTuple):
    """The checkpoint and the generation, which increases when rows are changed without moving the checkpoint."""

    checkpoint: Checkpoint
    generation: int


class Changes(NamedTuple):
    """The changes of one transaction: rows, jobs and images whose results are hidden, new dead letters and parked events.

    `resolved` are the positions of dead letters and parked events that were applied.
    """

    rows: Sequence[TableChanges] = ()
    hidden_jobs: Sequence[UUID] = ()
    hidden_images: Sequence[UUID] = ()
    dead_letters: Sequence[PoisonEvent] = ()
    parked: Sequence[RecordedEvent] = ()
    resolved: Sequence[int] = ()


class ParkedEvents(NamedTuple):
    """The stream of each dead letter and of each parked event, by position."""

    dead_letters: Mapping[int, UUID]
    parked: Mapping[int, UUID]

    @property
    def positions(self) -> list[int]:
        """Of dead letters and parked events, in log order."""
        return sorted({*self.dead_letters, *self.parked})


class ReadModels(Protocol):
    """The read models and their checkpoint. Calls block, from one thread at a time. Errors of an unavailable database are not poison."""

    @property
    def closed(self) -> bool:
        """Whether the connection is lost."""

    def close(self) -> None: ...

    def read_checkpoint(self) -> CheckpointToken:
        """The checkpoint. Empty read models get this release's fold versions. Raises CheckpointUnfit, FoldsDiffer."""

    def parked_events(self) -> ParkedEvents: ...

    def load(self, keys: Mapping[str, set[Key]]) -> Mapping[str, Mapping[Key, Row]]:
        """The existing rows, by table and id."""

    def write(self, token: CheckpointToken, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        """Write all changes and move the checkpoint in one transaction.

        Raises CheckpointConflict unless the checkpoint is still `token`, NotInLog unless the log has the hash of `to` at its position,
        and errors of rows that cannot be written.
        """

    def locked_checkpoint(self) -> AbstractContextManager[CheckpointToken]:
        """The current checkpoint, locked for other processes until the block ends. An error rolls back the block."""


def decode_batch(decoder: Decoder, batch: Sequence[RecordedEvent]) -> list[PositionedEvent]:
    """Decode events, after removing destroyed keys from the cache. Raises what `decode` raises."""
    for recorded in batch:
        if recorded.type in ERASING_TYPES:
            decoder.forget(recorded.stream)
    decoder.prefetch(batch)
    return [PositionedEvent(recorded.position, decoder.decode(recorded)) for recorded in batch]


def project(models: ReadModels, batch: Sequence[PositionedEvent]) -> tuple[Changes, BatchResult]:
    """Fold a batch over the current read models; return the changes, and the effects for notifications."""
    batch_steps = event_steps(TABLES, batch)
    written = fold_batch(batch_steps, models.load(needed_rows(batch_steps)))
    jobs = [event.originator_id for _, event in batch if isinstance(event, ClassificationDeleted)]
    images = [event.originator_id for _, event in batch if isinstance(event, ImageDeleted)]
    return Changes(written, jobs, images), batch_result(batch_steps, written, position=batch[-1].position)


def batch_result(batch_steps: Iterable[EventStep], written: Iterable[TableChanges], *, position: int) -> BatchResult:
    activities = [row for changes in written if changes.table is activity.TABLE for row in changes.upserts]
    return BatchResult(
        position=position,
        datasets=frozenset(row.dataset for row in activities if row.dataset),  # type: ignore[attr-defined]
        users=frozenset(key for step in batch_steps for table, keys in step.touches if table is users.TABLE for key in keys),
        tables=frozenset(changes.table.name for changes in written),
    )
