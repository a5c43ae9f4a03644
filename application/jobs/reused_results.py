"""Results that a job repeats from earlier jobs. They are read from the log and verified, so that a wrong read model changes no result."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
import structlog
from cachetools import LRUCache

from application.jobs.chunk_results import ChunkAnswers, JobPlans, record_chunk_results
from application.jobs.model_versions import ModelVersions
from application.jobs.work_queue import EarlierResult, JobFile, WorkQueue
from application.ports import Command, EventStore
from application.result_rules import ResultRules, rules_of_job
from domain.classification import ChunkJudged, Classification, ImageResult, PlannedImage, Verdict
from domain.errors import Refused
from domain.values import chunk_id, result_id

log = structlog.get_logger()

MAX_CACHED_EVENTS: Final = 64


class OpenChunk(NamedTuple):
    """Chunk `number` of a job, with those of its images that were not deleted: at least one."""

    job: UUID
    number: int
    images: Sequence[PlannedImage]

    @property
    def id(self) -> UUID:
        return chunk_id(self.job, self.number)

    @property
    def files(self) -> set[JobFile]:
        return {JobFile(self.job, image.sha256) for image in self.images}


class ReusedResults:
    """Answers chunks with earlier results. Calls block, and raise Unavailable."""

    def __init__(self, log: EventStore, plans: JobPlans) -> None:
        self._log, self._plans = log, plans
        self._versions = ModelVersions(log)
        self._events: LRUCache[int, ChunkJudged] = LRUCache(MAX_CACHED_EVENTS)

    def find(self, chunks: Sequence[OpenChunk], work: WorkQueue) -> list[tuple[OpenChunk, dict[str, EarlierResult]]]:
        """Those of the chunks whose images all have an earlier result, with these results by sha256.

        A plan puts such images into chunks of their own, so no other image is looked up if the first one has none.
        """
        begun = work.reusable({JobFile(chunk.job, chunk.images[0].sha256) for chunk in chunks})
        likely = [chunk for chunk in chunks if JobFile(chunk.job, chunk.images[0].sha256) in begun]
        found = work.reusable({file for chunk in likely for file in chunk.files})
        complete = [chunk for chunk in likely if chunk.files <= found.keys()]
        return [(chunk, {file.sha256: found[file] for file in chunk.files}) for chunk in complete]

    def record(self, chunk: OpenChunk, earlier: Mapping[str, EarlierResult], command: Command) -> bool:
        """Record the results of the chunk, unless it has some. False if the log does not confirm an earlier result, or takes it no more."""
        planned = self._plans.chunk(chunk.job, chunk.number)
        if planned is None:
            return False
        version = self._versions.of(planned.job)
        try:
            rules = rules_of_job(version, planned.job.threshold)
        except ValueError as broken:
            log.warning("earlier results cannot be repeated", job=str(chunk.job), chunk=chunk.number, reason=str(broken))
            return False
        judged = self._judged({one.position for one in earlier.values()})
        results = [self._repeated(image, earlier[image.sha256], judged, planned.job, rules) for image in chunk.images]
        confirmed = tuple(result for result in results if result is not None)
        if len(confirmed) < len(results):
            return False
        try:
            record_chunk_results(planned, ChunkAnswers(results=confirmed, labels=version.labels), command=command, log=self._log)
        except Refused as refused:  # an earlier release had fewer rules
            log.warning("earlier results cannot be repeated", job=str(chunk.job), chunk=chunk.number, reason=refused.detail)
            return False
        return True

    def _judged(self, positions: set[int]) -> dict[int, ChunkJudged]:
        found = {position: self._events[position] for position in positions if position in self._events}
        for recorded in self._log.at(positions - found.keys()):
            event = self._log.decode(recorded)
            if isinstance(event, ChunkJudged):
                found[recorded.position] = self._events[recorded.position] = event
        return found

    def _repeated(
        self, image: PlannedImage, earlier: EarlierResult, judged: Mapping[int, ChunkJudged], job: Classification, rules: ResultRules
    ) -> ImageResult | None:
        """The earlier result, for `image` and with the verdict of the job. None if the log does not confirm it."""
        event = judged.get(earlier.position)
        if event is None or earlier.id != result_id(event.job_id, earlier.image_id) or not self._is_of_same_run(event, job, rules):
            return None
        result = next((one for one in event.results if one.image_id == earlier.image_id), None)
        if result is None or result.reused is not None or result.sha256 != image.sha256:
            return None
        is_outside = result.verdict is Verdict.OUT_OF_DOMAIN
        verdict = rules.verdict_on(result.label, result.confidence, result.scores, value=result.value, out_of_domain=is_outside)
        return msgspec.structs.replace(result, image_id=image.id, verdict=verdict, reused=earlier.id)

    def _is_of_same_run(self, event: ChunkJudged, job: Classification, rules: ResultRules) -> bool:
        """Whether the chunk was classified by the same model version, with the same planes."""
        earlier = self._plans.requested(event.job_id)
        return earlier is not None and _run(earlier) == _run(job) and event.labels == rules.labels


def _run(job: Classification) -> tuple[object, ...]:
    """What determines the scores of an image."""
    return job.model_id, job.model_version, job.model_sha256, job.planes
