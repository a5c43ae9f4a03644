"""Planning: the scheduler lists the images of each job in its log, page by page, and resumes after a crash."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import structlog

from application.jobs.work_queue import ImagePage, JobFile, ToPlan, WorkQueue
from application.ports import Command, EventStore
from domain import classification
from domain.classification import MAX_PART_IMAGES, Classification, ClassificationPlanned, PlannedImage

log = structlog.get_logger()


class PlanningLimits(NamedTuple):
    """`images_per_command`: images looked at for one command. `images_per_turn`: in one turn, so that nothing else waits for long."""

    images_per_command: int = MAX_PART_IMAGES
    images_per_turn: int = 4 * MAX_PART_IMAGES


DEFAULT_LIMITS = PlanningLimits()


class _Progress(NamedTuple):
    """How far the plan of a job is: `seen` images were looked at since this process began, the newest at position `last`."""

    job: Classification
    last: int
    seen: int = 0

    @property
    def is_open(self) -> bool:
        return not (self.job.planned or self.job.phase.ended or self.job.deleted)


class Planner:
    """Plans jobs over several images. Each page is a command of its own, so that planning resumes after the last planned image.

    Images with a result that the job may repeat form parts of their own, before the others of their page. A turn ends after some images, or
    when `has_time` says so. Calls block.
    """

    def __init__(
        self,
        events: EventStore,
        command: Callable[[], Command],
        *,
        has_time: Callable[[], bool] = lambda: True,
        limits: PlanningLimits = DEFAULT_LIMITS,
    ) -> None:
        self._log, self._command, self._has_time, self._limits = events, command, has_time, limits
        self._progress: dict[UUID, _Progress] = {}
        self._left = 0  # images to look at in this turn

    def begin_turn(self, jobs: Sequence[ToPlan]) -> list[ToPlan]:
        """The jobs in the order in which to plan them in this turn: first those of which the fewest images were looked at."""
        self._left = self._limits.images_per_turn
        self._progress = {job.id: self._progress[job.id] for job in jobs if job.id in self._progress}
        return sorted(jobs, key=lambda job: (self._progress[job.id].seen if job.id in self._progress else 0, job.position))

    def plan(self, job: ToPlan, work: WorkQueue) -> None:
        """Plan the job as far as this turn allows. Raises ConcurrencyConflict if another process or person changed the job."""
        progress = self._progress.pop(job.id, None) or self._resumed(job.id, work)
        while progress is not None and progress.is_open and self._left > 0:
            progress = self._plan_page(progress, job, work)
            if not self._has_time():
                self._left = 0
        if progress is not None:
            self._progress[job.id] = progress

    def _resumed(self, job: UUID, work: WorkQueue) -> _Progress | None:
        """The progress that the log shows, behind the newest planned image; None if there is no such job."""
        state: Classification | None = None
        newest: list[UUID] = []
        for recorded in self._log.history(job):
            event = self._log.decode(recorded)
            state = classification.evolve(state, event)
            if isinstance(event, ClassificationPlanned) and event.images:
                newest.append(event.images[-1].id)
        return None if state is None else _Progress(state, work.last_position(newest))

    def _plan_page(self, progress: _Progress, asked: ToPlan, work: WorkQueue) -> _Progress:
        job = progress.job
        page = work.classifiable(job, after=progress.last, until=asked.position, maximum=self._limits.images_per_command)
        self._left -= max(1, page.seen)
        if page.images or not page.more:
            job = self._append(job, page, work)
        return _Progress(job, page.last, progress.seen + page.seen)

    def _append(self, job: Classification, page: ImagePage, work: WorkQueue) -> Classification:
        reusable, others = _split(job, page.images, work)
        command = self._command()
        events = classification.plan(job, others, reusable=reusable, more=page.more, by=command.actor.id, at=command.at)
        self._log.append(command, *events, subject=job.id)
        log.info("planned", job=str(job.id), images=len(page.images), reusable=len(reusable), more=page.more)
        for event in events:
            job = classification.evolve(job, event) or job
        return job


def _split(job: Classification, images: Sequence[PlannedImage], work: WorkQueue) -> tuple[list[PlannedImage], list[PlannedImage]]:
    """The images with a result that the job may repeat, and the others."""
    if job.fresh or job.external or not images:
        return [], list(images)
    found = work.reusable({JobFile(job.id, image.sha256) for image in images})
    known = {file.sha256 for file in found}
    return [one for one in images if one.sha256 in known], [one for one in images if one.sha256 not in known]
