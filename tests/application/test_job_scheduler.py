"""The scheduler, over a log in memory that others write to at the same time."""

from itertools import count
from uuid import uuid4

import pytest

from application.commands import MAX_ATTEMPTS
from application.jobs.job_scheduler import Scheduler, SchedulerLimits
from application.jobs.tasks import Kind
from application.jobs.work_queue import Chunk, EarlierResult, Lease, OpenJob, SchedulerSnapshot, ToFinish, Worker
from domain import classification, image
from domain.classification import JobStatus, PlannedImage
from domain.errors import ConcurrencyConflict, Refused, UpgradePending
from domain.values import chunk_id, result_id
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from tests.given import NOW
from tests.rigs.scenario import SHA256, Scenario
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(bytes(32))
PATIENT = SchedulerLimits(seconds_per_tick=60)


class BusyLog(RecorderEventStore):
    """The next `conflicts` appends to the stream `busy` come too late: others were faster, or (`problem`) what else is raised."""

    busy, conflicts = None, 0
    problem = ConcurrencyConflict("The stream has newer events")

    def append(self, command, *events, **conditions):
        if self.conflicts and any(event.originator_id == self.busy for event in events):
            self.conflicts -= 1
            raise self.problem
        return super().append(command, *events, **conditions)


class Queue:
    """A work queue that always shows the same."""

    closed = False

    def __init__(self, snapshot):
        self._shown, self.abandoned = snapshot, []

    def snapshot(self):
        return self._shown

    def try_to_lead(self):
        return True

    def delete_done(self):
        pass

    def waiting(self, **_):
        return []

    def to_inspect(self, maximum):
        return []

    def to_check(self, maximum):
        return []

    def mark_abandoned(self, work):
        self.abandoned.append(work)


def shown(*, leases=(), to_finish=()):
    nothing = {"workers": [Worker(seen_at=NOW, slots=1, lane="bulk")], "to_plan": [], "orphans": [], "overdue": []}
    return Queue(SchedulerSnapshot(leases=list(leases), to_finish=list(to_finish), now=NOW, **nothing))


@pytest.fixture
def log():
    return BusyLog(MemoryRecorder(ROOT), ROOT)


@pytest.fixture
def scenario(log):
    return Scenario(log, projector=None)


@pytest.fixture
def jobs(scenario):
    """Two jobs, each over one image that has its result."""
    ada = scenario.user()
    scenario.model()
    images = [scenario.image(ada, scenario.dataset(ada)) for _ in range(2)]
    jobs = [scenario.job(ada, image=one) for one in images]
    for job, covered in zip(jobs, images, strict=True):
        scenario.judge(job, 0, [covered])
    return jobs


def phases(log, jobs):
    return [log.load(job, classification.evolve).phase for job in jobs]


def test_conflicts_that_end_within_the_attempts_do_not_show(log, jobs):
    log.busy, log.conflicts = jobs[0], MAX_ATTEMPTS - 1
    Scheduler(lambda: shown(to_finish=[ToFinish(job, 1, 0) for job in jobs]), log, lease=60, attempts=2, limits=PATIENT).tick()
    assert phases(log, jobs) == [JobStatus.COMPLETED] * 2


def test_a_job_that_others_change_all_the_time_holds_up_no_other_and_is_finished_by_the_next_tick(log, jobs):
    log.busy, log.conflicts = jobs[0], MAX_ATTEMPTS
    scheduler = Scheduler(lambda: shown(to_finish=[ToFinish(job, 1, 0) for job in jobs]), log, lease=60, attempts=2, limits=PATIENT)
    scheduler.tick()
    assert phases(log, jobs) == [JobStatus.RUNNING, JobStatus.COMPLETED]
    assert not scheduler.is_idle
    scheduler.tick()
    assert phases(log, jobs) == [JobStatus.COMPLETED] * 2


def test_a_tick_ends_jobs_until_its_time_is_over_and_at_least_one(log, jobs):
    scheduler = Scheduler(lambda: shown(to_finish=[ToFinish(job, 1, 0) for job in jobs]), log, lease=60, attempts=2, clock=count().__next__)
    scheduler.tick()
    assert phases(log, jobs) == [JobStatus.COMPLETED, JobStatus.RUNNING]
    assert not scheduler.is_idle


def test_an_image_that_others_change_all_the_time_is_abandoned_by_a_later_tick(log, scenario):
    ada = scenario.user()
    images = [scenario.image(ada, scenario.dataset(ada)) for _ in range(2)]
    about = {"kind": Kind.INSPECT, "job": None, "number": None, "urgent": False, "attempts": 2, "abandoned": False}
    queue = shown(leases=[Lease(id=one, held_at=NOW.replace(year=2000), **about) for one in images])
    log.busy, log.conflicts = images[0], MAX_ATTEMPTS
    scheduler = Scheduler(lambda: queue, log, lease=60, attempts=2, limits=PATIENT)
    scheduler.tick()
    assert [log.load(one, image.evolve).rejected for one in images] == [None, "inspection_failed"]
    assert queue.abandoned == images[1:]
    scheduler.tick()
    assert log.load(images[0], image.evolve).rejected == "inspection_failed"
    assert queue.abandoned == [images[1], *images]


class DeletedImages(Queue):
    """One job over an image, which was deleted meanwhile; it waits until its chunk has an answer."""

    def __init__(self, log, job, covered):
        super().__init__(shown().snapshot())
        self._log, self._job, self._covered = log, job, covered
        self._chunk = Chunk(id=chunk_id(job, 0), number=0)

    def waiting(self, *, urgent, maximum, external=False):
        is_open = urgent and self._log.event(self._chunk.id, 1) is None
        about = {"position": 1, "image_id": self._covered, "created_by": uuid4(), "waiting": (self._chunk,)}
        return [OpenJob(id=self._job, **about)] if is_open else []

    def images_of(self, chunks):
        return {chunk: [PlannedImage(self._covered, SHA256)] for chunk in chunks}

    def deleted(self, images):
        return set(images)

    def reusable(self, files):
        return {}


def test_a_chunk_that_waits_for_an_upgrade_leaves_the_scheduler_busy(log, scenario):
    ada = scenario.user()
    scenario.model()
    covered = scenario.image(ada, scenario.dataset(ada))
    job = scenario.job(ada, image=covered)
    queue = DeletedImages(log, job, covered)
    log.busy, log.conflicts, log.problem = chunk_id(job, 0), 1, UpgradePending("a worker does not know the event yet")
    scheduler = Scheduler(lambda: queue, log, lease=60, attempts=2, limits=PATIENT)
    scheduler.tick()
    assert log.event(chunk_id(job, 0), 1) is None
    assert not scheduler.is_idle
    scheduler.tick()
    assert log.event(chunk_id(job, 0), 1) is not None
    scheduler.tick()
    assert scheduler.is_idle


class RepeatedResults(DeletedImages):
    """One job over an image that has the result `earlier`."""

    def __init__(self, log, job, covered, earlier):
        super().__init__(log, job, covered)
        self._earlier = earlier

    def deleted(self, images):
        return set()

    def reusable(self, files):
        return dict.fromkeys(files, self._earlier)


def repeated(log, scenario):
    """A job over an image with an earlier result, and the queue that shows it."""
    ada = scenario.user()
    covered = scenario.image(ada, scenario.dataset(ada))
    first, again = (scenario.job(ada, image=covered) for _ in range(2))
    scenario.judge(first, 0, [covered])
    earlier = EarlierResult(result_id(first, covered), covered, log.event(chunk_id(first, 0), 1).position)
    return again, RepeatedResults(log, again, covered, earlier)


def test_an_earlier_result_that_the_log_takes_no_more_is_computed_again(log, scenario):
    scenario.model()
    again, queue = repeated(log, scenario)
    log.busy, log.conflicts, log.problem = chunk_id(again, 0), 1, Refused("a score is not a number between 0 and 1")
    scheduler = Scheduler(lambda: queue, log, lease=60, attempts=2, limits=PATIENT)
    assert [(one.task.job, one.task.number) for one in scheduler.tick()] == [(again, 0)]
    assert scheduler.tick() == []
    assert log.event(chunk_id(again, 0), 1) is not None


def test_a_version_whose_rules_are_broken_stops_no_other_job(log, scenario):
    """A worker may have added such a version, and results of it."""
    scenario.model(package="d" * 64, record='{"config":{"bioscope":{"output":{"threshold":7}}}}')
    again, queue = repeated(log, scenario)
    scheduler = Scheduler(lambda: queue, log, lease=60, attempts=2, limits=PATIENT)
    assert [(one.task.job, one.task.number) for one in scheduler.tick()] == [(again, 0)]
