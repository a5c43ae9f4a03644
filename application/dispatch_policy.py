"""Who gets what to do next: decided from rows, without touching anything; and the port that the rows come from."""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec

from application.tasks import BULK, MAX_INSPECT, URGENT, Kind, Task
from domain.classification import PlannedImage

CHUNKS_PER_SLOT = 4  # that a worker may hold: enough to stay busy, few enough for a cancel to bite at once
INSPECTIONS_PER_SLOT = 64  # images
WORKER_ALIVE_WITHIN = timedelta(seconds=10)  # since a worker's last beat
ONE_MICROSECOND = timedelta(microseconds=1)


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    seen_at: datetime
    slots: int
    lane: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Work that was given out and is not done. `urgent`: its job asks for one image. `given_up`: what says so is in the log already.

    `held_at`: when it was given out, or a worker last said that it has it in hand.
    """

    id: UUID
    kind: Kind
    job: UUID | None
    number: int | None
    urgent: bool
    attempts: int
    held_at: datetime
    given_up: bool


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    number: int


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A running job, with its next chunks that nobody was given yet. `image_id`: it asks for one image."""

    id: UUID
    position: int
    image_id: UUID | None
    waiting: tuple[Chunk, ...]


class OutgoingTask(NamedTuple):
    """A task for a topic."""

    topic: str
    task: Task


class IdRow(msgspec.Struct, frozen=True):
    id: UUID


class ToPlan(msgspec.Struct, frozen=True):
    """A job over a dataset, asked for at `position`."""

    id: UUID
    position: int


class ToFinish(msgspec.Struct, frozen=True):
    id: UUID
    succeeded: int
    failed: int


class CoveredImage(msgspec.Struct, frozen=True):
    id: UUID
    sha256: str
    position: int


class SchedulerSnapshot(msgspec.Struct, frozen=True):
    """Everything that may call for something to be done, at one moment. `orphans`: open jobs whose dataset was deleted."""

    now: datetime
    to_plan: list[ToPlan]
    to_finish: list[ToFinish]
    orphans: list[IdRow]
    workers: list[Worker]
    releases: list[Lease]


class WorkQueue(Protocol):
    """What the scheduler reads and remembers: open jobs, waiting work, what was given out, who is there to do it. Blocks."""

    @property
    def closed(self) -> bool:
        """Whether the connection is lost, and the lead with it."""

    def close(self) -> None:
        """Somebody else may lead."""

    def try_to_lead(self) -> bool:
        """Whether we lead from now on, until `close`: one does at a time."""

    def snapshot(self) -> SchedulerSnapshot: ...

    def waiting(self, *, urgent: bool, maximum: int) -> Sequence[OpenJob]:
        """Running jobs with work that nobody was given, the oldest first, each with its first `most` chunks; `urgent`: for one image."""

    def to_inspect(self, maximum: int) -> Sequence[UUID]:
        """The first images that nobody was given to inspect."""

    def jobs(self, ids: Collection[UUID]) -> Mapping[UUID, OpenJob]:
        """Without their chunks."""

    def images_of(self, work: Collection[UUID]) -> Mapping[UUID, tuple[PlannedImage, ...]]: ...

    def deleted(self, images: Collection[UUID]) -> set[UUID]: ...

    def covered(self, dataset: UUID, *, after: int, until: int, maximum: int) -> Sequence[CoveredImage]:
        """The images of a dataset that can be classified, uploaded between the positions, in the order of their upload."""

    def position_of(self, image: UUID) -> int:
        """The position of its upload."""

    def released(self, given: Sequence[OutgoingTask]) -> None:
        """Remember what was given out, when, and which attempt it was."""

    def given_up(self, work: UUID) -> None: ...

    def forget_done(self) -> None:
        """Of what was given out, that which nobody needs any more."""


def live_slots(workers: Iterable[Worker], *, now: datetime) -> int:
    """Of the bulk lane; never 0, so that work waits in Kafka for the first worker."""
    return max(1, sum(worker.slots for worker in workers if worker.lane == "bulk" and abs(now - worker.seen_at) <= WORKER_ALIVE_WITHIN))


def expired_leases(releases: Iterable[Lease], workers: Iterable[Worker], *, lease: timedelta, now: datetime) -> list[Lease]:
    """Given out, or last held, longer ago than `lease`, while somebody was there to do it.

    Where no worker has lived since, the work still waits in Kafka for one, and no attempt was made. What was noted at a time that lies
    ahead was noted before the database's clock was set back: of work it says that its lease is over, of a worker nothing.
    """
    last_beat = max((worker.seen_at for worker in workers if worker.seen_at - now <= WORKER_ALIVE_WITHIN), default=None)

    def held(release: Lease) -> datetime:
        return release.held_at if release.held_at - now <= lease else now - lease - ONE_MICROSECOND

    return [
        release
        for release in releases
        if not release.given_up and now - held(release) > lease and last_beat is not None and last_beat > held(release)
    ]


def chunk_capacity(releases: Iterable[Lease], *, slots: int) -> int:
    """How many more chunks of datasets may be given out."""
    return CHUNKS_PER_SLOT * slots - sum(release.kind is Kind.CLASSIFY and not release.urgent for release in releases)


def inspection_capacity(releases: Iterable[Lease], *, slots: int) -> int:
    """How many more images may be given out to be inspected."""
    return INSPECTIONS_PER_SLOT * slots - sum(release.kind is Kind.INSPECT for release in releases)


def fair_share(jobs: Sequence[OpenJob], releases: Iterable[Lease], *, room: int) -> list[tuple[OpenJob, Chunk]]:
    """The next `room` chunks, each from the job that has the fewest in flight; the oldest of equals."""
    in_flight = Counter(release.job for release in releases)
    heap = [(in_flight[job.id], job.position, index, 0) for index, job in enumerate(jobs) if job.waiting]
    heapq.heapify(heap)
    chosen: list[tuple[OpenJob, Chunk]] = []
    while heap and len(chosen) < room:
        held, position, index, number = heapq.heappop(heap)
        chosen.append((jobs[index], jobs[index].waiting[number]))
        if number + 1 < len(jobs[index].waiting):
            heapq.heappush(heap, (held + 1, position, index, number + 1))
    return chosen


def classify(job: OpenJob, chunk: Chunk, *, attempt: int = 1) -> OutgoingTask:
    return OutgoingTask(URGENT if job.image_id else BULK, Task(kind=Kind.CLASSIFY, attempt=attempt, job=job.id, number=chunk.number))


def inspect(images: Sequence[UUID], *, attempt: int = 1) -> list[OutgoingTask]:
    """Tasks of at most INSPECT_MOST images."""
    bursts = [tuple(images[start : start + MAX_INSPECT]) for start in range(0, len(images), MAX_INSPECT)]
    return [OutgoingTask(BULK, Task(kind=Kind.INSPECT, image_ids=burst, attempt=attempt)) for burst in bursts]
