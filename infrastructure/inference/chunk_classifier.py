"""One chunk of a job: from the task to the one event that says what was seen. The parent decodes nothing."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID, uuid5

import structlog

from application.chunk_results import JobPlans, PlannedChunk, record_chunk_results
from application.ports import BlobStore, Command, CorruptBlob, EventStore
from application.tasks import Task
from domain import classification, model
from domain.classification import ChunkJudged, Classification, ImageFailure, ImageResult, PlannedImage, Provenance, verdict_on
from domain.errors import NotFound
from domain.model import Version
from domain.values import chunk_id
from infrastructure.images.validation.limits import ImageLimits
from infrastructure.inference.children.process_pool import ChildFailed, ChildLost, ProcessPool, Provider
from infrastructure.inference.failures import ACTOR, read_images, refusal_for
from infrastructure.inference.models.onnx_validation import ModelRefused
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, ModelPrediction, check_batch
from infrastructure.observability.metrics import IMAGES
from infrastructure.retry import retry_while_unavailable

log = structlog.get_logger()

CLASSIFY: Final = "infrastructure.inference.children.child_functions:classify"
WARM: Final = "infrastructure.inference.children.child_functions:warm"
MAX_IMAGES_PER_CALL: Final = 8  # images in one call of a child
MAX_BYTES_PER_CALL: Final = 32 * 1024**2  # and their bytes, unless one image alone has more
GROUPS_PER_CHILD: Final = 2  # for each child: one at work, one being read
DEFAULT_LIMITS: Final = ImageLimits()
OPEN_CACHE_SECONDS: Final = 1.0  # seconds that a job once seen open counts as open; `append` asks again

MODEL_FAILED: Final = ImageRefusal("model_failed", "The model could not be run on this image")
IMAGE_DELETED: Final = ImageRefusal("image_deleted", "The image was deleted before its turn.")
MODEL_UNUSABLE: Final = ImageRefusal(
    "model_refused", "The model's file is missing in the store or damaged, and was not used. Add the model again"
)

MODEL_UNSAFE: Final = ImageRefusal("model_refused", "The model's file is not one that is run here, and was not used. The log says why")


class GroupResult(NamedTuple):
    """The answer for each image, and what its child said of itself, where one answered."""

    answers: list[ModelPrediction | ImageRefusal]
    by: BatchPrediction | None


class ChunkClassifier:
    """Judges chunks. Harmless to ask twice: who comes second finds that the answer exists."""

    def __init__(
        self,
        *,
        log: EventStore,
        blobs: BlobStore,
        pool: ProcessPool,
        threads: Executor,
        worker: str,
        cpu: str,
        limits: ImageLimits = DEFAULT_LIMITS,
        look: str = CLASSIFY,
    ) -> None:
        self._log, self._blobs, self._pool, self._threads = log, blobs, pool, threads
        self._worker, self._cpu, self._limits, self._look_by = worker, cpu, limits, look
        self._held = asyncio.Semaphore(GROUPS_PER_CHILD * pool.size)
        self._versions: dict[tuple[UUID, int], Version] = {}
        self._plans = JobPlans(log)
        self._seen_open: dict[UUID, float] = {}

    async def classify(self, task: Task) -> None:
        """Answer the task with one ChunkJudged, or with nothing where none is wanted any more. Raises Unavailable."""
        assert task.job is not None
        assert task.number is not None
        started = time.perf_counter()
        chunk = await retry_while_unavailable(self._threads, self._open_chunk, task.job, task.number)
        if chunk is None:
            return
        images = await retry_while_unavailable(self._threads, self._plans.remaining, chunk.images)
        version = await retry_while_unavailable(self._threads, self._version, chunk.job)
        looked = await self._looked(images, version)
        seconds = time.perf_counter() - started
        event = self._judged(chunk, images, version, looked)
        command = Command(id=uuid5(event.originator_id, "judged"), actor=ACTOR, at=event.at, correlation_id=event.job_id)
        written = await retry_while_unavailable(self._threads, record_chunk_results, self._log, command, event)
        IMAGES.labels("classified").inc(len(event.results))
        IMAGES.labels("failed").inc(len(event.failures))
        log.info(
            "chunk judged",
            job=str(event.job_id),
            chunk=event.number,
            images=len(event.results),
            failures=len(event.failures),
            seconds=round(seconds, 4),
            written=written,
        )

    async def warm(self, version: Version) -> None:
        """Have a child load the model before anybody waits for it. Raises ChildFailed, ChildLost, NotFound, Corrupted, Unavailable."""
        await self._pool.run(WARM, version.sha256, version.record, into=type(None), lend=self._weights(version))

    # ---- what is wanted ----
    def _open_chunk(self, job: UUID, number: int) -> PlannedChunk | None:
        """None when the chunk is judged already, its job has ended, or it was never planned."""
        if self._log.event(chunk_id(job, number), 1) is not None or not self._is_open(job):
            return None
        chunk = self._plans.chunk(job, number)
        if chunk is None:
            log.warning("task refused: the job has no such chunk", job=str(job), chunk=number)
        return chunk

    def _is_open(self, job: UUID) -> bool:
        if time.monotonic() - self._seen_open.get(job, -OPEN_CACHE_SECONDS) >= OPEN_CACHE_SECONDS:
            self._seen_open = {known: seen for known, seen in self._seen_open.items() if time.monotonic() - seen < OPEN_CACHE_SECONDS}
            if self._plans.has_ended(job):
                return False
            self._seen_open[job] = time.monotonic()
        return True

    def _version(self, job: Classification) -> Version:
        """Versions never change. Raises NotFound when the log does not know it: then the task is older than this log."""
        key = job.model_id, job.model_version
        if key not in self._versions:
            state = self._log.load(job.model_id, model.evolve)
            if state is None:
                raise NotFound(f"Model {job.model_name} not found")
            self._versions[key] = state.numbered(job.model_version)
        return self._versions[key]

    # ---- looking ----
    async def _looked(self, images: Sequence[PlannedImage], version: Version) -> list[GroupResult]:
        starts = range(0, len(images), MAX_IMAGES_PER_CALL)
        groups = await asyncio.gather(*(self._group(images[start : start + MAX_IMAGES_PER_CALL], version) for start in starts))
        return [looked for group in groups for looked in group]

    async def _group(self, images: Sequence[PlannedImage], version: Version) -> list[GroupResult]:
        """Read a few images and have them looked at, in as many calls as their size asks for; the answers in order."""
        async with self._held:
            found = await retry_while_unavailable(self._threads, read_images, self._blobs, [image.sha256 for image in images])
            return [GroupResult([run], None) if isinstance(run, ImageRefusal) else await self._look(run, version) for run in _runs(found)]

    async def _look(self, images: list[bytes], version: Version, *, again: bool = True) -> GroupResult:
        """When a call fails, its images go again one by one: so the guilty one alone has no result."""
        try:
            judged = await self._ask(version, images)
        except (NotFound, CorruptBlob):
            return GroupResult([MODEL_UNUSABLE] * len(images), None)
        except (ChildLost, ChildFailed) as error:
            if isinstance(error, ChildFailed) and error.kind == ModelRefused.__name__:
                log.warning("model refused", model=version.sha256, reason=error.detail)
                return GroupResult([MODEL_UNSAFE] * len(images), None)
            if not again:
                return GroupResult([refusal_for(error, otherwise=MODEL_FAILED)], None)
            singles = await asyncio.gather(*(self._look([image], version, again=False) for image in images))
            return GroupResult([one for single in singles for one in single.answers], next((one.by for one in singles if one.by), None))
        return GroupResult(judged.answers, judged)

    async def _ask(self, version: Version, images: list[bytes]) -> BatchPrediction:
        return await self._pool.run(
            self._look_by,
            version.sha256,
            version.record,
            images,
            self._limits,
            into=BatchPrediction,
            check=partial(check_batch, images=len(images), labels=version.labels),
            lend=self._weights(version),
        )

    def _weights(self, version: Version) -> dict[str, Provider]:
        async def weights() -> bytes:
            return await retry_while_unavailable(self._threads, self._blobs.read, version.sha256)

        return {version.sha256: weights}

    # ---- saying so ----
    def _judged(self, chunk: PlannedChunk, images: Sequence[PlannedImage], version: Version, looked: Sequence[GroupResult]) -> ChunkJudged:
        """An image that was deleted gets no answer; where all were, each gets a failure, so that the job can end."""
        answers: list[tuple[PlannedImage, ModelPrediction | ImageRefusal]] = list(
            zip(images, (answer for one in looked for answer in one.answers), strict=True)
        )
        if not answers:
            answers = [(image, IMAGE_DELETED) for image in chunk.images]
        return classification.record_chunk(
            chunk.job,
            chunk.number,
            plan=chunk.plan,
            labels=version.labels,
            results=tuple(_result(image, seen, chunk.job.threshold) for image, seen in answers if isinstance(seen, ModelPrediction)),
            failures=tuple(
                ImageFailure(image_id=image.id, reason=unseen.reason, detail=unseen.detail)
                for image, unseen in answers
                if isinstance(unseen, ImageRefusal)
            ),
            provenance=self._provenance(version, looked),
            by=ACTOR.id,
            at=datetime.now(UTC),
        )

    def _provenance(self, version: Version, looked: Sequence[GroupResult]) -> Provenance | None:
        by = [one.by for one in looked if one.by is not None]
        if not by:
            return None
        return Provenance(
            model_sha256=version.sha256,
            preprocessing=by[0].preprocessing,
            runtime=by[0].runtime,
            provider=by[0].provider,
            decoder=by[0].decoder,
            cpu=self._cpu,
            worker=self._worker,
            seconds=round(sum(one.seconds for one in by), 6),
        )


def _runs(found: Sequence[bytes | ImageRefusal]) -> Iterator[list[bytes] | ImageRefusal]:
    """In order: images that go into one call together, and those without bytes."""
    run: list[bytes] = []
    for one in found:
        if run and (isinstance(one, ImageRefusal) or sum(map(len, run)) + len(one) > MAX_BYTES_PER_CALL):
            yield run
            run = []
        if isinstance(one, ImageRefusal):
            yield one
        else:
            run.append(one)
    if run:
        yield run


def _result(image: PlannedImage, seen: ModelPrediction, threshold: float) -> ImageResult:
    return ImageResult(
        image_id=image.id,
        sha256=image.sha256,
        label=seen.label,
        confidence=seen.confidence,
        verdict=verdict_on(seen.confidence, threshold=threshold, out_of_domain=seen.out_of_domain),
        scores=seen.scores,
        signals=seen.signals,
        warnings=seen.warnings,
    )
