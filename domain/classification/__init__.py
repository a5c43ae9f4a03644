"""A job: one model version run over one image or a whole dataset, planned in chunks. Each chunk's results are recorded once."""

from domain.classification.chunk import record_chunk, verdict_on, violation_of
from domain.classification.chunk_sizes import MAX_CHUNK_IMAGES, MAX_PART_IMAGES, MIN_CHUNK_IMAGES, TARGET_CHUNKS, chunks_of, planned_images
from domain.classification.events import (
    ENDING,
    ChunkJudged,
    ClassificationCancelled,
    ClassificationCompleted,
    ClassificationDeleted,
    ClassificationFailed,
    ClassificationPlanned,
    ClassificationRequested,
    ImageFailure,
    ImageResult,
    PlannedImage,
    Provenance,
    Verdict,
)
from domain.classification.job import Classification, JobStatus, cancel, complete, delete, evolve, fail, plan, request

__all__ = [
    "ENDING",
    "MAX_CHUNK_IMAGES",
    "MAX_PART_IMAGES",
    "MIN_CHUNK_IMAGES",
    "TARGET_CHUNKS",
    "ChunkJudged",
    "Classification",
    "ClassificationCancelled",
    "ClassificationCompleted",
    "ClassificationDeleted",
    "ClassificationFailed",
    "ClassificationPlanned",
    "ClassificationRequested",
    "ImageFailure",
    "ImageResult",
    "JobStatus",
    "PlannedImage",
    "Provenance",
    "Verdict",
    "cancel",
    "chunks_of",
    "complete",
    "delete",
    "evolve",
    "fail",
    "plan",
    "planned_images",
    "record_chunk",
    "request",
    "verdict_on",
    "violation_of",
]
