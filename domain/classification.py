"""A job: one model version run over one image or a whole dataset, planned in chunks. Each chunk's results are recorded once."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from itertools import chain
from uuid import UUID

import msgspec

from domain.errors import Conflict, Invalid, Refused
from domain.events import Event, State, new_stream, next_event
from domain.values import ImageWarning, chunk_id

MAX_PART_IMAGES = 500  # images in one ClassificationPlanned
MAX_CHUNK_IMAGES, MIN_CHUNK_IMAGES = 64, 8  # images in one chunk; the last chunk of a plan part may be smaller
TARGET_CHUNKS = 8  # per small plan part, so that several workers share it and results arrive early


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


class Verdict(StrEnum):
    CLEAR = "clear"
    NEEDS_REVIEW = "needs_review"
    OUT_OF_DOMAIN = "out_of_domain"


class PlannedImage(msgspec.Struct, frozen=True):
    id: UUID
    sha256: str


class ClassificationRequested(Event, frozen=True, kw_only=True):
    """A job was requested for a whole dataset, or for the image `image_id` of it. The model version is fixed by this event."""

    dataset_id: UUID
    image_id: UUID | None
    model_id: UUID
    model_name: str
    model_version: int
    model_sha256: str
    threshold: float


class ClassificationPlanned(Event, frozen=True, kw_only=True):
    """Part `part` (0, 1, ...) of the job's plan. Chunk numbers continue through all parts; this part begins with `first_chunk`."""

    part: int
    last: bool
    first_chunk: int
    images: tuple[PlannedImage, ...]


class ClassificationCancelled(Event, frozen=True, kw_only=True):
    pass


class ClassificationCompleted(Event, frozen=True, kw_only=True):
    """Every image has a result or a failure."""

    succeeded: int
    failed: int


class ClassificationFailed(Event, frozen=True, kw_only=True):
    reason: str
    failed: int


class ClassificationDeleted(Event, frozen=True, kw_only=True):
    """The job is hidden with its results, and its remaining work stops. The log keeps its events."""


ENDING = (ClassificationCancelled, ClassificationCompleted, ClassificationFailed, ClassificationDeleted)


class ImageResult(msgspec.Struct, frozen=True, kw_only=True):
    """The prediction for one image. `scores` are in the order of the chunk's labels and sum to 1; `confidence` is from 0 to 1.

    `signals` are measures by name of how far the image is outside the model's domain. `warnings` lists parts of the file that were
    ignored, assumed or converted.
    """

    image_id: UUID
    sha256: str
    label: str
    confidence: float
    verdict: Verdict
    scores: tuple[float, ...]
    signals: dict[str, float] = {}
    warnings: tuple[ImageWarning, ...] = ()


class ImageFailure(msgspec.Struct, frozen=True, kw_only=True):
    image_id: UUID
    reason: str
    detail: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """The model, software and hardware that produced the results; `seconds` is the processing time of the whole chunk."""

    model_sha256: str
    preprocessing: str
    runtime: str
    provider: str
    decoder: str
    cpu: str
    worker: str
    seconds: float


class ChunkJudged(Event, frozen=True, kw_only=True):
    """The results of one chunk. It is the only event of its stream, so results are recorded once, even if a task is delivered twice.

    The job id and the chunk number determine the stream.
    """

    job_id: UUID
    number: int
    dataset_id: UUID
    model_name: str
    model_version: int
    labels: tuple[str, ...]
    results: tuple[ImageResult, ...]
    failures: tuple[ImageFailure, ...]
    provenance: Provenance | None


class Classification(State, frozen=True, kw_only=True):
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


def request(
    job: UUID,
    *,
    dataset: UUID,
    image: PlannedImage | None,
    model_id: UUID,
    model_name: str,
    model_version: int,
    model_sha256: str,
    threshold: float,
    by: UUID,
    at: datetime,
) -> list[Event]:
    """Request a job. A job over one image is planned at once, a job over a dataset when the scheduler has listed its images.

    Raises Invalid for a threshold outside 0 to 1.
    """
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
    )
    if image is None:
        return [requested]
    state = evolve(None, requested)
    assert state is not None
    return [requested, *plan(state, [image], by=by, at=at)]


def plan(job: Classification, images: Sequence[PlannedImage], *, more: bool = False, by: UUID, at: datetime) -> list[Event]:
    """Add `images` to the plan, in parts of at most `MAX_PART_IMAGES`. With `more`, the plan is not complete yet.

    A job without images fails. No event if the job is planned completely, has ended or was deleted.
    """
    if job.planned or job.phase.ended or job.deleted:
        return []
    if not images and not job.parts and not more:
        return [fail(job, reason="The dataset holds no image that can be classified", failed=0, by=by, at=at)]
    events: list[Event] = []
    chunk = job.chunks
    starts = range(0, len(images) or 1, MAX_PART_IMAGES)
    for index, start in enumerate(starts):
        covered = tuple(images[start : start + MAX_PART_IMAGES])
        meta = next_event(job, by=by, at=at, offset=index)
        last = not more and start == starts[-1]
        events.append(ClassificationPlanned(**meta, part=job.parts + index, last=last, first_chunk=chunk, images=covered))
        chunk += len(chunks_of(covered))
    return events


def chunks_of(images: Sequence[PlannedImage]) -> list[Sequence[PlannedImage]]:
    """The images of a plan part, cut into chunks. It depends on the part alone, so that every reader of the plan finds the same chunks."""
    size = min(MAX_CHUNK_IMAGES, max(MIN_CHUNK_IMAGES, -(-len(images) // TARGET_CHUNKS)))
    return [images[start : start + size] for start in range(0, len(images), size)]


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


def fail(job: Classification, *, reason: str, failed: int, by: UUID, at: datetime) -> ClassificationFailed:
    return ClassificationFailed(**next_event(job, by=by, at=at), reason=reason, failed=failed)


def delete(job: Classification, *, by: UUID, at: datetime) -> ClassificationDeleted:
    return ClassificationDeleted(**next_event(job, by=by, at=at))


def record_chunk(
    job: Classification,
    number: int,
    *,
    plan: ClassificationPlanned | None,
    labels: tuple[str, ...],
    results: tuple[ImageResult, ...],
    failures: tuple[ImageFailure, ...],
    provenance: Provenance | None,
    by: UUID,
    at: datetime,
) -> ChunkJudged:
    """The event with the results of chunk `number`. `plan` is the part of the job's plan that contains the chunk.

    Raises Refused if the job has ended, if the chunk was not planned, or if the results do not match its images.
    """
    if job.phase.ended or job.deleted:
        raise Refused("The job has ended")
    judged = ChunkJudged(
        **new_stream(chunk_id(job.id, number), by=by, at=at),
        job_id=job.id,
        number=number,
        dataset_id=job.dataset_id,
        model_name=job.model_name,
        model_version=job.model_version,
        labels=labels,
        results=results,
        failures=failures,
        provenance=provenance,
    )
    if (violation := violation_of(judged, job=job, plan=plan)) is not None:
        raise Refused(violation)
    return judged


def violation_of(judged: ChunkJudged, *, job: Classification | None, plan: ClassificationPlanned | None) -> str | None:
    """The first rule that the results break, as a text; None if they break none.

    `job` and `plan` come from the log: the job that the results name, and the part of its plan with this chunk. Whether the job is still
    open, and whether the chunk has results already, is checked elsewhere. Migration 0010 contains the same rules.
    """
    if job is None or plan is None or plan.originator_id != job.id or judged.job_id != job.id:
        return "the chunk was not planned"
    planned = planned_images(plan, judged.number)
    if planned is None:
        return "the chunk was not planned"
    if judged.originator_id != chunk_id(job.id, judged.number) or judged.originator_version != 1:
        return "the event is not in the stream of its chunk"
    if (judged.dataset_id, judged.model_name, judged.model_version) != (job.dataset_id, job.model_name, job.model_version):
        return "the dataset or the model is not that of the job"
    if judged.provenance is not None and judged.provenance.model_sha256 != job.model_sha256:
        return "the model's sha256 is not that of the job"
    return _wrong_images(judged, {image.id: image.sha256 for image in planned}) or _wrong_scores(judged)


def planned_images(plan: ClassificationPlanned, number: int) -> Sequence[PlannedImage] | None:
    """The images of chunk `number`; None if this part of the plan does not contain it."""
    chunks = chunks_of(plan.images)
    index = number - plan.first_chunk
    return chunks[index] if 0 <= index < len(chunks) else None


def _wrong_images(judged: ChunkJudged, planned: dict[UUID, str]) -> str | None:
    answered = [one.image_id for one in chain[ImageResult | ImageFailure](judged.results, judged.failures)]
    if not planned.keys() >= set(answered):
        return "an image is not in the chunk"
    if len(set(answered)) != len(answered):
        return "an image is answered for twice"
    if any(planned[result.image_id] != result.sha256 for result in judged.results):
        return "an image's sha256 is not the planned one"
    return None


def _wrong_scores(judged: ChunkJudged) -> str | None:
    for result in judged.results:
        if result.label not in judged.labels or len(result.scores) != len(judged.labels):
            return "a result does not fit the labels"
        if not all(0 <= value <= 1 for value in (result.confidence, *result.scores)):
            return "a score is not a number between 0 and 1"
    return None


def verdict_on(confidence: float, *, threshold: float, out_of_domain: bool) -> Verdict:
    if out_of_domain:
        return Verdict.OUT_OF_DOMAIN
    return Verdict.CLEAR if confidence >= threshold else Verdict.NEEDS_REVIEW


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
        case ClassificationCompleted():
            return msgspec.structs.replace(job, version=event.originator_version, updated_at=event.at, phase=JobStatus.COMPLETED)
        case ClassificationFailed():
            return msgspec.structs.replace(job, version=event.originator_version, updated_at=event.at, phase=JobStatus.FAILED)
        case ClassificationDeleted():
            return msgspec.structs.replace(job, version=event.originator_version, updated_at=event.at, deleted=True)
        case _:
            return msgspec.structs.replace(job, version=event.originator_version)
