"""The in-memory twins of the read models and of the work queue, over one database."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from application.blob_gc import MAX_LAG, BlobReferences
from application.jobs.tasks import Kind
from application.jobs.work_queue import (
    Chunk,
    EarlierResult,
    IdRow,
    ImagePage,
    JobFile,
    Lease,
    OpenJob,
    OutgoingTask,
    Overdue,
    SchedulerSnapshot,
    ToFinish,
    ToPlan,
    Worker,
)
from application.ports import RecordedEvent
from domain.access import ADMINISTRATORS, Role
from domain.classification import Classification, ImageFilter, JobStatus, PlannedImage
from domain.errors import Unavailable
from infrastructure.images.reader_version import READER_VERSION
from projections.engine.batches import FOLD_VERSIONS, TABLES, Changes, CheckpointToken, ParkedEvents, PoisonEvent
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, CheckpointUnfit, NotInLog, folds_difference
from projections.engine.projection import Key, Row, Table

OPEN = {JobStatus.PENDING, JobStatus.RUNNING}
PLANS_MOST, ENDS_MOST, JOBS_MOST = 100, 100, 200


class Given(msgspec.Struct):
    """Work that was given out."""

    attempts: int
    released_at: datetime
    abandoned: bool = False
    held_at: datetime | None = None


class MemoryDatabase:
    """Read models and what the scheduler remembers. `clock` is the database's own; `log_hash` is that of the log, if it is here too."""

    def __init__(
        self, clock: Callable[[], datetime] = lambda: datetime.now(UTC), *, log_hash: Callable[[int], bytes | None] | None = None
    ) -> None:
        self.clock, self.log_hash = clock, log_hash
        self.tables: dict[str, dict[Key, Any]] = {table.name: {} for table in TABLES}
        self.token = CheckpointToken(Checkpoint(0), 0)
        self.folds: dict[str, int] = {}
        self.letters: dict[int, PoisonEvent] = {}
        self.parked: dict[int, UUID] = {}
        self.releases: dict[UUID, Given] = {}
        self.workers: dict[str, Worker] = {}
        self.leader: object = None

    def change(self, token: CheckpointToken, changes: Changes) -> None:
        for written in changes.rows:
            rows = self.tables[written.table.name]
            for row in written.upserts:
                key = _key(written.table, row)
                rows[key] = rows.get(key, row) if written.table.first_stays else row
            for key in written.deletes:
                rows.pop(key, None)
        self._hide(changes)
        for position in changes.resolved:
            self.letters.pop(position, None)
            self.parked.pop(position, None)
        for letter in changes.dead_letters:
            self.parked.pop(letter.position, None)
            self.letters[letter.position] = letter
        self.parked.update({event.position: event.stream for event in changes.parked})
        self.token = token

    def _hide(self, changes: Changes) -> None:
        if changes.hidden_jobs or changes.hidden_images:
            results = self.tables["results"]
            for key, row in results.items():
                if row.classification_id in changes.hidden_jobs or row.image_id in changes.hidden_images:
                    results[key] = msgspec.structs.replace(row, hidden=True)


def _key(table: Table, row: Row) -> Key:
    values = tuple(getattr(row, name) for name in table.key)
    return values if len(values) > 1 else values[0]


class _Writing(NamedTuple):
    token: CheckpointToken
    changes: Changes


class MemoryModels:
    """Behaves like PostgresModels."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._held: list[_Writing] | None = None
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def read_checkpoint(self) -> CheckpointToken:
        there = self._database.token
        if not self._in_log(there.checkpoint):
            raise CheckpointUnfit(there.checkpoint.position)
        if not self._database.folds and there.checkpoint.position == 0:
            self._database.folds = dict(FOLD_VERSIONS)
        elif (difference := folds_difference(FOLD_VERSIONS, self._database.folds)) is not None:
            raise difference
        return there

    def _in_log(self, at: Checkpoint) -> bool:
        log_hash = self._database.log_hash
        return log_hash is None or log_hash(at.position) == at.hash

    def parked_events(self) -> ParkedEvents:
        return ParkedEvents({letter.position: letter.stream for letter in self._database.letters.values()}, dict(self._database.parked))

    def load(self, wanted: Mapping[str, set[Key]]) -> dict[str, dict[Key, Row]]:
        tables = self._database.tables
        return {name: {key: tables[name][key] for key in keys if key in tables[name]} for name, keys in wanted.items()}

    def write(self, token: CheckpointToken, to: Checkpoint, changes: Changes, *, generations: int = 0) -> None:
        there = self._database.token
        if (there.checkpoint.position, there.generation) != (token.checkpoint.position, token.generation):
            raise CheckpointConflict
        if not self._in_log(to):
            raise NotInLog
        at = to if to.cluster else there.checkpoint._replace(position=to.position, hash=to.hash)
        writing = _Writing(CheckpointToken(at, there.generation + generations), changes)
        if self._held is None:
            self._database.change(*writing)
        else:
            self._held.append(writing)

    @contextmanager
    def locked_checkpoint(self) -> Iterator[CheckpointToken]:
        self._held = []
        try:
            yield self.read_checkpoint()
            for writing in self._held:
                self._database.change(*writing)
        finally:
            self._held = None


class MemoryWork:
    """Behaves like PostgresWork."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database, self._tables = database, database.tables
        self.closed = False

    def close(self) -> None:
        self.closed = True
        if self._database.leader is self:
            self._database.leader = None

    def try_to_lead(self) -> bool:
        if self._database.leader is None:
            self._database.leader = self
        return self._database.leader is self

    def snapshot(self) -> SchedulerSnapshot:
        jobs = list(self._open())
        to_plan = [ToPlan(job.id, job.position) for job in jobs if not job.planned and job.image_id is None]
        to_finish = [ToFinish(job.id, job.succeeded, job.failed) for job in jobs if _has_all_answers(job)]
        overdue = [
            Overdue(job.id, job.images, job.succeeded, job.failed)
            for job in jobs
            if job.deadline is not None and job.deadline <= self._database.clock() and not _has_all_answers(job)
        ]
        orphans = [IdRow(job.id) for job in self._going() if (home := self._home(job.dataset_id)) is not None and home.deleted]
        return SchedulerSnapshot(
            now=self._database.clock(),
            to_plan=to_plan[:PLANS_MOST],
            to_finish=to_finish[:ENDS_MOST],
            overdue=overdue[:ENDS_MOST],
            orphans=orphans[:ENDS_MOST],
            workers=list(self._database.workers.values()),
            leases=[self._release(work, given) for work, given in self._wanted()],
            external=any(job.external for job in self._going()),
        )

    def waiting(self, *, urgent: bool, external: bool = False, maximum: int) -> list[OpenJob]:
        jobs = [
            job
            for job in self._open()
            if job.status is JobStatus.RUNNING
            and job.judged < job.chunks
            and (job.image_id is not None, job.external) == (urgent, external)
        ]
        chunks = self._waiting_chunks()
        turns = sorted(_turns_of_each_person(jobs, maximum), key=lambda turn: (turn[0], turn[1].position))
        shown = sorted((job for _, job in turns[:JOBS_MOST]), key=lambda job: job.position)
        return [_open_job(job, chunks[job.id][:maximum]) for job in shown if job.id in chunks]

    def to_inspect(self, maximum: int) -> list[UUID]:
        waiting = [
            work
            for work in self._table("work")
            if work.kind is Kind.INSPECT and work.id not in self._database.releases and self._stands(work.dataset_id)
        ]
        return [work.id for work in sorted(waiting, key=lambda work: work.position)[:maximum]]

    def to_check(self, maximum: int) -> list[UUID]:
        waiting = [work for work in self._table("work") if work.kind is Kind.CHECK and work.id not in self._database.releases]
        return [work.id for work in sorted(waiting, key=lambda work: work.position)[:maximum]]

    def jobs(self, ids: Collection[UUID]) -> dict[UUID, OpenJob]:
        jobs = self._tables["classifications"]
        return {one: _open_job(jobs[one], ()) for one in ids if one in jobs}

    def images_of(self, work: Collection[UUID]) -> dict[UUID, tuple[PlannedImage, ...]]:
        works = self._tables["work"]
        return {one: works[one].images for one in work if one in works}

    def deleted(self, images: Collection[UUID]) -> set[UUID]:
        known = self._tables["images"]
        return {one for one in images if one in known and known[one].deleted}

    def classifiable(self, job: Classification, *, after: int, until: int, maximum: int) -> ImagePage:
        covered = [
            image
            for image in self._table("images")
            if image.dataset_id == job.dataset_id and not image.deleted and image.rejected is None and after < image.position <= until
        ]
        if job.selected:
            covered = [image for image in covered if image.id in job.selected]
        if job.retry_of is not None:
            unanswered = self._unanswered(job.retry_of)
            covered = [image for image in covered if image.id in unanswered]
        covered.sort(key=lambda image: image.position)
        page = covered[:maximum]
        matching = tuple(PlannedImage(image.id, image.sha256) for image in page if self._matches(image, job, until))
        return ImagePage(matching, page[-1].position if page else after, len(page), len(covered) > maximum)

    def last_position(self, images: Collection[UUID]) -> int:
        return max((int(self._tables["images"][image].position) for image in images), default=0)

    def reusable(self, files: Collection[JobFile]) -> dict[JobFile, EarlierResult]:
        found = {one: self._earlier(one) for one in files}
        return {one: EarlierResult(row.id, row.image_id, row.position) for one, row in found.items() if row is not None}

    def mark_dispatched(self, tasks: Sequence[OutgoingTask]) -> None:
        now = self._database.clock()
        for outgoing in tasks:
            for work in outgoing.task.work:
                known = self._database.releases.get(work)
                self._database.releases[work] = Given(outgoing.task.attempt, now, known is not None and known.abandoned)

    def mark_abandoned(self, work: UUID) -> None:
        if work in self._database.releases:
            self._database.releases[work].abandoned = True

    def delete_done(self) -> None:
        self._database.releases = dict(self._wanted())

    # ---- images ----
    def _unanswered(self, job: UUID) -> set[UUID]:
        failed = {row.image_id for row in self._table("failures") if row.classification_id == job}
        return failed | {image.id for work in self._table("work") if work.job == job for image in work.images}

    def _matches(self, image: Any, job: Classification, until: int) -> bool:
        asked = job.filter or ImageFilter()
        newest = max(
            (row for row in self._results_of(image.id) if row.model_name == job.model_name and row.position <= until),
            key=lambda row: row.position,
            default=None,
        )
        return (
            (asked.uploaded_from is None or image.uploaded_at >= asked.uploaded_from)
            and (asked.uploaded_before is None or image.uploaded_at < asked.uploaded_before)
            and (asked.device_id is None or image.device_id == asked.device_id)
            and (asked.label is None or (newest is not None and newest.label == asked.label))
            and (asked.verdict is None or (newest is not None and newest.verdict == asked.verdict))
            and not (asked.without_result and newest is not None)
            and (job.path is None or _fits(job.path, image.path or image.filename))
        )

    def _results_of(self, image: UUID) -> list[Any]:
        return [row for row in self._table("results") if row.image_id == image and not row.hidden]

    def _earlier(self, file: JobFile) -> Any:
        job = self._tables["classifications"].get(file.job)
        if job is None or job.fresh or job.external:
            return None
        same = (image for image in self._table("images") if image.sha256 == file.sha256 and not image.deleted)
        images = [image for image in same if image.reader == READER_VERSION]
        results = [row for image in images for row in self._results_of(image.id)]
        return max((row for row in results if self._repeats(job, row)), key=lambda row: (row.position, -row.id.int), default=None)

    def _repeats(self, job: Any, row: Any) -> bool:
        earlier = self._tables["classifications"].get(row.classification_id)
        person = self._tables["users"].get(job.created_by)
        subject = ADMINISTRATORS if person is not None and person.role == Role.ADMIN else job.created_by
        return (
            earlier is not None
            and not earlier.external
            and earlier.id != job.id
            and row.reused is None
            and row.id not in self._tables["outdated_results"]
            and (earlier.model_id, earlier.model_version, earlier.planes) == (job.model_id, job.model_version, job.planes)
            and (subject, row.dataset_id) in self._tables["dataset_access"]
            and self._stands(row.dataset_id)
        )

    # ---- rows ----
    def _table(self, name: str) -> Iterable[Any]:
        return self._tables[name].values()

    def _home(self, dataset: UUID) -> Any:
        return self._tables["datasets"].get(dataset)

    def _stands(self, dataset: UUID) -> bool:
        home = self._home(dataset)
        return home is not None and not home.deleted

    def _going(self) -> list[Any]:
        jobs = [job for job in self._table("classifications") if job.status in OPEN and not job.deleted]
        return sorted(jobs, key=lambda job: job.position)

    def _open(self) -> Iterator[Any]:
        return (job for job in self._going() if self._stands(job.dataset_id))

    def _wanted(self) -> Iterator[tuple[UUID, Given]]:
        """What was given out for work that is still to be done."""
        for work, given in self._database.releases.items():
            if (row := self._tables["work"].get(work)) is not None:
                job = self._tables["classifications"].get(row.job)
                if job is None or (job.status is JobStatus.RUNNING and not job.deleted):
                    yield work, given

    def _release(self, work: UUID, given: Given) -> Lease:
        row = self._tables["work"][work]
        job = self._tables["classifications"].get(row.job)
        return Lease(
            id=work,
            kind=row.kind,
            job=row.job,
            number=row.number,
            urgent=job is not None and job.image_id is not None,
            attempts=given.attempts,
            held_at=given.held_at or given.released_at,
            abandoned=given.abandoned,
            created_by=None if job is None else job.created_by,
            external=job is not None and job.external,
        )

    def _waiting_chunks(self) -> dict[UUID, list[Chunk]]:
        chunks: dict[UUID, list[Chunk]] = {}
        waiting = [work for work in self._table("work") if work.job is not None and work.id not in self._database.releases]
        for work in sorted(waiting, key=lambda work: work.number):
            chunks.setdefault(work.job, []).append(Chunk(id=work.id, number=work.number))
        return chunks


def in_use(
    database: MemoryDatabase, names: Iterable[str], *, read: Callable[[int, int], Sequence[RecordedEvent]], discarded: Iterable[int] = ()
) -> BlobReferences:
    """Behaves like `projections.blob_references.in_use`; `read(after, limit)` reads the log, whose events at `discarded` were given up."""
    asked = set(names)
    oldest = database.clock() - MAX_LAG
    if any(event.recorded_at is None or event.recorded_at <= oldest for event in read(database.token.checkpoint.position, 1)):
        raise Unavailable("The read models are more than a day behind the log; no blobs are swept")
    gone = {dataset.id for dataset in database.tables["datasets"].values() if dataset.deleted}
    images = {image.sha256 for image in database.tables["images"].values() if not image.deleted and image.dataset_id not in gone}
    models = {version.package or version.sha256 for model in database.tables["models"].values() for version in model.versions}
    models |= {check.sha256 for check in database.tables["model_checks"].values() if check.status == "pending"}

    def named(positions: Iterable[int]) -> set[str]:
        events = [event.data for position in positions for event in read(position - 1, 1)]
        return {name for name in asked if any(name.encode() in data for data in events)}

    return BlobReferences((images | models) & asked | named(discarded), named({*database.letters, *database.parked}))


def _has_all_answers(job: Any) -> bool:
    return bool(job.planned and job.judged >= job.chunks)


def _open_job(row: Any, waiting: Sequence[Chunk]) -> OpenJob:
    about = {"created_by": row.created_by, "priority": row.priority, "external": row.external}
    return OpenJob(id=row.id, position=row.position, image_id=row.image_id, waiting=tuple(waiting), **about)


def _turns_of_each_person(jobs: Sequence[Any], maximum: int) -> Iterator[tuple[int, Any]]:
    """The first `maximum` jobs of each person, each with its number in the order of priority and age."""
    people = dict.fromkeys(job.created_by for job in jobs)
    for person in people:
        own = sorted((job for job in jobs if job.created_by == person), key=lambda job: (-job.priority.rank, job.position))
        yield from list(enumerate(own))[:maximum]


def _fits(pattern: str, path: str) -> bool:
    """Whether the path matches a pattern in which * stands for any characters and ? for one; letters of both cases are equal."""
    parts = (".*" if one == "*" else "." if one == "?" else re.escape(one) for one in pattern)
    return re.fullmatch("".join(parts), path, re.IGNORECASE | re.DOTALL) is not None
