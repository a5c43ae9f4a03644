"""Jobs from request to end: planned, given out, given out again, and closed. One process leads."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from application.chunk_results import JobPlans, record_chunk_results
from application.commands import execute, existing
from application.dispatch_policy import (
    CHUNKS_PER_SLOT,
    Chunk,
    Lease,
    OpenJob,
    OutgoingTask,
    SchedulerSnapshot,
    ToFinish,
    ToPlan,
    WorkQueue,
    chunk_capacity,
    classify,
    expired_leases,
    fair_share,
    inspect,
    inspection_capacity,
    live_slots,
)
from application.ports import Command, ConcurrencyConflict, EventStore
from application.tasks import Kind
from domain import classification, image
from domain.access import Actor
from domain.classification import MAX_PLAN, Classification, ImageFailure, PlannedImage
from domain.errors import NotFound, UpgradePending
from domain.events import Event
from domain.values import system_actor

log = structlog.get_logger()
T = TypeVar("T")

ACTOR = Actor(id=system_actor("scheduler"), kind="system")
PLAN_PAGE = 20 * MAX_PLAN  # images planned in one command
MAX_URGENT = 64  # chunks of one job that asks for one image: there is one
CLEANUP_INTERVAL_SECONDS = 1.0  # seconds between two cleanings
LOST = "worker_lost"
GONE = "image_deleted"
UNINSPECTED = "inspection_failed"


class Scheduler:
    """`prepare` moves every open job on and says what to give out; `released` remembers that it was. Both block.

    A task is sent before it is remembered: it may go out twice, never be forgotten.
    """

    def __init__(self, work: Callable[[], WorkQueue], events: EventStore, *, lease: float, attempts: int) -> None:
        self._open, self._log = work, events
        self._lease, self._attempts = timedelta(seconds=lease), attempts
        self._plans = JobPlans(events)
        self._there: WorkQueue | None = None
        self._leading = False
        self._tidied = 0.0
        self.is_idle = False  # whether the last look found nothing open; only changes of the read models can open something

    def close(self) -> None:
        """Somebody else may lead."""
        if self._there is not None:
            self._there.close()
            self._there = None

    def tick(self) -> list[OutgoingTask]:
        """Nothing for who does not lead. Raises what the log and the open work raise when the database is away."""
        self.is_idle = False
        if not self._leads():
            return []
        glance = self._work.snapshot()
        _partition(glance.to_plan, self._plan)
        _partition(glance.to_finish, self._finish)
        _partition(glance.orphans, lambda orphan: self._decide(orphan.id, _cancelled))
        outgoing = self._to_give_out(glance)
        self.is_idle = not (outgoing or glance.to_plan or glance.to_finish or glance.orphans or glance.releases)
        return outgoing

    def released(self, given: Sequence[OutgoingTask]) -> None:
        self._work.released(given)

    # ---- planning and ending ----
    def _plan(self, job: ToPlan) -> None:
        """In pages, each in a command of its own; who comes after a crash goes on behind the last image planned."""
        state = self._log.load(job.id, classification.evolve)
        after = self._last_planned(state) if state is not None and state.parts else 0
        while state is not None and not state.planned and not state.phase.ended and not state.deleted:
            found = self._work.covered(state.dataset_id, after=after, until=job.position, maximum=PLAN_PAGE + 1)
            page, more = found[:PLAN_PAGE], len(found) > PLAN_PAGE
            images = [PlannedImage(one.id, one.sha256) for one in page]
            events = classification.plan(state, images, more=more, by=ACTOR.id, at=_now())
            if not self._append(events):
                return
            for event in events:
                state = classification.evolve(state, event)
            after = page[-1].position if page else after
            log.info("planned", job=str(job.id), images=len(images), more=more)

    def _last_planned(self, state: Classification) -> int:
        for recorded in reversed(self._log.history(state.id)):
            event = self._log.decode(recorded)
            if isinstance(event, classification.ClassificationPlanned) and event.images:
                return self._work.position_of(event.images[-1].id)
        return 0

    def _finish(self, done: ToFinish) -> None:
        self._decide(
            done.id, lambda job: classification.complete(job, succeeded=done.succeeded, failed=done.failed, by=ACTOR.id, at=_now())
        )

    def _decide(self, job: UUID, decide: Callable[[Classification], Sequence[Event]]) -> None:
        state = self._log.load(job, classification.evolve)
        if state is not None:
            self._append(decide(state))

    def _append(self, events: Sequence[Event]) -> bool:
        """False when somebody else was faster: then there is nothing left to say."""
        if not events:
            return False
        try:
            self._log.append(Command(id=uuid4(), actor=ACTOR, at=events[0].at), *events)
        except ConcurrencyConflict:
            return False
        return True

    # ---- giving out ----
    def _to_give_out(self, glance: SchedulerSnapshot) -> list[OutgoingTask]:
        slots = live_slots(glance.workers, now=glance.now)
        missing = expired_leases(glance.releases, glance.workers, lease=self._lease, now=glance.now)
        _partition([release for release in missing if release.attempts >= self._attempts], self._give_up)
        again = [release for release in missing if release.attempts < self._attempts]
        return [*self._again(again), *self._chunks(glance.releases, slots), *self._inspections(glance.releases, slots)]

    def _chunks(self, releases: Sequence[Lease], slots: int) -> list[OutgoingTask]:
        """Single images at once, whatever is under way; chunks of datasets as far as there is room."""
        single = self._work.waiting(urgent=True, maximum=MAX_URGENT)
        chosen = [(job, chunk) for job in single for chunk in job.waiting]
        room = chunk_capacity(releases, slots=slots)
        if room > 0:
            chosen += fair_share(self._work.waiting(urgent=False, maximum=CHUNKS_PER_SLOT * slots), releases, room=room)
        return self._tasks([(job, chunk, 1) for job, chunk in chosen])

    def _inspections(self, releases: Sequence[Lease], slots: int) -> list[OutgoingTask]:
        room = inspection_capacity(releases, slots=slots)
        return inspect(self._work.to_inspect(room)) if room > 0 else []

    def _again(self, missing: Sequence[Lease]) -> list[OutgoingTask]:
        if not missing:
            return []
        log.warning("given out again", works=len(missing))
        jobs = self._work.jobs({release.job for release in missing if release.job})
        chunks = [
            (jobs[release.job], Chunk(id=release.id, number=release.number), release.attempts + 1)
            for release in missing
            if release.job in jobs and release.job is not None and release.number is not None
        ]
        uninspected = [release for release in missing if release.kind is Kind.INSPECT]
        return [
            *self._tasks(chunks),
            *(one for release in uninspected for one in inspect([release.id], attempt=release.attempts + 1)),
        ]

    def _tasks(self, chunks: Sequence[tuple[OpenJob, Chunk, int]]) -> list[OutgoingTask]:
        """A chunk whose images have all been deleted meanwhile is ended here."""
        if not chunks:
            return []
        images = self._work.images_of([chunk.id for _, chunk, _ in chunks])
        deleted = self._work.deleted([one.id for planned in images.values() for one in planned])
        tasks: list[OutgoingTask] = []
        gone: list[tuple[UUID, int]] = []
        for job, chunk, attempt in chunks:
            covered = images.get(chunk.id, ())
            if not all(one.id in deleted for one in covered):
                tasks.append(classify(job, chunk, attempt=attempt))
            elif covered:
                gone.append((job.id, chunk.number))
        _partition(gone, lambda one: self._fail_chunk(*one, reason=GONE, detail="The image was deleted before its turn."))
        return tasks

    # ---- giving up ----
    def _give_up(self, release: Lease) -> None:
        log.error("given up", work=str(release.id), kind=release.kind, attempts=release.attempts)
        if release.job is not None and release.number is not None:
            detail = f"No worker could finish it in {release.attempts} attempts."
            self._fail_chunk(release.job, release.number, reason=LOST, detail=detail)
        else:
            self._reject(release.id)
        self._work.given_up(release.id)

    def _fail_chunk(self, job: UUID, number: int, *, reason: str, detail: str) -> None:
        """Every image of the chunk fails, as the log planned it."""
        chunk = self._plans.chunk(job, number)
        if chunk is None or self._plans.has_ended(job):
            return
        failures = tuple(ImageFailure(image_id=one.id, reason=reason, detail=detail) for one in chunk.images)
        nothing = {"labels": (), "results": (), "provenance": None}
        judged = classification.record_chunk(chunk.job, number, plan=chunk.plan, **nothing, failures=failures, by=ACTOR.id, at=_now())  # type: ignore[arg-type]
        record_chunk_results(self._log, Command(id=uuid4(), actor=ACTOR, at=judged.at), judged)

    def _reject(self, image_id: UUID) -> None:
        """Whoever describes the image meanwhile must not keep it waiting for ever."""
        detail = "The image could not be inspected: every worker that tried was lost. Upload it again, or another copy of it."
        with suppress(NotFound):
            execute(
                self._log,
                Command(id=uuid4(), actor=ACTOR, at=_now()),
                lambda: existing(self._log, image_id, image.evolve, what="Image", closed=lambda it: it.deleted),
                lambda found: image.reject(found, reason=UNINSPECTED, detail=detail, by=ACTOR.id, at=_now()),
            )

    # ---- the database ----
    def _leads(self) -> bool:
        """Whoever lost the connection has lost the lead with it, and asks again."""
        if self._there is None or self._there.closed:
            self._there, self._leading = self._open(), False
        if not self._leading:
            self._leading = self._work.try_to_lead()
        if self._leading and time.monotonic() - self._tidied > CLEANUP_INTERVAL_SECONDS:
            self._work.forget_done()
            self._tidied = time.monotonic()
        return self._leading

    @property
    def _work(self) -> WorkQueue:
        assert self._there is not None
        return self._there


def _partition(found: Sequence[T], act: Callable[[T], object]) -> None:
    """Jobs that wait for an upgrade, of this process or another one, hold up no others."""
    for one in found:
        try:
            act(one)
        except UpgradePending as needed:
            log.info("a job waits for an upgrade", reason=needed.detail)


def _cancelled(job: Classification) -> list[Event]:
    return [] if job.phase.ended else [classification.cancel(job, by=ACTOR.id, at=_now())]


def _now() -> datetime:
    return datetime.now(UTC)
