"""The work queue, as the scheduler sees it: jobs, work items, leases and workers; the port that they come from."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from application.jobs.tasks import Kind, Task
from domain.classification import PlannedImage


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    seen_at: datetime
    slots: int
    lane: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was dispatched and is not done. `urgent`: its job asks for one image. `abandoned`: the failure is in the log already.

    `held_at`: when it was dispatched, or last renewed by a worker.
    """

    id: UUID
    kind: Kind
    job: UUID | None
    number: int | None
    urgent: bool
    attempts: int
    held_at: datetime
    abandoned: bool


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    number: int


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A running job, with its next chunks that were not dispatched yet. `image_id`: it asks for one image."""

    id: UUID
    position: int
    image_id: UUID | None
    waiting: tuple[Chunk, ...]


class OutgoingTask(NamedTuple):
    """A task for a topic."""

    topic: str
    task: Task


class IdRow(msgspec.Struct, frozen=True):
    id: UUID


class ToPlan(msgspec.Struct, frozen=True):
    """A job over a dataset, asked for at `position`."""

    id: UUID
    position: int


class ToFinish(msgspec.Struct, frozen=True):
    id: UUID
    succeeded: int
    failed: int


class ClassifiableImage(msgspec.Struct, frozen=True):
    id: UUID
    sha256: str
    position: int


class SchedulerSnapshot(msgspec.Struct, frozen=True):
    """Everything that may call for something to be done, at one moment. `orphans`: open jobs whose dataset was deleted."""

    now: datetime
    to_plan: list[ToPlan]
    to_finish: list[ToFinish]
    orphans: list[IdRow]
    workers: list[Worker]
    leases: list[Lease]


class WorkQueue(Protocol):
    """What the scheduler reads and remembers: open jobs, waiting work, what was given out, who is there to do it. Blocks."""

    @property
    def closed(self) -> bool:
        """Whether the connection is lost, and the lead with it."""

    def close(self) -> None:
        """Somebody else may lead."""

    def try_to_lead(self) -> bool:
        """Whether we lead from now on, until `close`: one does at a time."""

    def snapshot(self) -> SchedulerSnapshot: ...

    def waiting(self, *, urgent: bool, maximum: int) -> Sequence[OpenJob]:
        """Running jobs with work that nobody was given, the oldest first, each with its first `most` chunks; `urgent`: for one image."""

    def to_inspect(self, maximum: int) -> Sequence[UUID]:
        """The first images that nobody was given to inspect."""

    def jobs(self, ids: Collection[UUID]) -> Mapping[UUID, OpenJob]:
        """Without their chunks."""

    def images_of(self, work: Collection[UUID]) -> Mapping[UUID, tuple[PlannedImage, ...]]: ...

    def deleted(self, images: Collection[UUID]) -> set[UUID]: ...

    def classifiable(self, dataset: UUID, *, after: int, until: int, maximum: int) -> Sequence[ClassifiableImage]:
        """The images of a dataset that can be classified, uploaded between the positions, in the order of their upload."""

    def position_of(self, image: UUID) -> int:
        """The position of its upload."""

    def mark_dispatched(self, tasks: Sequence[OutgoingTask]) -> None:
        """Record what was dispatched, when, and in which attempt."""

    def mark_abandoned(self, work: UUID) -> None: ...

    def delete_done(self) -> None:
        """Delete leases whose work is done."""
