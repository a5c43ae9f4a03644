"""The read models of jobs: progress, and failures of images."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor, Scope
from domain.classification import (
    ChunkJudged,
    ClassificationCancelled,
    ClassificationCompleted,
    ClassificationDeleted,
    ClassificationFailed,
    ClassificationPlanned,
    ClassificationRequested,
    ImageFilter,
    JobStatus,
    PlaneSelection,
    Priority,
    chunks_of,
)
from domain.errors import Invalid
from domain.events import Event
from domain.values import result_id
from projections.access import ADMINISTRATORS, subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table
from projections.job_pace import LATELY_ANSWERED, rate, remaining_seconds
from projections.pagination import MAX_PAGE, Page, only_row, page_of, page_size, parse_cursor

OWN = (
    ClassificationRequested,
    ClassificationPlanned,
    ClassificationCancelled,
    ClassificationCompleted,
    ClassificationFailed,
    ClassificationDeleted,
)


class Classification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job. `images` and `chunks` are planned numbers; `judged` counts chunks with results, `succeeded` and `failed` count images.

    `planes` is what the caller chose; null where the model chooses. `selected`, `filter` and `path` choose images of the dataset.
    `started_at` is when the first part was planned, `last_result_at` the time of the newest results; both are null before.
    """

    id: UUID
    version: int
    dataset_id: UUID
    image_id: UUID | None
    model_id: UUID
    model_name: str
    model_version: int
    model_sha256: str
    threshold: float
    created_by: UUID
    created_at: datetime
    updated_at: datetime
    status: JobStatus
    planned: bool
    images: int
    chunks: int
    judged: int
    succeeded: int
    failed: int
    reason: str | None
    deleted: bool
    position: int
    external: bool
    priority: Priority
    fresh: bool
    planes: PlaneSelection | None = None
    selected: tuple[UUID, ...] | None = None
    filter: ImageFilter | None = None
    path: str | None = None
    deadline: datetime | None = None
    top_k: int | None = None
    retry_of: UUID | None = None
    started_at: datetime | None = None
    last_result_at: datetime | None = None


def keys(positioned: PositionedEvent) -> Iterable[UUID]:
    event = positioned.event
    return (event.job_id if isinstance(event, ChunkJudged) else event.originator_id,)


def fold(_: UUID, row: Classification | None, positioned: PositionedEvent, __: RowLookup) -> Classification | None:
    """The next row. Results of chunks come from other streams; a parked one gives the same row when it is applied late."""
    event = positioned.event
    if isinstance(event, ClassificationRequested):
        return _requested(event, positioned.position)
    if row is None:
        return None
    if isinstance(event, ChunkJudged):
        return msgspec.structs.replace(
            row,
            updated_at=max(row.updated_at, event.at),
            last_result_at=max(row.last_result_at or event.at, event.at),
            judged=row.judged + 1,
            succeeded=row.succeeded + len(event.results),
            failed=row.failed + len(event.failures),
        )
    return msgspec.structs.replace(_changed(row, event), version=event.originator_version, updated_at=max(row.updated_at, event.at))


def _requested(event: ClassificationRequested, position: int) -> Classification:
    return Classification(
        id=event.originator_id,
        version=event.originator_version,
        dataset_id=event.dataset_id,
        image_id=event.image_id,
        model_id=event.model_id,
        model_name=event.model_name,
        model_version=event.model_version,
        model_sha256=event.model_sha256,
        threshold=event.threshold,
        created_by=event.by,
        created_at=event.at,
        updated_at=event.at,
        status=JobStatus.PENDING,
        planned=False,
        images=0,
        chunks=0,
        judged=0,
        succeeded=0,
        failed=0,
        reason=None,
        deleted=False,
        position=position,
        planes=event.planes,
        selected=event.images or None,
        filter=event.filter,
        path=event.path,
        external=event.external,
        priority=event.priority,
        deadline=event.deadline,
        top_k=event.top_k,
        fresh=event.fresh,
        retry_of=event.retry_of,
    )


def _changed(row: Classification, event: Event) -> Classification:
    match event:
        case ClassificationPlanned():
            return msgspec.structs.replace(
                row,
                status=JobStatus.RUNNING,
                started_at=row.started_at or event.at,
                planned=event.last,
                images=row.images + len(event.images),
                chunks=row.chunks + len(chunks_of(event.images)),
            )
        case ClassificationCancelled():
            return msgspec.structs.replace(row, status=JobStatus.CANCELLED)
        case ClassificationCompleted():
            return msgspec.structs.replace(row, status=JobStatus.COMPLETED)
        case ClassificationFailed():
            return msgspec.structs.replace(row, status=JobStatus.FAILED, reason=event.reason)
        case ClassificationDeleted():
            return msgspec.structs.replace(row, deleted=True)
        case _:
            return row


TABLE = Table("classifications", Classification, (*OWN, ChunkJudged), keys, fold, fold_version=2)


# ---- failures ----------------------------------------------------------------------------------------------------------------------
class FailureRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    classification_id: UUID
    image_id: UUID
    dataset_id: UUID
    reason: str
    detail: str
    created_at: datetime


def failure_keys(positioned: PositionedEvent) -> Iterable[tuple[UUID, int]]:
    event = positioned.event
    assert isinstance(event, ChunkJudged)
    return {result_id(event.job_id, one.image_id): index for index, one in enumerate(event.failures)}.items()


def failure_fold(key: tuple[UUID, int], first: FailureRow | None, positioned: PositionedEvent, _: RowLookup) -> FailureRow | None:
    if first is not None:
        return first
    event = positioned.event
    assert isinstance(event, ChunkJudged)
    failure = event.failures[key[1]]
    return FailureRow(
        id=key[0],
        classification_id=event.job_id,
        image_id=failure.image_id,
        dataset_id=event.dataset_id,
        reason=failure.reason,
        detail=failure.detail,
        created_at=event.at,
    )


FAILURES = Table("failures", FailureRow, (ChunkJudged,), failure_keys, failure_fold, loads=False, first_stays=True)


# ---- queries -----------------------------------------------------------------------------------------------------------------------
class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An image without a result: `reason` is a stable code, `detail` a sentence for the user."""

    id: UUID
    image_id: UUID
    reason: str
    detail: str
    created_at: datetime


class Job(Classification, frozen=True, kw_only=True):
    """A job as queried, without the list of its images: `listed` is their number, 0 if there is no list."""

    listed: int
    lately_answered: int
    now: datetime


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a job: numbers of `images` that `succeeded` or `failed`. `planned`: the number of images is final.

    `rate` is in images per second, `remaining_seconds` follow from it; both are null while they are not known.
    """

    id: UUID
    status: JobStatus
    planned: bool
    images: int
    chunks: int
    judged: int
    succeeded: int
    failed: int
    reason: str | None
    rate: float | None
    remaining_seconds: float | None


COLUMNS = ", ".join(
    [*(f"c.{name}" for name in Classification.__struct_fields__ if name != "selected"), "coalesce(cardinality(c.selected), 0) as listed"]
)
GET = f"""select {COLUMNS}, {LATELY_ANSWERED} from classifications c join visible v on v.dataset = c.dataset_id and v.subject = %(subject)s
  where c.id = %(id)s and not c.deleted"""  # noqa: S608 - constants
PROGRESS = f"""select {COLUMNS}, {LATELY_ANSWERED} from classifications c
  join visible v on v.dataset = c.dataset_id and v.subject = %(subject)s where c.id = any(%(ids)s::uuid[]) and not c.deleted"""  # noqa: S608
FILTERS = """not c.deleted
    and (%(status)s::text is null or c.status = %(status)s::text)
    and (%(image_id)s::uuid is null or c.image_id = %(image_id)s::uuid)
    and (%(created_by)s::uuid is null or c.created_by = %(created_by)s::uuid)
    and (%(at)s::timestamptz is null or (c.created_at, c.id) < (%(at)s::timestamptz, %(after)s::uuid))"""
NEWEST = "order by c.created_at desc, c.id desc limit %(maximum)s"
BY_DATASET = f"""select {COLUMNS}, {LATELY_ANSWERED} from visible v cross join lateral (
    select c.* from classifications c where c.dataset_id = v.dataset and {FILTERS} {NEWEST}
  ) c where v.subject = %(subject)s and (%(dataset_id)s::uuid is null or v.dataset = %(dataset_id)s::uuid) {NEWEST}"""  # noqa: S608 - constants
ALL_TOGETHER = f"""select {COLUMNS}, {LATELY_ANSWERED} from classifications c
  join visible v on v.dataset = c.dataset_id and v.subject = %(subject)s
  where {FILTERS} {NEWEST}"""  # noqa: S608 - constants
FAILED = """select f.id, f.image_id, f.reason, f.detail, f.created_at from failures f
  join classifications c on c.id = f.classification_id and not c.deleted
  join visible v on v.dataset = f.dataset_id and v.subject = %(subject)s
  where f.classification_id = %(id)s
    and (%(at)s::timestamptz is null or (f.created_at, f.id) > (%(at)s::timestamptz, %(after)s::uuid))
  order by f.created_at, f.id limit %(maximum)s"""


async def get(db: QueryDatabase, actor: Actor, job_id: UUID) -> Job:
    """A visible job. Raises NotFound."""
    return await only_row(db, GET, {"subject": subject_of(actor, scope=Scope.JOBS_RUN), "id": job_id}, into=Job, what="Classification")


async def listed(
    db: QueryDatabase,
    actor: Actor,
    *,
    status: str | None = None,
    dataset_id: UUID | None = None,
    image_id: UUID | None = None,
    created_by: UUID | None = None,
    cursor: str | None = None,
    size: int = MAX_PAGE,
) -> Page[Job]:
    """A page of visible jobs, newest first. Raises Invalid for an unknown status or cursor."""
    if status is not None and status not in set(JobStatus):
        words = ", ".join(JobStatus)
        raise Invalid(f"status must be one of {words}", errors=[{"loc": ["query", "status_filter"], "msg": f"must be one of {words}"}])
    after, maximum = parse_cursor(cursor), page_size(size)
    subject = subject_of(actor, scope=Scope.JOBS_RUN)
    parameters = {"status": status, "dataset_id": dataset_id, "image_id": image_id, "created_by": created_by, "subject": subject}
    query = ALL_TOGETHER if subject == ADMINISTRATORS and dataset_id is None else BY_DATASET
    found = await db.rows(query, parameters | {"at": after.value, "after": after.id, "maximum": maximum + 1}, into=Job)
    return page_of(found, maximum, lambda job: job.created_at)


async def progress(db: QueryDatabase, actor: Actor, job_ids: Iterable[UUID]) -> dict[UUID, Progress]:
    """The progress of visible jobs, by id. A service needs the scope `events:read`."""
    parameters = {"subject": subject_of(actor, scope=Scope.EVENTS_READ), "ids": list(job_ids)}
    return {job.id: _progress_of(job) for job in await db.rows(PROGRESS, parameters, into=Job)}


def _progress_of(job: Job) -> Progress:
    fields = {name: getattr(job, name) for name in Progress.__struct_fields__ if hasattr(job, name)}
    return Progress(**fields, rate=rate(job), remaining_seconds=remaining_seconds(job))


async def failures(db: QueryDatabase, actor: Actor, job_id: UUID, *, cursor: str | None = None, size: int = MAX_PAGE) -> Page[Failure]:
    """A page of the images without a result, oldest first; empty for a job that the actor may not see."""
    after, maximum = parse_cursor(cursor), page_size(size)
    parameters = {
        "subject": subject_of(actor, scope=Scope.JOBS_RUN),
        "id": job_id,
        "at": after.value,
        "after": after.id,
        "maximum": maximum + 1,
    }
    return page_of(await db.rows(FAILED, parameters, into=Failure), maximum, lambda failure: failure.created_at)
