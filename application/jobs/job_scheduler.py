"""The scheduler: plans jobs, dispatches tasks, dispatches expired ones again, and completes jobs. One process at a time leads."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID, uuid4

import structlog
from cachetools import LRUCache

from application import image_inspection, model_checks
from application.commands import execute, load_existing
from application.jobs.chunk_results import ChunkAnswers, JobPlans, record_chunk_results
from application.jobs.dispatch_policy import (
    CHUNKS_PER_SLOT,
    check,
    check_capacity,
    chunk_capacity,
    classify,
    expired_leases,
    fair_share,
    inspect,
    inspection_capacity,
    live_slots,
)
from application.jobs.planner import Planner, PlanningLimits
from application.jobs.reused_results import OpenChunk, ReusedResults
from application.jobs.tasks import Kind
from application.jobs.work_queue import (
    Chunk,
    EarlierResult,
    Lane,
    Lease,
    OpenJob,
    OutgoingTask,
    Overdue,
    SchedulerSnapshot,
    ToFinish,
    WorkQueue,
)
from application.ports import Command, EventStore
from domain import classification
from domain.access import Actor
from domain.classification import Classification
from domain.errors import ConcurrencyConflict, NotFound, UpgradePending
from domain.events import Event
from domain.values import system_actor

log = structlog.get_logger()
T = TypeVar("T")

ACTOR = Actor(id=system_actor("scheduler"), kind="system")
WORKER_LOST = "worker_lost"
IMAGE_DELETED = "image_deleted"
INSPECTION_FAILED = "inspection_failed"
CHECK_ABANDONED = model_checks.PackageRefusal(
    WORKER_LOST, "The package could not be checked: every worker that tried was lost. Add it again, or use a smaller network"
)


class SchedulerLimits(NamedTuple):
    """`seconds_per_tick`: after which a tick begins no other step of the same kind, so that single images wait for a short time only."""

    planning: PlanningLimits = PlanningLimits()
    seconds_per_tick: float = 0.05
    cleanup_interval_seconds: float = 1.0
    max_answered: int = 4096


DEFAULT_LIMITS = SchedulerLimits()


class Scheduler:
    """`tick` advances every open job and returns tasks to send; `dispatched` records that they were sent. Both block.

    A task is sent before that is recorded, so it may be sent twice but is never lost. `lease` is in seconds; a task is abandoned after
    `attempts` expired leases.
    """

    def __init__(
        self,
        work: Callable[[], WorkQueue],
        events: EventStore,
        *,
        lease: float,
        attempts: int,
        limits: SchedulerLimits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._open_queue, self._log = work, events
        self._lease, self._attempts = timedelta(seconds=lease), attempts
        self._limits, self._clock, self._now = limits, clock, now or _utc_now
        self._plans = JobPlans(events)
        self._planner = Planner(events, self._command, has_time=self._has_time, limits=limits.planning)
        self._reused = ReusedResults(events, self._plans)
        self._answered: LRUCache[UUID, bool] = LRUCache(limits.max_answered)  # chunks that the read models may still show as waiting
        self._queue: WorkQueue | None = None
        self._leading = False
        self._has_skipped = False
        self._cleaned_at = 0.0
        self._tick_began_at = 0.0
        self.is_idle = False  # whether the last tick found no open work; only a change of the read models can add some

    def close(self) -> None:
        """Give up the lead."""
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def tick(self) -> list[OutgoingTask]:
        """Advance all open jobs; return the tasks to send, none unless this process leads. Raises Unavailable and database errors."""
        self.is_idle = False
        if not self._leads():
            return []
        snapshot = self._work.snapshot()
        self._has_skipped, self._tick_began_at = False, self._clock()
        self._for_each(self._planner.begin_turn(snapshot.to_plan), lambda job: self._planner.plan(job, self._work))
        self._for_each(snapshot.to_finish, self._finish)
        self._for_each(snapshot.overdue, self._expire)
        self._for_each(snapshot.orphans, lambda orphan: self._decide(orphan.id, _cancel))
        outgoing = self._to_dispatch(snapshot)
        remaining = outgoing or snapshot.to_plan or snapshot.to_finish or snapshot.overdue or snapshot.orphans or snapshot.leases
        self.is_idle = not (remaining or self._has_skipped)
        return outgoing

    def dispatched(self, tasks: Sequence[OutgoingTask]) -> None:
        self._work.mark_dispatched(tasks)

    def _for_each(self, found: Sequence[T], act: Callable[[T], object]) -> None:
        """Act on each item, at least on one, until the time of this tick is over.

        An item that needs an upgrade of a process, or that others keep changing, waits for a later tick, as do those that are left.
        """
        for index, one in enumerate(found):
            if index and not self._has_time():
                self._has_skipped = True
                return
            try:
                act(one)
            except UpgradePending as needed:
                self._has_skipped = True
                log.info("a job waits for an upgrade", reason=needed.detail)
            except ConcurrencyConflict:
                self._has_skipped = True
                log.info("a job was changed by others; the next tick decides again")

    def _has_time(self) -> bool:
        return self._clock() - self._tick_began_at < self._limits.seconds_per_tick

    # ---- ending ----
    def _finish(self, done: ToFinish) -> None:
        self._decide(done.id, partial(_complete, succeeded=done.succeeded, failed=done.failed))

    def _expire(self, overdue: Overdue) -> None:
        self._decide(overdue.id, partial(_expired, answered=overdue.succeeded + overdue.failed, failed=overdue.failed))

    def _decide(self, job: UUID, decide: "Decision") -> None:
        """Execute a decision about a job, unless the log has no such job."""
        command = self._command()

        def load() -> Classification:
            return load_existing(self._log, job, classification.evolve, what="Classification", closed=lambda _: False)

        with suppress(NotFound):
            execute(self._log, command, load, lambda state: decide(state, at=command.at))

    def _command(self) -> Command:
        return Command(id=uuid4(), actor=ACTOR, at=self._now())

    # ---- dispatching ----
    def _to_dispatch(self, snapshot: SchedulerSnapshot) -> list[OutgoingTask]:
        slots = live_slots(snapshot.workers, now=snapshot.now)
        expired = expired_leases(snapshot.leases, snapshot.workers, duration=self._lease, now=snapshot.now)
        self._for_each([lease for lease in expired if lease.attempts >= self._attempts], self._abandon)
        again = [lease for lease in expired if lease.attempts < self._attempts]
        return [
            *self._dispatch_again(again),
            *self._tasks([(job, chunk, 1) for lane in _lanes(snapshot) for job, chunk in self._next_chunks(snapshot, lane)]),
            *self._inspections(snapshot.leases, slots),
            *self._checks(snapshot),
        ]

    def _next_chunks(self, snapshot: SchedulerSnapshot, lane: Lane) -> list[tuple[OpenJob, Chunk]]:
        """Waiting chunks of a lane, up to its capacity. Single images of one person delay no other."""
        slots = live_slots(snapshot.workers, lane=lane.workers, now=snapshot.now)
        leases = [lease for lease in snapshot.leases if lease.kind is Kind.CLASSIFY and lease.lane == lane]
        capacity = chunk_capacity(leases, urgent=lane.urgent, slots=slots)
        if capacity <= 0 and not lane.urgent:
            return []
        jobs = self._work.waiting(urgent=lane.urgent, external=lane.external, maximum=2 * CHUNKS_PER_SLOT * slots)
        return fair_share(jobs, leases, capacity=capacity, one_each=lane.urgent)

    def _inspections(self, leases: Sequence[Lease], slots: int) -> list[OutgoingTask]:
        capacity = inspection_capacity(leases, slots=slots)
        return inspect(self._work.to_inspect(capacity)) if capacity > 0 else []

    def _checks(self, snapshot: SchedulerSnapshot) -> list[OutgoingTask]:
        capacity = check_capacity(snapshot.leases, snapshot.workers, now=snapshot.now)
        return [check(one) for one in self._work.to_check(capacity)] if capacity > 0 else []

    def _dispatch_again(self, expired: Sequence[Lease]) -> list[OutgoingTask]:
        if not expired:
            return []
        log.warning("dispatched again", works=len(expired))
        jobs = self._work.jobs({lease.job for lease in expired if lease.job})
        chunks = [
            (jobs[lease.job], Chunk(id=lease.id, number=lease.number), lease.attempts + 1)
            for lease in expired
            if lease.job in jobs and lease.job is not None and lease.number is not None
        ]
        uninspected = [lease for lease in expired if lease.kind is Kind.INSPECT]
        return [
            *self._tasks(chunks),
            *(one for lease in uninspected for one in inspect([lease.id], attempt=lease.attempts + 1)),
            *(check(lease.id, attempt=lease.attempts + 1) for lease in expired if lease.kind is Kind.CHECK),
        ]

    def _tasks(self, chunks: Sequence[tuple[OpenJob, Chunk, int]]) -> list[OutgoingTask]:
        """The tasks for these chunks. A chunk without remaining images, or whose results can be reused, is recorded instead."""
        chunks = [one for one in chunks if one[1].id not in self._answered]
        if not chunks:
            return []
        images = self._work.images_of([chunk.id for _, chunk, _ in chunks])
        deleted = self._work.deleted([one.id for planned in images.values() for one in planned])
        remaining = {chunk: [one for one in planned if one.id not in deleted] for chunk, planned in images.items()}
        self._for_each([(job.id, chunk) for job, chunk, _ in chunks if remaining.get(chunk.id) == []], self._fail_deleted)
        filled = [(job, chunk, attempt) for job, chunk, attempt in chunks if remaining.get(chunk.id)]
        kept = self._reuse([OpenChunk(job.id, chunk.number, remaining[chunk.id]) for job, chunk, _ in filled])
        return [classify(job, chunk, attempt=attempt) for job, chunk, attempt in filled if chunk.id not in kept]

    def _fail_deleted(self, deleted: tuple[UUID, Chunk]) -> None:
        job, chunk = deleted
        self._fail_chunk(job, chunk.number, reason=IMAGE_DELETED, detail="The image was deleted before it was classified.")
        self._answered[chunk.id] = True

    def _reuse(self, chunks: Sequence[OpenChunk]) -> set[UUID]:
        """Record earlier results for those of the chunks that may repeat them. Returns the chunks that need no worker."""
        found = self._reused.find(chunks, self._work)
        kept = {chunk.id for chunk, _ in found}

        def record(one: tuple[OpenChunk, dict[str, EarlierResult]]) -> None:
            chunk, earlier = one
            if self._reused.record(chunk, earlier, self._command()):
                self._answered[chunk.id] = True
                self._has_skipped = True  # more chunks may follow at once
            else:
                kept.discard(chunk.id)

        self._for_each(found, record)
        return kept

    # ---- abandoning ----
    def _abandon(self, lease: Lease) -> None:
        log.error("abandoned", work=str(lease.id), kind=lease.kind, attempts=lease.attempts)
        if lease.job is not None and lease.number is not None:
            who = "bridge to the external classifier" if lease.external else "worker"
            detail = f"No {who} finished the image in {lease.attempts} attempts."
            self._fail_chunk(lease.job, lease.number, reason=WORKER_LOST, detail=detail)
        elif lease.kind is Kind.CHECK:
            model_checks.record_failed(lease.id, CHECK_ABANDONED, None, command=self._command(), log=self._log)
        else:
            self._reject(lease.id)
        self._work.mark_abandoned(lease.id)

    def _fail_chunk(self, job: UUID, number: int, *, reason: str, detail: str) -> None:
        """Record a failure for every planned image of the chunk."""
        chunk = self._plans.chunk(job, number)
        if chunk is None or self._plans.has_ended(job):
            return
        answers = ChunkAnswers.failure_of_all(chunk, reason=reason, detail=detail)
        record_chunk_results(chunk, answers, command=self._command(), log=self._log)

    def _reject(self, image_id: UUID) -> None:
        detail = "The image could not be inspected: every worker that tried was lost. Upload the image again, or another copy of it."
        image_inspection.reject(image_id, reason=INSPECTION_FAILED, detail=detail, command=self._command(), log=self._log)

    # ---- the database ----
    def _leads(self) -> bool:
        """Whether this process leads. The lead is lost with the database connection, and requested again."""
        if self._queue is None or self._queue.closed:
            self._queue, self._leading = self._open_queue(), False
        if not self._leading:
            self._leading = self._work.try_to_lead()
        if self._leading and self._clock() - self._cleaned_at > self._limits.cleanup_interval_seconds:
            self._work.delete_done()
            self._cleaned_at = self._clock()
        return self._leading

    @property
    def _work(self) -> WorkQueue:
        assert self._queue is not None
        return self._queue


class Decision(Protocol):
    def __call__(self, job: Classification, *, at: datetime) -> Sequence[Event]: ...


def _lanes(snapshot: SchedulerSnapshot) -> list[Lane]:
    """Those that may have open jobs, single images first."""
    external = (False, True) if snapshot.external else (False,)
    return [Lane(urgent=urgent, external=one) for urgent in (True, False) for one in external]


def _complete(job: Classification, *, succeeded: int, failed: int, at: datetime) -> list[Event]:
    return classification.complete(job, succeeded=succeeded, failed=failed, by=ACTOR.id, at=at)


def _expired(job: Classification, *, answered: int, failed: int, at: datetime) -> list[Event]:
    return classification.expire(job, answered=answered, failed=failed, by=ACTOR.id, at=at)


def _cancel(job: Classification, *, at: datetime) -> list[Event]:
    return [] if job.phase.ended else [classification.cancel(job, by=ACTOR.id, at=at)]


def _utc_now() -> datetime:
    return datetime.now(UTC)
