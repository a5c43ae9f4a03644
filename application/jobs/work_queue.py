"""The port of the scheduler to the work queue, with its rows: jobs, work items, leases and workers."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import msgspec

from application.jobs.tasks import Kind, Task
from domain.classification import Classification, PlannedImage, Priority

EXTERNAL_WORKERS: Final = "external"  # the lane of bridges, which hold the chunks of external classifiers


class Lane(NamedTuple):
    """Jobs that share capacity: over a single image (`urgent`) or over several, run by our workers or by an `external` classifier."""

    urgent: bool
    external: bool = False

    @property
    def workers(self) -> str:
        """The lane of the workers that have this capacity."""
        return EXTERNAL_WORKERS if self.external else "urgent" if self.urgent else "bulk"


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    seen_at: datetime
    slots: int
    lane: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was dispatched and is not done. `urgent`: it belongs to a single-image job, of the person `created_by`.

    `external`: a bridge holds it, no inference worker.
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
    created_by: UUID | None = None
    external: bool = False

    @property
    def lane(self) -> Lane:
        return Lane(urgent=self.urgent, external=self.external)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    number: int


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A running job with its next chunks to dispatch. `image_id` is set for a single-image job."""

    id: UUID
    position: int
    image_id: UUID | None
    created_by: UUID
    waiting: tuple[Chunk, ...]
    priority: Priority = Priority.NORMAL
    external: bool = False


class OutgoingTask(NamedTuple):
    """A task, and the topic to send it to."""

    topic: str
    task: Task


class IdRow(msgspec.Struct, frozen=True):
    id: UUID


class ToPlan(msgspec.Struct, frozen=True):
    """A job over several images that was requested at `position` and is not planned completely."""

    id: UUID
    position: int


class ToFinish(msgspec.Struct, frozen=True):
    id: UUID
    succeeded: int
    failed: int


class Overdue(msgspec.Struct, frozen=True):
    """An open job whose deadline has passed, and how many of its `images` have an answer."""

    id: UUID
    images: int
    succeeded: int
    failed: int


class ImagePage(msgspec.Struct, frozen=True):
    """Images that a job covers, in the order of their upload, of the `seen` images that were looked at.

    `last` is the position of the last one that was looked at. `more`: there are others after it.
    """

    images: tuple[PlannedImage, ...]
    last: int
    seen: int
    more: bool


class JobFile(NamedTuple):
    """The file of an image that a job covers."""

    job: UUID
    sha256: str


class EarlierResult(msgspec.Struct, frozen=True):
    """The result `id`, which the event at `position` recorded for the image `image_id`."""

    id: UUID
    image_id: UUID
    position: int


class SchedulerSnapshot(msgspec.Struct, frozen=True):
    """Everything that may need an action, read at one time. `orphans` are open jobs whose dataset was deleted.

    `to_plan` begins with the jobs of which the fewest images are planned. `external`: a job of an external classifier is open.
    """

    now: datetime
    to_plan: list[ToPlan]
    to_finish: list[ToFinish]
    overdue: list[Overdue]
    orphans: list[IdRow]
    workers: list[Worker]
    leases: list[Lease]
    external: bool = False


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

    def waiting(self, *, urgent: bool, external: bool = False, maximum: int) -> Sequence[OpenJob]:
        """Running jobs with chunks to dispatch, each with its first `maximum` chunks. `urgent`: single-image jobs.

        At most `maximum` jobs of each person: those of the highest priority, and of these the oldest.
        """

    def to_inspect(self, maximum: int) -> Sequence[UUID]:
        """The first `maximum` images whose inspection was not dispatched yet."""

    def to_check(self, maximum: int) -> Sequence[UUID]:
        """The first `maximum` checks of model packages that were not dispatched yet."""

    def jobs(self, ids: Collection[UUID]) -> Mapping[UUID, OpenJob]:
        """These jobs by id, without their chunks."""

    def images_of(self, work: Collection[UUID]) -> Mapping[UUID, tuple[PlannedImage, ...]]: ...

    def deleted(self, images: Collection[UUID]) -> set[UUID]: ...

    def classifiable(self, job: Classification, *, after: int, until: int, maximum: int) -> ImagePage:
        """The images that the job covers, of at most `maximum` that were uploaded after position `after` and up to `until`.

        Deleted and rejected images are left out. What the job's filter says of results is as of `until`, the position of its request.
        """

    def last_position(self, images: Collection[UUID]) -> int:
        """The position of the last upload among these images; 0 for none."""

    def reusable(self, files: Collection[JobFile]) -> Mapping[JobFile, EarlierResult]:
        """A result that the job may repeat, for each file that has one: another job's, of the same file, model version and planes.

        The person who requested the job may read it. Hidden, outdated and reused results are left out, and those of external classifiers,
        whose weights are not known. A job that wants fresh results has none.
        """

    def mark_dispatched(self, tasks: Sequence[OutgoingTask]) -> None:
        """Record the leases of sent tasks, with time and attempt."""

    def mark_abandoned(self, work: UUID) -> None: ...

    def delete_done(self) -> None:
        """Delete the leases of completed work."""
