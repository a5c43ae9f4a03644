"""The results of one chunk: the decision that records them, and the rules that they must follow."""

from datetime import datetime
from itertools import chain
from math import isfinite
from uuid import UUID

from domain.classification.chunk_sizes import planned_images
from domain.classification.events import (
    EXTERNAL_RUNTIME,
    ChunkJudged,
    ClassificationPlanned,
    ImageFailure,
    ImageResult,
    Provenance,
    Verdict,
)
from domain.classification.job import Classification
from domain.errors import Refused
from domain.events import new_stream
from domain.values import chunk_id


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


def violation_of(
    judged: ChunkJudged,
    *,
    job: Classification | None,
    plan: ClassificationPlanned | None,
    labels: tuple[str, ...] | None = None,
    needs_provenance: bool = True,
) -> str | None:
    """The first rule that the results break, as a text; None if they break none.

    `job` and `plan` come from the log: the job that the results name, and the part of its plan with this chunk. `labels` are those of the
    version that an external job runs; None if they are not to be compared. Earlier releases took computed results without provenance: they
    pass if not `needs_provenance`. Whether the job is still open, and whether the chunk has
    results already, is checked elsewhere. Migration 0024 contains the same rules.
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
    if needs_provenance and judged.provenance is None and any(result.reused is None for result in judged.results):
        return "nothing says what computed the results"
    wrong_scores = _wrong_external(judged, job, labels) if job.external else _wrong_scores(judged)
    return _wrong_images(judged, {image.id: image.sha256 for image in planned}) or wrong_scores


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
        if result.value is not None and not isfinite(result.value):
            return "a value is not a number"
        if result.reused is not None and judged.provenance is not None:
            return "a repeated result names what computed it"
    return None


def _wrong_external(judged: ChunkJudged, job: Classification, labels: tuple[str, ...] | None) -> str | None:
    """An external classifier gives no scores, so its verdict follows from the threshold of the job alone."""
    if judged.results and judged.provenance is None:
        return "nothing says what computed the results"
    if judged.provenance is not None and judged.provenance.runtime != EXTERNAL_RUNTIME:
        return "the results are not those of an external classifier"
    if judged.results and labels is not None and judged.labels != labels:
        return "the labels are not those of the version"
    for result in judged.results:
        if result.label not in judged.labels or result.scores:
            return "a result does not fit the labels"
        if not 0 <= result.confidence <= 1:
            return "a score is not a number between 0 and 1"
        if result.value is not None or result.reused is not None:
            return "an external classifier gives a label and a confidence"
        if result.verdict != (Verdict.NEEDS_REVIEW if result.confidence < job.threshold else Verdict.CLEAR):
            return "a verdict does not follow from the threshold"
    return None
