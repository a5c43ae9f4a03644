"""The read model of work items: chunks to classify, images to inspect and models to check. Completed work has no row."""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from application.jobs.tasks import Kind
from domain.classification import ChunkJudged, ClassificationPlanned, PlannedImage, chunks_of
from domain.image import ImageAccepted, ImageDeleted, ImageRejected, ImageUploaded
from domain.model_check import ModelCheckFailed, ModelCheckPassed, ModelPackageUploaded, ModelTestRequested
from domain.values import chunk_id
from projections.engine.projection import PositionedEvent, RowLookup, Table


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A work item. `id` is that of the chunk, image or check; `job` and `number` are set for a chunk, `dataset_id` not for a check."""

    id: UUID
    kind: Kind
    job: UUID | None
    number: int | None
    dataset_id: UUID | None
    images: tuple[PlannedImage, ...]
    position: int


def keys(positioned: PositionedEvent) -> Iterable[UUID]:
    match positioned.event:
        case ImageUploaded() | ImageAccepted() | ImageRejected() | ImageDeleted() as event:
            return (event.originator_id,)
        case ModelPackageUploaded() | ModelTestRequested() | ModelCheckPassed() | ModelCheckFailed() as event:
            return (event.originator_id,)
        case ChunkJudged() as event:
            return (chunk_id(event.job_id, event.number),)
        case ClassificationPlanned() as event:
            numbers = range(event.first_chunk, event.first_chunk + len(chunks_of(event.images)))
            return [chunk_id(event.originator_id, number) for number in numbers]
        case _:
            return ()


def fold(key: UUID, _: Work | None, positioned: PositionedEvent, lookup: RowLookup) -> Work | None:
    match positioned.event:
        case ImageUploaded() as event:
            images = (PlannedImage(key, event.sha256),)
            return Work(
                id=key, kind=Kind.INSPECT, job=None, number=None, dataset_id=event.dataset_id, images=images, position=positioned.position
            )
        case ModelPackageUploaded() | ModelTestRequested():
            return Work(id=key, kind=Kind.CHECK, job=None, number=None, dataset_id=None, images=(), position=positioned.position)
        case ClassificationPlanned() as event:
            return _chunk(key, event, positioned.position, lookup)
        case _:
            return None


def _chunk(key: UUID, event: ClassificationPlanned, position: int, lookup: RowLookup) -> Work | None:
    job = lookup("classifications", event.originator_id)
    if job is None:
        return None
    for number, images in enumerate(chunks_of(event.images), event.first_chunk):
        if chunk_id(event.originator_id, number) == key:
            return Work(
                id=key,
                kind=Kind.CLASSIFY,
                job=event.originator_id,
                number=number,
                dataset_id=job.dataset_id,
                images=tuple(images),
                position=position,
            )
    return None


KINDS = (
    ClassificationPlanned,
    ChunkJudged,
    ImageUploaded,
    ImageAccepted,
    ImageRejected,
    ImageDeleted,
    ModelPackageUploaded,
    ModelTestRequested,
    ModelCheckPassed,
    ModelCheckFailed,
)
TABLE = Table("work", Work, KINDS, keys, fold, loads=False)
