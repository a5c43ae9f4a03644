"""The work queue on Postgres."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from application.jobs.work_queue import EarlierResult, IdRow, ImagePage, JobFile, OpenJob, OutgoingTask, SchedulerSnapshot
from domain.access import ADMINISTRATORS
from domain.classification import Classification, PlannedImage
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.postgres.advisory_locks import AdvisoryLock, try_lock
from infrastructure.postgres.system import selected_images

T = TypeVar("T")
SNAPSHOTS: Final = msgspec.json.Decoder(SchedulerSnapshot)
MAX_JOBS = 200  # open jobs in one snapshot, the oldest first

OPEN_JOBS = (
    "classifications c join datasets d on d.id = c.dataset_id and not d.deleted where c.status in ('pending', 'running') and not c.deleted"
)
JOBS_TO_PLAN = f"select c.id, c.position from {OPEN_JOBS} and not c.planned and c.image_id is null order by c.position limit 100"  # noqa: S608
HAS_ALL_ANSWERS = "c.planned and c.judged >= c.chunks"
JOBS_TO_FINISH = f"""select c.id, c.succeeded, c.failed from {OPEN_JOBS} and {HAS_ALL_ANSWERS}
  order by c.position limit 100"""  # noqa: S608 - constants
OVERDUE = f"""select c.id, c.images, c.succeeded, c.failed from {OPEN_JOBS} and c.deadline <= clock_timestamp()
  and not ({HAS_ALL_ANSWERS}) order by c.position limit 100"""  # noqa: S608 - constants
ORPHANS = """select c.id from classifications c join datasets d on d.id = c.dataset_id and d.deleted
  where c.status in ('pending', 'running') and not c.deleted limit 100"""
WORKERS = "select seen_at, slots, lane from ops.workers"
LEASES = """select r.id, w.kind, w.job, w.number, c.image_id is not null as urgent, r.attempts,
    greatest(r.released_at, r.held_at) as held_at, r.given_up as abandoned, c.created_by, coalesce(c.external, false) as external
  from ops.releases r join work w on w.id = r.id left join classifications c on c.id = w.job
  where c.id is null or (c.status = 'running' and not c.deleted)"""
SNAPSHOT = f"""select json_build_object('now', clock_timestamp(),
    'to_plan', (select coalesce(json_agg(x), '[]') from ({JOBS_TO_PLAN}) x),
    'to_finish', (select coalesce(json_agg(x), '[]') from ({JOBS_TO_FINISH}) x),
    'overdue', (select coalesce(json_agg(x), '[]') from ({OVERDUE}) x),
    'orphans', (select coalesce(json_agg(x), '[]') from ({ORPHANS}) x),
    'workers', (select coalesce(json_agg(x), '[]') from ({WORKERS}) x),
    'leases', (select coalesce(json_agg(x), '[]') from ({LEASES}) x),
    'external', exists (select from classifications c where c.status in ('pending', 'running') and not c.deleted and c.external))::text"""  # noqa: S608 - constants
WAITING = f"""select c.*, w.waiting from (
    select * from (
      select c.id, c.position, c.image_id, c.created_by, c.priority, c.external, row_number() over (
        partition by c.created_by order by array_position('{{high,normal,low}}', c.priority), c.position
      ) as turn
      from {OPEN_JOBS} and c.status = 'running' and c.judged < c.chunks and (c.image_id is not null) = %(urgent)s
        and c.external = %(external)s
    ) c where c.turn <= %(maximum)s order by c.turn, c.position limit %(jobs)s
  ) c cross join lateral (
    select json_agg(w order by w.number) as waiting from (
      select w.id, w.number from work w left join ops.releases r on r.id = w.id
      where w.job = c.id and r.id is null order by w.number limit %(maximum)s
    ) w
  ) w where w.waiting is not null order by c.position"""  # noqa: S608 - constants
TO_INSPECT = """select w.id from work w join datasets d on d.id = w.dataset_id and not d.deleted
    left join ops.releases r on r.id = w.id
  where w.kind = 'inspect' and r.id is null order by w.position limit %(maximum)s"""
TO_CHECK = """select w.id from work w left join ops.releases r on r.id = w.id
  where w.kind = 'check' and r.id is null order by w.position limit %(maximum)s"""
JOBS = "select c.*, '[]'::json as waiting from classifications c where c.id = any(%(ids)s)"
IMAGES_OF = "select id, images from work where id = any(%(ids)s)"
DELETED = "select id from images where id = any(%(ids)s) and deleted"
LAST_POSITION = "select coalesce(max(position), 0) as position from images where id = any(%(ids)s)"
REUSABLE = """select w.job, w.sha256, e.id, e.image_id, e.position
  from unnest(%(jobs)s::uuid[], %(sha256)s::text[]) w (job, sha256)
  join classifications j on j.id = w.job and not j.fresh and not j.external
  left join users u on u.id = j.created_by
  cross join lateral (
    select r.id, r.image_id, r.position from images i
    join results r on r.image_id = i.id and r.model_name = j.model_name and r.model_version = j.model_version
      and not r.hidden and r.reused is null and r.sha256 = w.sha256
    join classifications c on c.id = r.classification_id and c.model_id = j.model_id and c.planes is not distinct from j.planes
      and not c.external and c.id <> j.id
    join visible v on v.dataset = r.dataset_id and v.subject = case when u.role = 'admin' then %(administrators)s else j.created_by end
    where i.sha256 = w.sha256 and not i.deleted and i.reader = %(reader)s
      and not exists (select from outdated_results o where o.id = r.id)
    limit 1
  ) e"""
DISPATCH = """insert into ops.releases (id, attempts, released_at) select id, attempts, clock_timestamp()
    from jsonb_to_recordset(%(given)s) as given (id uuid, attempts int)
    on conflict (id) do update set attempts = excluded.attempts, released_at = excluded.released_at, held_at = null"""
ABANDON = "update ops.releases set given_up = true where id = %(id)s"
DELETE_DONE = """delete from ops.releases r where not exists (
    select from work w left join classifications c on c.id = w.job
    where w.id = r.id and (c.id is null or (c.status = 'running' and not c.deleted)))"""


class PlannedRow(msgspec.Struct, frozen=True):
    id: UUID
    images: tuple[PlannedImage, ...]


class PositionRow(msgspec.Struct, frozen=True):
    position: int


class ReusableRow(EarlierResult, frozen=True):
    job: UUID
    sha256: str


class PostgresWorkQueue:
    """Implements `WorkQueue`. An advisory lock decides who leads. `on_dispatched` wakes workers. Raises psycopg.Error."""

    def __init__(self, connection: psycopg.Connection, *, on_dispatched: Callable[[], object] = lambda: None) -> None:
        self._connection, self._on_dispatched = connection, on_dispatched

    @property
    def closed(self) -> bool:
        return self._connection.closed

    def close(self) -> None:
        self._connection.close()

    def try_to_lead(self) -> bool:
        return try_lock(self._connection, AdvisoryLock.SCHEDULER)

    def snapshot(self) -> SchedulerSnapshot:
        row = self._connection.execute(SNAPSHOT.encode()).fetchone()
        assert row is not None
        return SNAPSHOTS.decode(row[0])

    def waiting(self, *, urgent: bool, external: bool = False, maximum: int) -> list[OpenJob]:
        return self._rows(WAITING, OpenJob, urgent=urgent, external=external, maximum=maximum, jobs=MAX_JOBS)

    def to_inspect(self, maximum: int) -> list[UUID]:
        return [row.id for row in self._rows(TO_INSPECT, IdRow, maximum=maximum)]

    def to_check(self, maximum: int) -> list[UUID]:
        return [row.id for row in self._rows(TO_CHECK, IdRow, maximum=maximum)]

    def jobs(self, ids: Collection[UUID]) -> dict[UUID, OpenJob]:
        return {job.id: job for job in self._rows(JOBS, OpenJob, ids=list(ids))}

    def images_of(self, work: Collection[UUID]) -> dict[UUID, tuple[PlannedImage, ...]]:
        return {planned.id: planned.images for planned in self._rows(IMAGES_OF, PlannedRow, ids=list(work))}

    def deleted(self, images: Collection[UUID]) -> set[UUID]:
        return {row.id for row in self._rows(DELETED, IdRow, ids=list(images))}

    def classifiable(self, job: Classification, *, after: int, until: int, maximum: int) -> ImagePage:
        parameters = selected_images.parameters(job) | {"after": after, "until": until, "maximum": maximum}
        return self._rows(selected_images.query(job), ImagePage, **parameters)[0]

    def last_position(self, images: Collection[UUID]) -> int:
        return self._rows(LAST_POSITION, PositionRow, ids=list(images))[0].position

    def reusable(self, files: Collection[JobFile]) -> dict[JobFile, EarlierResult]:
        if not files:
            return {}
        jobs, sha256 = (list(column) for column in zip(*files, strict=True))
        about = {"administrators": ADMINISTRATORS, "reader": READER_VERSION}
        found = self._rows(REUSABLE, ReusableRow, jobs=jobs, sha256=sha256, **about)
        return {JobFile(row.job, row.sha256): EarlierResult(row.id, row.image_id, row.position) for row in found}

    def mark_dispatched(self, tasks: Sequence[OutgoingTask]) -> None:
        rows = [{"id": str(work), "attempts": outgoing.task.attempt} for outgoing in tasks for work in outgoing.task.work]
        self._connection.execute(DISPATCH, {"given": Jsonb(rows)})
        self._on_dispatched()

    def mark_abandoned(self, work: UUID) -> None:
        self._connection.execute(ABANDON, {"id": work})

    def delete_done(self) -> None:
        self._connection.execute(DELETE_DONE)

    def _rows(self, query: str, into: type[T], **parameters: Any) -> list[T]:
        return rows(self._connection, query, into, parameters)


def rows(connection: psycopg.Connection, query: str, into: type[T], parameters: Mapping[str, Any]) -> list[T]:
    text = f"select coalesce(json_agg(found), '[]')::text from ({query}) found"  # noqa: S608 - constants
    row = connection.execute(text.encode(), parameters).fetchone()
    assert row is not None
    return msgspec.json.decode(row[0], type=list[into])  # type: ignore[valid-type]
