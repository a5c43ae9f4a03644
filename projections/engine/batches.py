"""A batch of events, folded over the read models as they stand: what has to be loaded for it, and what it changes."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from application.ports import RecordedEvent
from domain.classification import ClassificationDeleted
from domain.events import Event
from domain.image import ImageDeleted
from domain.user import UserErased
from projections import activity, classifications, datasets, devices, images, models, results, sessions, users, work_items
from projections.engine.checkpoints import Checkpoint
from projections.engine.projection import Key, PositionedEvent, Row, Step, Table, TableChanges, fold_batch, needed_rows, steps

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
    work_items.TABLE,
    results.TABLE,
    results.OUTDATED,
    activity.TABLE,  # last: it looks at the rows of the others
)
FOLD_VERSIONS: Mapping[str, int] = {table.name: table.fold_version for table in TABLES}
WAKES_SCHEDULER = {work_items.TABLE.name, classifications.TABLE.name, images.TABLE.name}


class Decoder(Protocol):
    """Events out of the log. `decode` raises what makes an event undecodable; keys of subjects are remembered until `forget`."""

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None: ...

    def decode(self, recorded: RecordedEvent) -> Event: ...

    def forget(self, subject: UUID) -> None: ...


class PoisonEvent(msgspec.Struct, frozen=True):
    """An event that was set aside, and why."""

    position: int
    stream: UUID
    type: str
    reason: str


class BatchResult(NamedTuple):
    """What a batch touched: for those who wait for it."""

    position: int
    datasets: frozenset[UUID] = frozenset()
    users: frozenset[UUID] = frozenset()
    tables: frozenset[str] = frozenset()
    letters: tuple[PoisonEvent, ...] = ()

    @property
    def wakes_scheduler(self) -> bool:
        return bool(self.tables & WAKES_SCHEDULER)

    def merge(self, later: "BatchResult") -> "BatchResult":
        return BatchResult(
            later.position,
            self.datasets | later.datasets,
            self.users | later.users,
            self.tables | later.tables,
            self.letters + later.letters,
        )


class CheckpointToken(NamedTuple):
    """Where the read models stand: the checkpoint, and the generation that somebody else's changes move."""

    at: Checkpoint
    generation: int


class Changes(NamedTuple):
    """Of one transaction: rows, results hidden with their job or image, events set aside or parked, and those healed (positions)."""

    rows: Sequence[TableChanges] = ()
    hidden_jobs: Sequence[UUID] = ()
    hidden_images: Sequence[UUID] = ()
    aside: Sequence[PoisonEvent] = ()
    parked: Sequence[RecordedEvent] = ()
    healed: Sequence[int] = ()


class ParkedEvents(NamedTuple):
    """Dead letters and parked events: the stream of each, by position."""

    letters: Mapping[int, UUID]
    parked: Mapping[int, UUID]

    @property
    def streams(self) -> set[UUID]:
        return {*self.letters.values(), *self.parked.values()}


class ReadModels(Protocol):
    """The read models, and how far they are; one user at a time. Calls block; what they raise when the database is away is not poison."""

    @property
    def closed(self) -> bool:
        """Whether the connection is lost: then open another one."""

    def close(self) -> None: ...

    def target(self) -> CheckpointToken:
        """Where no event was applied yet, the read models become those of this release. Raises CheckpointUnfit, FoldsDiffer."""

    def behind(self) -> ParkedEvents: ...

    def load(self, wanted: Mapping[str, set[Key]]) -> Mapping[str, Mapping[Key, Row]]:
        """Rows by table and id; those that are not there are left out."""

    def write(self, target: CheckpointToken, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        """Everything or nothing, if the checkpoint still is `target`, and the log has the hash of `to` there.

        Raises Outrun, NotInLog, or what makes a row unwritable.
        """

    def held(self) -> AbstractContextManager[CheckpointToken]:
        """The checkpoint as it stands. Nobody else moves it until the block ends, or `write` raises Outrun; an error undoes the block."""


def decoded(decoder: Decoder, batch: Sequence[RecordedEvent]) -> list[PositionedEvent]:
    """Raises what `decode` raises. A user who was erased is forgotten first: what was remembered of the key must not serve again."""
    for recorded in batch:
        if recorded.type == UserErased.__name__:
            decoder.forget(recorded.stream)
    decoder.prefetch(batch)
    return [PositionedEvent(recorded.position, decoder.decode(recorded)) for recorded in batch]


def project(models: ReadModels, batch: Sequence[PositionedEvent]) -> tuple[Changes, BatchResult]:
    """What a batch does to the read models as they stand, and whom it concerns."""
    taken = steps(TABLES, batch)
    written = fold_batch(taken, models.load(needed_rows(taken)))
    jobs = [event.originator_id for _, event in batch if isinstance(event, ClassificationDeleted)]
    images = [event.originator_id for _, event in batch if isinstance(event, ImageDeleted)]
    return Changes(written, jobs, images), applied(taken, written, position=batch[-1].position)


def applied(taken: Iterable[Step], written: Iterable[TableChanges], *, position: int) -> BatchResult:
    touched = [row for one in written if one.table is activity.TABLE for row in one.upserts]
    return BatchResult(
        position=position,
        datasets=frozenset(row.dataset for row in touched if row.dataset),  # type: ignore[attr-defined]
        users=frozenset(key for step in taken for table, keys in step.touches if table is users.TABLE for key in keys),
        tables=frozenset(one.table.name for one in written),
    )
