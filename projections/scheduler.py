"""Who gets what to do next: decided from rows, without touching anything."""

import heapq
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from application.tasks import BULK, INSPECT_MOST, URGENT, Kind, Task
from domain.classification import PlannedImage

CHUNKS_A_SLOT = 4  # that a worker may hold: enough to stay busy, few enough for a cancel to bite at once
INSPECTIONS_A_SLOT = 64  # images
LIVE = timedelta(seconds=10)  # since a worker's last beat


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    seen_at: datetime
    slots: int
    lane: str


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Work that was given out and is not done. `given_up`: what says so is in the log already."""

    id: UUID
    kind: Kind
    job: UUID | None
    number: int | None
    images: tuple[PlannedImage, ...]
    attempts: int
    released_at: datetime
    given_up: bool


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    number: int
    images: tuple[PlannedImage, ...]


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A running job, oldest first by `position`, with its next chunks that nobody was given yet. `image_id`: it asks for one image."""

    id: UUID
    position: int
    dataset_id: UUID
    image_id: UUID | None
    model_id: UUID
    model_name: str
    model_version: int
    model_sha256: str
    threshold: float
    waiting: tuple[Chunk, ...]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    images: tuple[PlannedImage, ...]


class Outgoing(NamedTuple):
    """A task for a topic, and the work (chunk or image ids) that it gives out."""

    topic: str
    task: Task
    work: tuple[UUID, ...]


def live_slots(workers: Iterable[Worker], *, now: datetime) -> int:
    """Of the bulk lane; never 0, so that work waits in Kafka for the first worker."""
    return max(1, sum(worker.slots for worker in workers if worker.lane == "bulk" and now - worker.seen_at <= LIVE))


def is_lost(release: Release, *, lease: timedelta, last_beat: datetime | None, now: datetime) -> bool:
    """Given out long ago, while somebody was there to do it. Where no worker has lived since, the work still waits for one."""
    return now - release.released_at > lease and last_beat is not None and last_beat > release.released_at


def fair(jobs: Sequence[OpenJob], *, in_flight: Sequence[UUID], room: int) -> list[tuple[OpenJob, Chunk]]:
    """The next `room` chunks, each from the job that has the fewest in flight; the oldest of equals."""
    waiting = [(in_flight.count(job.id), job.position, 0, job) for job in jobs if job.waiting]
    heap = [(held, position, index, number) for index, (held, position, number, _) in enumerate(waiting)]
    heapq.heapify(heap)
    chosen: list[tuple[OpenJob, Chunk]] = []
    while heap and len(chosen) < room:
        held, position, index, number = heapq.heappop(heap)
        job = waiting[index][3]
        chosen.append((job, job.waiting[number]))
        if number + 1 < len(job.waiting):
            heapq.heappush(heap, (held + 1, position, index, number + 1))
    return chosen


def chosen_chunks(jobs: Sequence[OpenJob], releases: Iterable[Release], *, slots: int) -> list[tuple[OpenJob, Chunk]]:
    """Single images at once, whatever is under way; chunks of datasets as far as there is room."""
    urgent = [(job, chunk) for job in jobs if job.image_id for chunk in job.waiting]
    single = {job.id for job in jobs if job.image_id}
    bulk = [release.job for release in releases if release.kind is Kind.CLASSIFY and release.job not in single]
    in_flight = [job for job in bulk if job is not None]
    room = CHUNKS_A_SLOT * slots - len(in_flight)
    return [*urgent, *fair([job for job in jobs if not job.image_id], in_flight=in_flight, room=room)]


def classify(job: OpenJob, chunk: Chunk, *, deleted: Collection[UUID], attempt: int = 1) -> Outgoing | None:
    """None when all images of the chunk have been deleted meanwhile."""
    images = tuple(image for image in chunk.images if image.id not in deleted)
    if not images:
        return None
    task = Task(
        kind=Kind.CLASSIFY,
        images=images,
        attempt=attempt,
        job=job.id,
        number=chunk.number,
        dataset=job.dataset_id,
        model_id=job.model_id,
        model_name=job.model_name,
        model_version=job.model_version,
        model_sha256=job.model_sha256,
        threshold=job.threshold,
    )
    return Outgoing(URGENT if job.image_id else BULK, task, (chunk.id,))


def inspect(waiting: Sequence[Inspection], *, attempt: int = 1) -> list[Outgoing]:
    """Tasks of at most INSPECT_MOST images."""
    bursts = [waiting[start : start + INSPECT_MOST] for start in range(0, len(waiting), INSPECT_MOST)]
    return [
        Outgoing(
            BULK,
            Task(kind=Kind.INSPECT, images=tuple(image for one in burst for image in one.images), attempt=attempt),
            tuple(one.id for one in burst),
        )
        for burst in bursts
    ]


def inspection_room(releases: Iterable[Release], *, slots: int) -> int:
    return INSPECTIONS_A_SLOT * slots - sum(release.kind is Kind.INSPECT for release in releases)
