"""External jobs as the log shows them: their chunks, the labels that they may be answered with, and what has ended or was deleted."""

from collections.abc import Collection, Mapping
from typing import NamedTuple
from uuid import UUID

import structlog

from application.jobs.chunk_results import JobPlans, PlannedChunk
from application.jobs.model_versions import ModelVersions
from application.ports import EventStore
from domain.classification import ENDING, Classification, ClassificationRequested
from domain.errors import NotFound
from domain.image import ImageDeleted, ImageReinspected, ImageRejected
from domain.model import Version
from domain.values import chunk_id
from infrastructure.bridge.gathered_chunk import IMAGE_DELETED, IMAGE_REJECTED, Failure

log = structlog.get_logger()


class ExternalJob(NamedTuple):
    """A job whose images are classified elsewhere. `request` is its state after the request."""

    request: Classification
    version: Version


class ExternalJobs:
    """Reads external jobs from the log. Thread-safe. Calls block, and raise Unavailable."""

    def __init__(self, event_log: EventStore) -> None:
        self._log = event_log
        self._plans = JobPlans(event_log)
        self._versions = ModelVersions(event_log)

    def find(self, job: UUID) -> ExternalJob | None:
        """None if there is no such job, or if it is not external."""
        request = self._plans.requested(job)
        if request is None or not request.external:
            return None
        try:
            return ExternalJob(request, self._versions.of(request))
        except NotFound:
            return None

    def find_all(self, jobs: Collection[UUID]) -> dict[UUID, ExternalJob]:
        """Those of the jobs that exist and are external. One query finds all ids of no job, since anybody can make them up."""
        unread = self._plans.unread(jobs)
        absent = unread - self._log.having(unread, ClassificationRequested) if unread else set()
        return {job: found for job in set(jobs) - absent if (found := self.find(job)) is not None}

    def open_chunk(self, job: UUID, number: int) -> PlannedChunk | None:
        """The planned chunk. None if it has results already, its job has ended, or it was not planned."""
        if self._log.event(chunk_id(job, number), 1) is not None or self._plans.has_ended(job):
            return None
        chunk = self._plans.chunk(job, number)
        if chunk is None:
            log.warning("task refused: the job has no such chunk", job=str(job), chunk=number)
        return chunk

    def unclassifiable(self, images: Collection[UUID]) -> Mapping[UUID, Failure]:
        """Those of the images that must not be sent, or whose answer is no longer waited for."""
        rejected = self._log.having(images, ImageRejected)
        rejected -= self._log.having(rejected, ImageReinspected)  # a newer reader has accepted them
        return dict.fromkeys(rejected, IMAGE_REJECTED) | dict.fromkeys(self._log.having(images, ImageDeleted), IMAGE_DELETED)

    def ended(self, jobs: Collection[UUID]) -> set[UUID]:
        return self._log.having(jobs, *ENDING)
