"""Chunks as they were planned, and the one event that records a chunk's results. Done by the system, not by a user."""

from collections.abc import Collection, Sequence
from threading import Lock
from typing import NamedTuple
from uuid import UUID

from cachetools import LRUCache

from application.commands import create_stream
from application.ports import Command, EventStore, StreamPrecondition
from domain import classification
from domain.classification import (
    ENDING,
    Classification,
    ClassificationPlanned,
    ClassificationRequested,
    ImageFailure,
    ImageResult,
    PlannedImage,
    Provenance,
)
from domain.errors import ConcurrencyConflict, NotFound, StreamClosed
from domain.image import ImageDeleted

MAX_CACHED_PARTS = 16
MAX_CACHED_JOBS = 256
FIRST_PART_VERSION = 2  # in a job's stream; version 1 is the request, and the parts of the plan follow without a gap
CHUNKS_OF_FULL_PART = classification.TARGET_CHUNKS  # in a full part, so that the first guess is usually right


class PlannedChunk(NamedTuple):
    """Chunk `number` of a job as it was planned. `job` is the state after its request."""

    job: Classification
    number: int
    plan: ClassificationPlanned
    images: Sequence[PlannedImage]


class JobPlans:
    """Plans of jobs, read from the log part by part and cached. Thread-safe. Calls block, and raise Unavailable."""

    def __init__(self, log: EventStore, *, max_parts: int = MAX_CACHED_PARTS, max_jobs: int = MAX_CACHED_JOBS) -> None:
        self._log = log
        self._lock = Lock()
        self._jobs: LRUCache[UUID, Classification] = LRUCache(max_jobs)
        self._parts: LRUCache[tuple[UUID, int], ClassificationPlanned] = LRUCache(max_parts)

    def requested(self, job: UUID) -> Classification | None:
        """The state of a job after its request; None if there is no such job."""
        with self._lock:
            if job in self._jobs:
                return self._jobs[job]
        recorded = self._log.event(job, 1)
        if recorded is None or recorded.type != ClassificationRequested.__name__:
            return None
        state = classification.evolve(None, self._log.decode(recorded))
        assert state is not None
        with self._lock:
            self._jobs[job] = state
        return state

    def unread(self, jobs: Collection[UUID]) -> set[UUID]:
        """Those of the jobs whose request is not cached."""
        with self._lock:
            return {job for job in jobs if job not in self._jobs}

    def chunk(self, job: UUID, number: int) -> PlannedChunk | None:
        """A chunk of a job, or None if there is no such job or chunk."""
        requested = self.requested(job)
        plan = None if requested is None or number < 0 else self._part_with(job, number)
        images = None if plan is None else classification.planned_images(plan, number)
        if requested is None or plan is None or images is None:
            return None
        return PlannedChunk(requested, number, plan, images)

    def has_ended(self, job: UUID) -> bool:
        return bool(self._log.having([job], *ENDING))

    def remaining(self, images: Sequence[PlannedImage]) -> list[PlannedImage]:
        """The images that were not deleted, in order."""
        deleted = self._log.having([image.id for image in images], ImageDeleted)
        return [image for image in images if image.id not in deleted]

    def _part_with(self, job: UUID, number: int) -> ClassificationPlanned | None:
        """Find the part by binary search over chunk numbers. The first guess is right if all parts before it are full."""
        if (cached := self._cached_part_with(job, number)) is not None:
            return cached
        lowest, beyond, guess = 0, None, number // CHUNKS_OF_FULL_PART
        while beyond is None or lowest < beyond:
            part = self._part(job, guess)
            if part is None or part.first_chunk > number:
                beyond = guess
            elif number < part.first_chunk + len(classification.chunks_of(part.images)):
                return part
            else:
                lowest = guess + 1
            guess = 2 * lowest if beyond is None else (lowest + beyond) // 2
        return None

    def _cached_part_with(self, job: UUID, number: int) -> ClassificationPlanned | None:
        with self._lock:
            parts = (part for (of_job, _), part in self._parts.items() if of_job == job)
            return next((part for part in parts if classification.planned_images(part, number) is not None), None)

    def _part(self, job: UUID, index: int) -> ClassificationPlanned | None:
        with self._lock:
            if (job, index) in self._parts:
                return self._parts[job, index]
        recorded = self._log.event(job, FIRST_PART_VERSION + index)
        if recorded is None or recorded.type != ClassificationPlanned.__name__:
            return None
        part = self._log.decode(recorded)
        assert isinstance(part, ClassificationPlanned)
        with self._lock:
            self._parts[job, index] = part
        return part


class ChunkAnswers(NamedTuple):
    """Results and failures of a chunk's images. `labels` and `provenance` are empty if the model did not run."""

    results: tuple[ImageResult, ...] = ()
    failures: tuple[ImageFailure, ...] = ()
    labels: tuple[str, ...] = ()
    provenance: Provenance | None = None

    @classmethod
    def failure_of_all(cls, chunk: PlannedChunk, *, reason: str, detail: str) -> "ChunkAnswers":
        return cls(failures=tuple(ImageFailure(image_id=one.id, reason=reason, detail=detail) for one in chunk.images))


def record_chunk_results(chunk: PlannedChunk, answers: ChunkAnswers, *, command: Command, log: EventStore) -> bool:
    """Record the answers as the only event of the chunk's stream.

    False if the chunk has results already, or its job has ended or was deleted. Raises Refused, Unavailable.
    """
    event = classification.record_chunk(
        chunk.job,
        chunk.number,
        plan=chunk.plan,
        labels=answers.labels,
        results=answers.results,
        failures=answers.failures,
        provenance=answers.provenance,
        by=command.actor.id,
        at=command.at,
    )
    try:
        return not create_stream(log, command, [event], guards=[StreamPrecondition(stream=chunk.job.id, closed_by=ENDING)]).replayed
    except (ConcurrencyConflict, StreamClosed, NotFound):
        return False
