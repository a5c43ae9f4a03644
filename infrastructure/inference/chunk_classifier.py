"""Classification of one chunk of a job, from the task to the event with its results. Only children decode images."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

import structlog

from application.jobs.chunk_results import ChunkAnswers, JobPlans, PlannedChunk, record_chunk_results
from application.jobs.model_versions import ModelVersions
from application.jobs.tasks import Task
from application.ports import BlobStore, Command, EventStore
from application.result_rules import ResultRules, rules_of_job
from domain.classification import ImageFailure, ImageResult, PlannedImage, Provenance
from domain.model import Version
from domain.values import chunk_id
from infrastructure.images.validation.limits import ImageLimits
from infrastructure.inference.children.process_pool import ProcessPool
from infrastructure.inference.failures import ACTOR
from infrastructure.inference.group_classifier import CLASSIFY, ClassifierLimits, GroupClassifier, GroupResult
from infrastructure.inference.model_reference import DEFAULT_PROVIDER
from infrastructure.inference.predictions import ImageRefusal, ModelPrediction
from infrastructure.observability.metrics import IMAGES
from infrastructure.retry import Retry

log = structlog.get_logger()

DEFAULT_IMAGE_LIMITS: Final = ImageLimits()
DEFAULT_LIMITS: Final = ClassifierLimits()
IMAGE_DELETED: Final = ImageRefusal("image_deleted", "The image was deleted before it was classified.")


class ChunkClassifier:
    """Classifies chunks. A repeated task is harmless, since results are recorded once."""

    def __init__(
        self,
        *,
        log: EventStore,
        blobs: BlobStore,
        pool: ProcessPool,
        retry: Retry,
        worker: str,
        cpu: str,
        image_limits: ImageLimits = DEFAULT_IMAGE_LIMITS,
        function: str = CLASSIFY,
        limits: ClassifierLimits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        provider: str = DEFAULT_PROVIDER,
    ) -> None:
        self._log, self._retry, self._worker, self._cpu = log, retry, worker, cpu
        self._groups = GroupClassifier(blobs, pool, retry, function=function, image_limits=image_limits, limits=limits, provider=provider)
        self._plans = JobPlans(log)
        self._open_jobs = _OpenJobs(self._plans, cache_seconds=limits.open_cache_seconds, clock=clock)
        self._versions = ModelVersions(log)
        self._clock, self._now = clock, now

    async def classify(self, task: Task) -> None:
        """Record the results of the task's chunk, unless they exist or the job has ended. Raises Unavailable."""
        assert task.job is not None
        assert task.number is not None
        started = self._clock()
        chunk = await self._retry(self._open_chunk, task.job, task.number)
        if chunk is None:
            return
        images = await self._retry(self._plans.remaining, chunk.images)
        version = await self._retry(self._versions.of, chunk.job)
        groups = await self._groups.classify(images, version, chunk.job.planes)
        seconds = self._clock() - started
        answers = self._answers(chunk, images, version, groups)
        command = Command(id=uuid5(chunk_id(task.job, task.number), "judged"), actor=ACTOR, at=self._now(), correlation_id=task.job)
        recorded = await self._retry(record_chunk_results, chunk, answers, command=command, log=self._log)
        _report(task, answers, seconds=seconds, recorded=recorded)

    async def warm(self, version: Version) -> None:
        """Load the model in a child before a job needs it. Raises ChildFailed, ChildLost, NotFound, CorruptBlob, Unavailable."""
        await self._groups.warm(version)

    # ---- before ----
    def _open_chunk(self, job: UUID, number: int) -> PlannedChunk | None:
        """The planned chunk. None if it has results already, its job has ended, or it was not planned."""
        if self._log.event(chunk_id(job, number), 1) is not None or not self._open_jobs.includes(job):
            return None
        chunk = self._plans.chunk(job, number)
        if chunk is None:
            log.warning("task refused: the job has no such chunk", job=str(job), chunk=number)
        return chunk

    # ---- after ----
    def _answers(
        self, chunk: PlannedChunk, images: Sequence[PlannedImage], version: Version, groups: Sequence[GroupResult]
    ) -> ChunkAnswers:
        """The results. Deleted images have none; if all images were deleted, each gets a failure, so that the job can end."""
        answers: list[tuple[PlannedImage, ModelPrediction | ImageRefusal]] = list(
            zip(images, (answer for group in groups for answer in group.answers), strict=True)
        )
        if not answers:
            answers = [(image, IMAGE_DELETED) for image in chunk.images]
        rules = rules_of_job(version, chunk.job.threshold)
        return ChunkAnswers(
            labels=version.labels,
            results=tuple(_result(image, one, rules) for image, one in answers if isinstance(one, ModelPrediction)),
            failures=tuple(
                ImageFailure(image_id=image.id, reason=one.reason, detail=one.detail)
                for image, one in answers
                if isinstance(one, ImageRefusal)
            ),
            provenance=self._provenance(version, groups),
        )

    def _provenance(self, version: Version, groups: Sequence[GroupResult]) -> Provenance | None:
        batches = [group.batch for group in groups if group.batch is not None]
        if not batches:
            return None
        first = batches[0]
        return Provenance(
            model_sha256=version.sha256,
            preprocessing=first.preprocessing,
            runtime=first.runtime,
            provider=first.provider,
            decoder=first.decoder,
            cpu=self._cpu,
            worker=self._worker,
            seconds=round(sum(batch.seconds for batch in batches), 6),
        )


class _OpenJobs:
    """A cache of open jobs. A job counts as open for `cache_seconds`; recording the results checks again."""

    def __init__(self, plans: JobPlans, *, cache_seconds: float, clock: Callable[[], float]) -> None:
        self._plans, self._cache_seconds, self._clock = plans, cache_seconds, clock
        self._checked_at: dict[UUID, float] = {}

    def includes(self, job: UUID) -> bool:
        if self._clock() - self._checked_at.get(job, -self._cache_seconds) < self._cache_seconds:
            return True
        self._checked_at = {known: at for known, at in self._checked_at.items() if self._clock() - at < self._cache_seconds}
        if self._plans.has_ended(job):
            return False
        self._checked_at[job] = self._clock()
        return True


def _result(image: PlannedImage, prediction: ModelPrediction, rules: ResultRules) -> ImageResult:
    return ImageResult(
        image_id=image.id,
        sha256=image.sha256,
        label=prediction.label,
        confidence=prediction.confidence,
        verdict=rules.verdict_on(
            prediction.label, prediction.confidence, prediction.scores, value=prediction.value, out_of_domain=prediction.out_of_domain
        ),
        scores=prediction.scores,
        signals=prediction.signals,
        warnings=prediction.warnings,
        value=prediction.value,
    )


def _report(task: Task, answers: ChunkAnswers, *, seconds: float, recorded: bool) -> None:
    IMAGES.labels("classified").inc(len(answers.results))
    IMAGES.labels("failed").inc(len(answers.failures))
    log.info(
        "chunk classified",
        job=str(task.job),
        chunk=task.number,
        images=len(answers.results),
        failures=len(answers.failures),
        seconds=round(seconds, 4),
        written=recorded,
    )
