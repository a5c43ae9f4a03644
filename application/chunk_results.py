"""The results of one chunk of a job: what the log says was planned, and the one event that answers for it."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple
from uuid import UUID

from application.ports import Command, EventStore, StreamPrecondition
from domain import classification
from domain.classification import ENDING, ChunkJudged, Classification, ClassificationPlanned, ClassificationRequested, PlannedImage
from domain.errors import ConcurrencyConflict, NotFound, StreamClosed
from domain.image import ImageDeleted

MAX_KEPT_PARTS = 16
MAX_KEPT_JOBS = 256
FIRST_PART_VERSION = 2  # of a job's stream: its request is version 1, and the parts of its plan follow without a gap
CHUNKS_OF_FULL_PART = classification.TARGET_CHUNKS  # of a full part, so that the right one is most often read at once


class PlannedChunk(NamedTuple):
    """Chunk `number` of a job, as planned; `job` is as it was requested."""

    job: Classification
    number: int
    plan: ClassificationPlanned
    images: Sequence[PlannedImage]


class JobPlans:
    """Plans as the log holds them. Reads the part that it needs and keeps the newest ones; thread-safe. Calls block."""

    def __init__(self, log: EventStore) -> None:
        self._log = log
        self._lock = Lock()
        self._jobs: OrderedDict[UUID, Classification] = OrderedDict()
        self._parts: OrderedDict[tuple[UUID, int], ClassificationPlanned] = OrderedDict()

    def chunk(self, job: UUID, number: int) -> PlannedChunk | None:
        """None where the log knows no such job, or the job has no such chunk. Raises Unavailable."""
        requested = self._requested(job)
        plan = None if requested is None or number < 0 else self._part_with(job, number)
        images = None if plan is None else classification.planned_images(plan, number)
        if requested is None or plan is None or images is None:
            return None
        return PlannedChunk(requested, number, plan, images)

    def has_ended(self, job: UUID) -> bool:
        return bool(self._log.having([job], *ENDING))

    def remaining(self, images: Sequence[PlannedImage]) -> list[PlannedImage]:
        """Those that were not deleted, in order."""
        deleted = self._log.having([image.id for image in images], ImageDeleted)
        return [image for image in images if image.id not in deleted]

    def _requested(self, job: UUID) -> Classification | None:
        with self._lock:
            if job in self._jobs:
                return self._jobs[job]
        recorded = self._log.event(job, 1)
        if recorded is None or recorded.type != ClassificationRequested.__name__:
            return None
        state = classification.evolve(None, self._log.decode(recorded))
        assert state is not None
        with self._lock:
            _keep(self._jobs, job, state, maximum=MAX_KEPT_JOBS)
        return state

    def _part_with(self, job: UUID, number: int) -> ClassificationPlanned | None:
        """A binary search over the parts, whose numbers of chunks ascend. It begins where the part is if those before it are full."""
        if (kept := self._kept_part_with(job, number)) is not None:
            return kept
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

    def _kept_part_with(self, job: UUID, number: int) -> ClassificationPlanned | None:
        with self._lock:
            parts = (part for (of_job, _), part in self._parts.items() if of_job == job)
            return next((part for part in parts if classification.planned_images(part, number) is not None), None)

    def _part(self, job: UUID, index: int) -> ClassificationPlanned | None:
        with self._lock:
            if (job, index) in self._parts:
                self._parts.move_to_end((job, index))
                return self._parts[job, index]
        recorded = self._log.event(job, FIRST_PART_VERSION + index)
        if recorded is None or recorded.type != ClassificationPlanned.__name__:
            return None
        part = self._log.decode(recorded)
        assert isinstance(part, ClassificationPlanned)
        with self._lock:
            _keep(self._parts, (job, index), part, maximum=MAX_KEPT_PARTS)
        return part


def record_chunk_results(log: EventStore, command: Command, judged: ChunkJudged) -> bool:
    """False when the chunk was judged before or its job has ended: then there is nothing left to say. Raises Refused, Unavailable."""
    try:
        appended = log.append(command, judged, guards=[StreamPrecondition(stream=judged.job_id, closed_by=ENDING)])
    except (ConcurrencyConflict, StreamClosed, NotFound):
        return False
    return not appended.replayed


def _keep(kept: OrderedDict, key: object, value: object, *, maximum: int) -> None:  # type: ignore[type-arg]
    kept[key] = value
    while len(kept) > maximum:
        kept.popitem(last=False)
