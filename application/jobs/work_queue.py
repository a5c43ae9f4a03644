"""The port of the scheduler to the work queue, with its rows: jobs, work items, leases and workers."""

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
    """A task that was dispatched and is not done. `urgent`: it belongs to a single-image job.

    `held_at` is the time of the dispatch, or of the last renewal by a worker. `abandoned`: the failure is recorded in the log already.
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
    """A running job with its next chunks to dispatch. `image_id` is set for a single-image job."""

    id: UUID
    position: int
    image_id: UUID | None
    waiting: tuple[Chunk, ...]


class OutgoingTask(NamedTuple):
    """A task, and the topic to send it to."""

    topic: str
    task: Task


class IdRow(msgspec.Struct, frozen=True):
    id: UUID


class ToPlan(msgspec.Struct, frozen=True):
    """A job over a dataset that was requested at `position` and is not planned completely."""

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
    """Everything that may need an action, read at one time. `orphans` are open jobs whose dataset was deleted."""

    now: datetime
    to_plan: list[ToPlan]
    to_finish: list[ToFinish]
    orphans: list[IdRow]
    workers: list[Worker]
    leases: list[Lease]


class WorkQueue(Protocol):
    """Open jobs, waiting work items, leases and workers, stored for the scheduler. Calls block."""

    @property
    def closed(self) -> bool:
        """Whether the connection, and so the lead, is lost."""

    def close(self) -> None:
        """Give up the lead and close the connection."""

    def try_to_lead(self) -> bool:
        """Try to become the leader until `close`. One process at a time leads."""

    def snapshot(self) -> SchedulerSnapshot: ...

    def waiting(self, *, urgent: bool, maximum: int) -> Sequence[OpenJob]:
        """Running jobs with chunks to dispatch, oldest first, each with its first `maximum` chunks. `urgent`: single-image jobs."""

    def to_inspect(self, maximum: int) -> Sequence[UUID]:
        """The first `maximum` images whose inspection was not dispatched yet."""

    def to_check(self, maximum: int) -> Sequence[UUID]:
        """The first `maximum` checks of model packages that were not dispatched yet."""

    def jobs(self, ids: Collection[UUID]) -> Mapping[UUID, OpenJob]:
        """These jobs by id, without their chunks."""

    def images_of(self, work: Collection[UUID]) -> Mapping[UUID, tuple[PlannedImage, ...]]: ...

    def deleted(self, images: Collection[UUID]) -> set[UUID]: ...

    def classifiable(self, dataset: UUID, *, after: int, until: int, maximum: int) -> Sequence[ClassifiableImage]:
        """Classifiable images of a dataset that were uploaded after position `after` and up to `until`, in this order."""

    def position_of(self, image: UUID) -> int:
        """The position of the image's upload."""

    def mark_dispatched(self, tasks: Sequence[OutgoingTask]) -> None:
        """Record the leases of sent tasks, with time and attempt."""

    def mark_abandoned(self, work: UUID) -> None: ...

    def delete_done(self) -> None:
        """Delete the leases of completed work."""
