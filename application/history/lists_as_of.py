"""Lists of images and results at an earlier position of the log, folded from the streams page by page."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final
from uuid import UUID

import msgspec

from application.ports import EventStore
from domain import dataset, image
from domain.classification import ChunkJudged, ClassificationDeleted, ClassificationRequested, ImageResult, Verdict
from domain.dataset import DatasetDeleted
from domain.errors import NotFound
from domain.image import Image, ImageDeleted, ImageReinspected, ImageUploaded
from domain.values import result_id

MAX_IMAGES: Final = 200  # images folded for one page
MAX_CHUNKS: Final = 20  # chunks read for one page, with up to 64 results each


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A result, and its position in the log. `outdated`: by the requested position, a newer reader had found other pixels."""

    id: UUID
    position: int
    image_id: UUID
    classification_id: UUID
    label: str
    confidence: float
    verdict: Verdict
    scores: dict[str, float]
    model_name: str
    model_version: int
    outdated: bool
    value: float | None


def require_dataset(about: UUID, *, until: int, log: EventStore) -> None:
    """Raises NotFound if there was no such dataset at position `until`."""
    state = log.load(about, dataset.evolve, until=until)
    if state is None or state.deleted:
        raise NotFound(f"There was no dataset {about} at that time")


def require_image_or_job(about: UUID, *, until: int, log: EventStore) -> None:
    """Raises NotFound if there was no such image or job at position `until`."""
    first = log.event(about, 1)
    if first is None or first.position > until or first.type not in {ImageUploaded.__name__, ClassificationRequested.__name__}:
        raise NotFound(f"There was no image or job {about} at that time")
    if log.histories([about], ImageDeleted, ClassificationDeleted, until=until):
        raise NotFound(f"{about} had been deleted at that time")


def images(streams: Collection[UUID], *, until: int, log: EventStore) -> list[Image]:
    """The images `streams` at position `until`, in the order of their uploads, without those deleted by then."""
    events = log.histories(streams, until=until)
    log.prefetch(events)
    found: dict[UUID, Image | None] = {}
    for event in map(log.decode, events):
        found[event.originator_id] = image.evolve(found.get(event.originator_id), event)
    return [one for one in found.values() if one is not None and not one.deleted]


def results(judgements: Collection[int], about: UUID, *, until: int, log: EventStore) -> list[Result]:
    """The results of an image or job at position `until`, oldest first. `judgements` are the positions of ChunkJudged events.

    Results whose image, job or dataset was deleted by then are omitted.
    """
    recorded = log.at(judgements)
    chunks = [(one.position, event) for one in recorded if isinstance(event := log.decode(one), ChunkJudged)]
    found = [(position, event, result) for position, event in chunks for result in _results_about(event, about)]
    deleted, outdated = _deleted_and_outdated(found, until, log)
    return [
        _result(position, event, result, outdated)
        for position, event, result in found
        if deleted.isdisjoint({event.job_id, event.dataset_id, result.image_id})
    ]


PositionedResult = tuple[int, ChunkJudged, ImageResult]


def _results_about(event: ChunkJudged, about: UUID) -> Iterator[ImageResult]:
    return (one for one in event.results if about in {event.job_id, one.image_id})


def _deleted_and_outdated(found: Sequence[PositionedResult], until: int, log: EventStore) -> tuple[set[UUID], set[UUID]]:
    """The images, jobs and datasets that were deleted by position `until`, and the results that were outdated."""
    hosts = {one for _, event, result in found for one in (event.job_id, event.dataset_id, result.image_id)}
    kinds = (ClassificationDeleted, DatasetDeleted, ImageDeleted, ImageReinspected)
    events = [log.decode(one) for one in log.histories(hosts, *kinds, until=until)]
    outdated = {one for event in events if isinstance(event, ImageReinspected) for one in event.outdated}
    return {event.originator_id for event in events if not isinstance(event, ImageReinspected)}, outdated


def _result(position: int, event: ChunkJudged, found: ImageResult, outdated: set[UUID]) -> Result:
    known = result_id(event.job_id, found.image_id)
    return Result(
        id=known,
        position=position,
        image_id=found.image_id,
        classification_id=event.job_id,
        label=found.label,
        confidence=found.confidence,
        verdict=found.verdict,
        scores=dict(zip(event.labels, found.scores, strict=False)),
        model_name=event.model_name,
        model_version=event.model_version,
        outdated=known in outdated,
        value=found.value,
    )
