"""Jobs from request to end: planned, given out, given out again, and closed. One process leads, by an advisory lock."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
import psycopg
import structlog
from psycopg.types.json import Jsonb

from application.ports import Command, Conflicted, Log
from application.tasks import Kind
from domain import classification, image
from domain.access import Actor
from domain.classification import PLAN_MOST, Classification, ImageFailure, PlannedImage
from domain.events import Event
from domain.values import system_actor
from projections.scheduler import (
    Chunk,
    Inspection,
    OpenJob,
    Outgoing,
    Release,
    Worker,
    chosen_chunks,
    classify,
    inspect,
    inspection_room,
    is_lost,
    live_slots,
)

log = structlog.get_logger()
T = TypeVar("T")

LOCK = 0x7363686564  # who holds it schedules
ACTOR = Actor(id=system_actor("scheduler"), kind="system")
JOBS_MOST = 200  # open jobs that are looked at together, the oldest first
PLAN_PAGE = 20 * PLAN_MOST  # images planned in one command
LOST = "worker_lost"
GONE = "image_deleted"
UNINSPECTED = "inspection_failed"

RUNNING = (
    "classifications c join datasets d on d.id = c.dataset_id and not d.deleted where c.status in ('pending', 'running') and not c.deleted"
)
TO_PLAN = f"select c.id, c.position from {RUNNING} and not c.planned and c.image_id is null order by c.position limit 10"  # noqa: S608
TO_FINISH = f"""select c.id, c.succeeded, c.failed from {RUNNING} and c.planned and c.judged >= c.chunks
  order by c.position limit 100"""  # noqa: S608 - constants
ORPHANS = """select c.id from classifications c join datasets d on d.id = c.dataset_id and d.deleted
  where c.status in ('pending', 'running') and not c.deleted limit 100"""
WAITING = f"""select c.*, w.waiting from (
    select c.* from {RUNNING} and c.status = 'running' and c.judged < c.chunks order by c.image_id is null, c.position limit %(jobs)s
  ) c cross join lateral (
    select json_agg(w order by w.number) as waiting from (
      select w.id, w.number, w.images from work w left join ops.releases r on r.id = w.id
      where w.job = c.id and r.id is null order by w.number limit %(most)s
    ) w
  ) w where w.waiting is not null"""  # noqa: S608 - constants
TO_INSPECT = """select w.id, w.images from work w join datasets d on d.id = w.dataset_id and not d.deleted
    left join ops.releases r on r.id = w.id
  where w.kind = 'inspect' and r.id is null order by w.position limit %(most)s"""
RELEASES = """select r.id, w.kind, w.job, w.number, w.images, r.attempts, r.released_at, r.given_up
  from ops.releases r join work w on w.id = r.id left join classifications c on c.id = w.job
  where c.id is null or (c.status = 'running' and not c.deleted)"""
JOBS = "select c.*, '[]'::json as waiting from classifications c where c.id = any(%(ids)s)"
WORKERS = "select seen_at, slots, lane from ops.workers"
DELETED = "select id from images where id = any(%(ids)s) and deleted"
COVERED = """select id, sha256, position from images
  where dataset_id = %(dataset)s and not deleted and rejected is null and position <= %(until)s and position > %(after)s
  order by position limit %(most)s"""
PLACE_OF = "select position from images where id = %(id)s"
RELEASED = """insert into ops.releases (id, attempts, released_at) select id, attempts, clock_timestamp()
  from jsonb_to_recordset(%(given)s) as given (id uuid, attempts int)
  on conflict (id) do update set attempts = excluded.attempts, released_at = excluded.released_at"""
GIVEN_UP = "update ops.releases set given_up = true where id = %(id)s"
FORGET_DONE = """delete from ops.releases r where not exists (
    select from work w left join classifications c on c.id = w.job
    where w.id = r.id and (c.id is null or (c.status = 'running' and not c.deleted)))"""


class Found(msgspec.Struct, frozen=True):
    id: UUID


class ToPlan(msgspec.Struct, frozen=True):
    id: UUID
    position: int


class ToFinish(msgspec.Struct, frozen=True):
    id: UUID
    succeeded: int
    failed: int


class Covered(msgspec.Struct, frozen=True):
    id: UUID
    sha256: str
    position: int


class Position(msgspec.Struct, frozen=True):
    position: int


class Scheduler:
    """`prepare` moves every open job on and says what to give out; `released` remembers that it was. Both block.

    A task is sent before it is remembered: it may go out twice, never be forgotten.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection], events: Log, *, lease: float, attempts: int) -> None:
        self._connect, self._log = connect, events
        self._lease, self._attempts = timedelta(seconds=lease), attempts
        self._connection: psycopg.Connection | None = None
        self._leading = False

    def close(self) -> None:
        """Somebody else may lead."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def prepare(self) -> list[Outgoing]:
        """Nothing for who does not lead. Raises OperationalError or Unavailable when the database is away."""
        if not self._leads():
            return []
        for job in self._rows(TO_PLAN, ToPlan):
            self._plan(job)
        for done in self._rows(TO_FINISH, ToFinish):
            self._decide(done.id, lambda state, done=done: self._ending(state, done))  # type: ignore[misc]
        for orphan in self._rows(ORPHANS, Found):
            self._decide(orphan.id, lambda state: [] if state.phase.ended else [classification.cancel(state, by=ACTOR.id, at=_now())])
        return self._to_give_out()

    def released(self, given: Sequence[Outgoing]) -> None:
        rows = [{"id": str(work), "attempts": outgoing.task.attempt} for outgoing in given for work in outgoing.work]
        self._there().execute(RELEASED, {"given": Jsonb(rows)})

    # ---- planning and ending ----
    def _plan(self, job: ToPlan) -> None:
        """In pages, each in a command of its own; who comes after a crash goes on behind the last image planned."""
        state = self._log.load(job.id, classification.evolve)
        after = self._last_planned(state) if state is not None and state.parts else 0
        while state is not None and not state.planned and not state.phase.ended and not state.deleted:
            wanted = {"dataset": state.dataset_id, "until": job.position, "after": after, "most": PLAN_PAGE + 1}
            found = self._rows(COVERED, Covered, wanted)
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
                return self._rows(PLACE_OF, Position, {"id": event.images[-1].id})[0].position
        return 0

    def _ending(self, state: Classification, done: ToFinish) -> list[Event]:
        return classification.complete(state, succeeded=done.succeeded, failed=done.failed, by=ACTOR.id, at=_now())

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
        except Conflicted:
            return False
        return True

    # ---- giving out ----
    def _to_give_out(self) -> list[Outgoing]:
        self._there().execute(FORGET_DONE)
        now, workers = self._clock(), self._rows(WORKERS, Worker)
        releases = self._rows(RELEASES, Release)
        slots = live_slots(workers, now=now)
        last_beat = max((worker.seen_at for worker in workers), default=None)
        lost = [one for one in releases if not one.given_up and is_lost(one, lease=self._lease, last_beat=last_beat, now=now)]
        for release in lost:
            if release.attempts >= self._attempts:
                self._give_up(release)
        again = self._again([release for release in lost if release.attempts < self._attempts])
        return [*again, *self._first_time(releases, slots)]

    def _first_time(self, releases: Sequence[Release], slots: int) -> list[Outgoing]:
        jobs = self._rows(WAITING, OpenJob, {"jobs": JOBS_MOST, "most": 4 * slots})
        chosen = chosen_chunks(jobs, releases, slots=slots)
        room = inspection_room(releases, slots=slots)
        inspections = self._rows(TO_INSPECT, Inspection, {"most": room}) if room > 0 else []
        return [*self._tasks([(job, chunk, 1) for job, chunk in chosen]), *inspect(inspections)]

    def _again(self, lost: Sequence[Release]) -> list[Outgoing]:
        jobs = {job.id: job for job in self._rows(JOBS, OpenJob, {"ids": [one.job for one in lost if one.job]})} if lost else {}
        chunks = [
            (jobs[one.job], Chunk(id=one.id, number=one.number, images=one.images), one.attempts + 1)
            for one in lost
            if one.job is not None and one.number is not None
        ]
        inspections = [
            outgoing
            for one in lost
            if one.kind is Kind.INSPECT
            for outgoing in inspect([Inspection(id=one.id, images=one.images)], attempt=one.attempts + 1)
        ]
        if lost:
            log.warning("given out again", chunks=len(chunks), inspections=len(inspections))
        return [*self._tasks(chunks), *inspections]

    def _tasks(self, chunks: Sequence[tuple[OpenJob, Chunk, int]]) -> list[Outgoing]:
        covered = [one.id for _, chunk, _ in chunks for one in chunk.images]
        deleted = {found.id for found in self._rows(DELETED, Found, {"ids": covered})} if covered else set()
        made = [(job, chunk, classify(job, chunk, deleted=deleted, attempt=attempt)) for job, chunk, attempt in chunks]
        for job, chunk, outgoing in made:
            if outgoing is None:
                self._fail_chunk(job.id, chunk.number, chunk.images, reason=GONE, detail="The image was deleted before its turn.")
        return [outgoing for _, _, outgoing in made if outgoing is not None]

    # ---- giving up ----
    def _give_up(self, release: Release) -> None:
        log.error("given up", work=str(release.id), kind=release.kind, attempts=release.attempts)
        if release.job is not None and release.number is not None:
            detail = f"No worker could finish it in {release.attempts} attempts."
            self._fail_chunk(release.job, release.number, release.images, reason=LOST, detail=detail)
        else:
            self._reject(release.id)
        self._there().execute(GIVEN_UP, {"id": release.id})

    def _fail_chunk(self, job: UUID, number: int, images: Sequence[PlannedImage], *, reason: str, detail: str) -> None:
        failures = tuple(ImageFailure(image_id=one.id, reason=reason, detail=detail) for one in images)
        self._decide(
            job,
            lambda state: [
                classification.judge(state, number, labels=(), results=(), failures=failures, provenance=None, by=ACTOR.id, at=_now())
            ],
        )

    def _reject(self, image_id: UUID) -> None:
        state = self._log.load(image_id, image.evolve)
        if state is not None and not state.deleted:
            detail = "The image could not be inspected: every worker that tried was lost. Upload it again, or another copy of it."
            self._append(image.reject(state, reason=UNINSPECTED, detail=detail, by=ACTOR.id, at=_now()))

    # ---- the database ----
    def _leads(self) -> bool:
        """Whoever lost the connection has lost the lock with it, and asks again."""
        connection = self._there()
        if not self._leading:
            row = connection.execute("select pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
            self._leading = bool(row and row[0])
            if self._leading:
                log.info("this process schedules")
        return self._leading

    def _there(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection, self._leading = self._connect(), False
        return self._connection

    def _clock(self) -> datetime:
        row = self._there().execute("select clock_timestamp()").fetchone()
        assert row is not None
        return row[0]  # type: ignore[no-any-return]

    def _rows(self, query: str, into: type[T], parameters: Mapping[str, Any] | None = None) -> list[T]:
        text = f"select coalesce(json_agg(found), '[]')::text from ({query}) found"  # noqa: S608 - constants
        row = self._there().execute(text.encode(), parameters or {}).fetchone()
        assert row is not None
        return msgspec.json.decode(row[0], type=list[into])  # type: ignore[valid-type]


def _now() -> datetime:
    return datetime.now(UTC)
