"""How fast a job runs, and how long it still takes."""

from datetime import datetime, timedelta
from typing import Final, Protocol

from domain.classification import JobStatus

WINDOW: Final = timedelta(minutes=1)
SHORTEST: Final = timedelta(seconds=1)

LATELY_ANSWERED: Final = """case when c.status <> 'running' then 0 else (
      select count(*) from results r where r.classification_id = c.id and not r.hidden and r.reused is null
        and r.created_at > now() - interval '1 minute'
    ) + (
      select count(*) from failures f where f.classification_id = c.id and f.created_at > now() - interval '1 minute'
    ) end as lately_answered, now() as now"""
"""Columns beside those of the job `c`."""


class RunningJob(Protocol):
    """`lately_answered` images have got a result or a failure in the minute before `now`, without those that repeat earlier results."""

    @property
    def status(self) -> JobStatus: ...
    @property
    def planned(self) -> bool: ...
    @property
    def images(self) -> int: ...
    @property
    def succeeded(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def last_result_at(self) -> datetime | None: ...
    @property
    def lately_answered(self) -> int: ...
    @property
    def now(self) -> datetime: ...


def rate(job: RunningJob) -> float | None:
    """Images per second: of the last minute while the job runs, of its whole time once it has ended. None before there is one."""
    if job.started_at is None:
        return None
    if job.status is JobStatus.RUNNING:
        answered, seconds = job.lately_answered, min(job.now - job.started_at, WINDOW)
    elif job.last_result_at is not None:
        answered, seconds = job.succeeded + job.failed, job.last_result_at - job.started_at
    else:
        return None
    return round(answered / max(seconds, SHORTEST).total_seconds(), 2)


def remaining_seconds(job: RunningJob) -> float | None:
    """At the present rate. None before all images are planned, while no image is answered, and once the job has ended."""
    images_per_second = rate(job)
    if job.status is not JobStatus.RUNNING or not job.planned or not images_per_second:
        return None
    return round(max(0, job.images - job.succeeded - job.failed) / images_per_second, 1)
