"""The state of a job, and the decisions on it."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from domain.classification.chunk_sizes import MAX_PART_IMAGES, chunks_of
from domain.classification.events import (
    ClassificationCancelled,
    ClassificationCompleted,
    ClassificationDeleted,
    ClassificationFailed,
    ClassificationPlanned,
    ClassificationRequested,
    ImageFilter,
    PlaneSelection,
    PlannedImage,
    Priority,
    Projection,
)
from domain.classification.selection import DEFAULT_OPTIONS, RunOptions, check_options
from domain.errors import Conflict, Invalid
from domain.events import Event, State, new_stream, next_event

MAX_CHANNELS: Final = 16
MAX_PLANE: Final = 1_000_000


class JobStatus(StrEnum):
    """`pending` until the job is planned, `running` until every chunk has its results."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


class Classification(State, frozen=True, kw_only=True):
    """`selected`, `filter`, `path` and `retry_of` choose images of the dataset. `failed` are images; None before the job has ended."""

    dataset_id: UUID
    image_id: UUID | None
    model_id: UUID
    model_name: str
    model_version: int
    model_sha256: str
    threshold: float
    created_by: UUID
    created_at: datetime
    updated_at: datetime
    phase: JobStatus = JobStatus.PENDING
    parts: int = 0
    chunks: int = 0
    images: int = 0
    planned: bool = False
    deleted: bool = False
    planes: PlaneSelection | None = None
    selected: tuple[UUID, ...] = ()
    filter: ImageFilter | None = None
    path: str | None = None
    external: bool = False
    priority: Priority = Priority.NORMAL
    deadline: datetime | None = None
    top_k: int | None = None
    fresh: bool = False
    retry_of: UUID | None = None
    failed: int | None = None


def request(
    job: UUID,
    *,
    dataset: UUID,
    image: PlannedImage | None = None,
    images: tuple[UUID, ...] = (),
    filter: ImageFilter | None = None,  # noqa: A002 - the noun of the field
    path: str | None = None,
    model_id: UUID,
    model_name: str,
    model_version: int,
    model_sha256: str,
    threshold: float,
    planes: PlaneSelection | None = None,
    external: bool = False,
    options: RunOptions = DEFAULT_OPTIONS,
    retry_of: UUID | None = None,
    by: UUID,
    at: datetime,
) -> list[Event]:
    """Request a job. A job over one image is planned at once, any other when the scheduler has listed its images.

    Raises Invalid for a threshold outside 0 to 1, for planes that no image can have, and for wrong options.
    """
    check_options(options, at=at)
    if not 0 <= threshold <= 1:
        raise Invalid("threshold must lie between 0 and 1", errors=[{"loc": ["body", "threshold"], "msg": "must lie between 0 and 1"}])
    requested = ClassificationRequested(
        **new_stream(job, by=by, at=at),
        dataset_id=dataset,
        image_id=image.id if image else None,
        model_id=model_id,
        model_name=model_name,
        model_version=model_version,
        model_sha256=model_sha256,
        threshold=threshold,
        planes=_checked_planes(planes),
        images=images,
        filter=filter,
        path=path,
        external=external,
        priority=options.priority,
        deadline=options.deadline,
        top_k=options.top_k,
        fresh=options.fresh,
        retry_of=retry_of,
    )
    if image is None:
        return [requested]
    state = evolve(None, requested)
    assert state is not None
    return [requested, *plan(state, [image], by=by, at=at)]


def _checked_planes(planes: PlaneSelection | None) -> PlaneSelection | None:
    """None for a selection that leaves everything to the model. Raises Invalid."""
    if planes is None or planes == PlaneSelection():
        return None
    if planes.c is not None and not (1 <= len(planes.c) <= MAX_CHANNELS and len(set(planes.c)) == len(planes.c)):
        raise _invalid_planes("c", f"must be a list of 1 to {MAX_CHANNELS} different channels")
    for axis, numbers in (("z", (planes.z,)), ("c", planes.c or ()), ("t", (planes.t,))):
        if not all(number is None or isinstance(number, Projection) or 0 <= number <= MAX_PLANE for number in numbers):
            raise _invalid_planes(axis, f"must be counted from 0 to {MAX_PLANE:,}")
    return planes


def _invalid_planes(axis: str, message: str) -> Invalid:
    return Invalid(f"planes.{axis} {message}", errors=[{"loc": ["body", "planes", axis], "msg": message}])


def plan(
    job: Classification,
    images: Sequence[PlannedImage],
    *,
    reusable: Sequence[PlannedImage] = (),
    more: bool = False,
    by: UUID,
    at: datetime,
) -> list[Event]:
    """Add images to the plan, in parts of at most `MAX_PART_IMAGES`. With `more`, the plan is not complete yet.

    The `reusable` images, which have results already, come first, in parts of their own. A job without images fails. No event if the job is
    planned completely, has ended or was deleted.
    """
    if job.planned or job.phase.ended or job.deleted:
        return []
    if not images and not reusable and not job.parts and not more:
        return [fail(job, reason=_nothing_selected(job), failed=0, by=by, at=at)]
    parts = [*_parts_of(reusable), *_parts_of(images)] or [()]
    events: list[Event] = []
    chunk = job.chunks
    for index, covered in enumerate(parts):
        meta = next_event(job, by=by, at=at, offset=index)
        last = not more and index == len(parts) - 1
        events.append(ClassificationPlanned(**meta, part=job.parts + index, last=last, first_chunk=chunk, images=covered))
        chunk += len(chunks_of(covered))
    return events


def _parts_of(images: Sequence[PlannedImage]) -> list[tuple[PlannedImage, ...]]:
    return [tuple(images[start : start + MAX_PART_IMAGES]) for start in range(0, len(images), MAX_PART_IMAGES)]


def _nothing_selected(job: Classification) -> str:
    """Why a job without images fails."""
    if job.retry_of is not None:
        return "No image that the earlier job left without a result can be classified"
    if job.selected:
        return "None of the listed images can be classified: they were deleted or rejected"
    if job.filter is not None or job.path is not None:
        return "No image of the dataset matches the filter"
    return "The dataset holds no image that can be classified"


def retry(job: UUID, earlier: Classification, image: PlannedImage | None, *, by: UUID, at: datetime) -> list[Event]:
    """Request a job over the images that an earlier job left without a result, with the same model version, planes and threshold.

    `image` is that of an earlier job over one image. The new job has no deadline. Raises Conflict if the earlier job runs still, was not
    planned completely, or has a result for every image.
    """
    if not earlier.phase.ended:
        raise Conflict(f"The job is {earlier.phase.value}: wait until it has ended, or cancel it")
    if not earlier.planned:
        raise Conflict("The job ended before its images were listed: run it again instead")
    if earlier.phase is JobStatus.COMPLETED and not earlier.failed:
        raise Conflict("Every image of the job has a result")
    return request(
        job,
        dataset=earlier.dataset_id,
        image=image,
        model_id=earlier.model_id,
        model_name=earlier.model_name,
        model_version=earlier.model_version,
        model_sha256=earlier.model_sha256,
        threshold=earlier.threshold,
        planes=earlier.planes,
        external=earlier.external,
        options=RunOptions(priority=earlier.priority, top_k=earlier.top_k, fresh=earlier.fresh),
        retry_of=earlier.id,
        by=by,
        at=at,
    )


def cancel(job: Classification, *, by: UUID, at: datetime) -> ClassificationCancelled:
    if job.phase.ended:
        raise Conflict(f"The job has ended already: {job.phase.value}")
    return ClassificationCancelled(**next_event(job, by=by, at=at))


def complete(job: Classification, *, succeeded: int, failed: int, by: UUID, at: datetime) -> list[Event]:
    """End the job. It fails if no image succeeded. No event if it has ended or was deleted."""
    if job.phase.ended or job.deleted:
        return []
    if not succeeded:
        return [fail(job, reason="No image could be classified", failed=failed, by=by, at=at)]
    return [ClassificationCompleted(**next_event(job, by=by, at=at), succeeded=succeeded, failed=failed)]


def expire(job: Classification, *, answered: int, failed: int, by: UUID, at: datetime) -> list[Event]:
    """End a job whose deadline has passed. `answered` of its images have an answer, `failed` a failure. No event if it has ended."""
    if job.phase.ended or job.deleted:
        return []
    without = "the images were listed" if not job.planned else f"every image had an answer: {answered:,} of {job.images:,} have one"
    return [fail(job, reason=f"The deadline passed before {without}", failed=failed, by=by, at=at)]


def fail(job: Classification, *, reason: str, failed: int, by: UUID, at: datetime) -> ClassificationFailed:
    return ClassificationFailed(**next_event(job, by=by, at=at), reason=reason, failed=failed)


def delete(job: Classification, *, by: UUID, at: datetime) -> ClassificationDeleted:
    return ClassificationDeleted(**next_event(job, by=by, at=at))


def evolve(job: Classification | None, event: Event) -> Classification | None:
    match event:
        case ClassificationRequested():
            return Classification(
                id=event.originator_id,
                version=event.originator_version,
                dataset_id=event.dataset_id,
                image_id=event.image_id,
                model_id=event.model_id,
                model_name=event.model_name,
                model_version=event.model_version,
                model_sha256=event.model_sha256,
                threshold=event.threshold,
                planes=event.planes,
                selected=event.images,
                filter=event.filter,
                path=event.path,
                external=event.external,
                priority=event.priority,
                deadline=event.deadline,
                top_k=event.top_k,
                fresh=event.fresh,
                retry_of=event.retry_of,
                created_by=event.by,
                created_at=event.at,
                updated_at=event.at,
            )
        case _ if job is None:
            return None
        case ClassificationPlanned():
            return msgspec.structs.replace(
                job,
                version=event.originator_version,
                updated_at=event.at,
                phase=JobStatus.RUNNING,
                parts=job.parts + 1,
                chunks=job.chunks + len(chunks_of(event.images)),
                images=job.images + len(event.images),
                planned=event.last,
            )
        case ClassificationCancelled():
            return msgspec.structs.replace(job, version=event.originator_version, updated_at=event.at, phase=JobStatus.CANCELLED)
        case ClassificationCompleted() | ClassificationFailed():
            phase = JobStatus.COMPLETED if isinstance(event, ClassificationCompleted) else JobStatus.FAILED
            return msgspec.structs.replace(job, version=event.originator_version, updated_at=event.at, phase=phase, failed=event.failed)
        case ClassificationDeleted():
            return msgspec.structs.replace(job, version=event.originator_version, updated_at=event.at, deleted=True)
        case _:
            return msgspec.structs.replace(job, version=event.originator_version)
