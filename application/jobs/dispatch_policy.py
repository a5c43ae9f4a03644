"""The dispatch policy: pure decisions on rows of the work queue about which tasks to send next."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from application.jobs.tasks import MAX_INSPECT, Kind, Task
from application.jobs.topics import BULK, EXTERNAL, URGENT
from application.jobs.work_queue import EXTERNAL_WORKERS, Chunk, Lease, OpenJob, OutgoingTask, Worker

CHUNKS_PER_SLOT = 4  # in flight per worker slot: enough to keep it busy, few enough that a cancellation takes effect soon
INSPECTIONS_PER_SLOT = 64  # images
CHECKS_PER_WORKER = 2  # one that runs and the next one: a package is large, and each worker checks one at a time
WORKER_ALIVE_WITHIN = timedelta(seconds=10)  # since a worker's last heartbeat
ONE_MICROSECOND = timedelta(microseconds=1)


def live_slots(workers: Iterable[Worker], *, lane: str = "bulk", now: datetime) -> int:
    """Slots of live workers in a lane. At least 1, so that work already waits in Kafka for the first worker."""
    return max(1, sum(worker.slots for worker in workers if worker.lane == lane and abs(now - worker.seen_at) <= WORKER_ALIVE_WITHIN))


def expired_leases(leases: Iterable[Lease], workers: Iterable[Worker], *, duration: timedelta, now: datetime) -> list[Lease]:
    """Leases that were last renewed more than `duration` ago, while a worker was alive; a bridge, for those of external classifiers.

    Without a live worker since then, the task still waits in Kafka and was not attempted. A time in the future was written before the
    database clock was set back: such a lease counts as expired, and such a heartbeat is ignored.
    """
    last_heartbeats: dict[bool, datetime] = {}
    for worker in workers:
        if worker.seen_at - now <= WORKER_ALIVE_WITHIN:
            is_bridge = worker.lane == EXTERNAL_WORKERS
            last_heartbeats[is_bridge] = max(worker.seen_at, last_heartbeats.get(is_bridge, worker.seen_at))

    def last_renewal(lease: Lease) -> datetime:
        return lease.held_at if lease.held_at - now <= duration else now - duration - ONE_MICROSECOND

    def is_expired(lease: Lease) -> bool:
        renewed, last_heartbeat = last_renewal(lease), last_heartbeats.get(lease.external)
        return now - renewed > duration and last_heartbeat is not None and last_heartbeat > renewed

    return [lease for lease in leases if not lease.abandoned and is_expired(lease)]


def chunk_capacity(leases: Iterable[Lease], *, urgent: bool = False, slots: int) -> int:
    """How many more chunks may be dispatched: of datasets, or (`urgent`) of single-image jobs, which have slots of their own."""
    return CHUNKS_PER_SLOT * slots - sum(lease.kind is Kind.CLASSIFY and lease.urgent == urgent for lease in leases)


def inspection_capacity(leases: Iterable[Lease], *, slots: int) -> int:
    """How many more images may be dispatched for inspection."""
    return INSPECTIONS_PER_SLOT * slots - sum(lease.kind is Kind.INSPECT for lease in leases)


def check_capacity(leases: Iterable[Lease], workers: Iterable[Worker], *, now: datetime) -> int:
    """How many more model packages may be dispatched for a check."""
    live = sum(worker.lane == "bulk" and abs(now - worker.seen_at) <= WORKER_ALIVE_WITHIN for worker in workers)
    return CHECKS_PER_WORKER * max(1, live) - sum(lease.kind is Kind.CHECK for lease in leases)


class _Turn(NamedTuple):
    """The next chunk of a job, in the order in which the jobs of one person are served."""

    precedence: int
    in_flight: int
    position: int
    place: int  # of the job among those given
    number: int  # of the chunk among those that wait


def fair_share(jobs: Sequence[OpenJob], leases: Iterable[Lease], *, capacity: int, one_each: bool = False) -> list[tuple[OpenJob, Chunk]]:
    """The next `capacity` chunks. Each is of the person with the fewest chunks in flight; the oldest job wins a tie.

    Of the jobs of one person, those of the highest priority come first, and among these the one with the fewest chunks in flight. With
    `one_each`, a person who has nothing in flight gets a chunk even beyond the capacity. `leases` are those of the same kind of jobs.
    """
    of_person, of_job = Counter[UUID | None](), Counter[UUID | None]()
    for lease in leases:
        of_person[lease.created_by] += 1
        of_job[lease.job] += 1
    turns = defaultdict[UUID, list[_Turn]](list)
    for index, job in enumerate(jobs):
        if job.waiting:
            heapq.heappush(turns[job.created_by], _Turn(-job.priority.rank, of_job[job.id], job.position, index, 0))
    people = [(of_person[person], own[0].position, person) for person, own in turns.items()]
    heapq.heapify(people)
    chosen: list[tuple[OpenJob, Chunk]] = []
    while people:
        in_flight, _, person = heapq.heappop(people)
        if len(chosen) >= capacity and not (one_each and in_flight == 0):
            break
        turn = heapq.heappop(turns[person])
        job = jobs[turn.place]
        chosen.append((job, job.waiting[turn.number]))
        if turn.number + 1 < len(job.waiting):
            heapq.heappush(turns[person], turn._replace(in_flight=turn.in_flight + 1, number=turn.number + 1))
        if turns[person]:
            heapq.heappush(people, (in_flight + 1, turns[person][0].position, person))
    return chosen


def classify(job: OpenJob, chunk: Chunk, *, attempt: int = 1) -> OutgoingTask:
    topic = EXTERNAL if job.external else URGENT if job.image_id else BULK
    return OutgoingTask(topic, Task(kind=Kind.CLASSIFY, attempt=attempt, job=job.id, number=chunk.number))


def inspect(images: Sequence[UUID], *, attempt: int = 1) -> list[OutgoingTask]:
    """Inspection tasks of at most `MAX_INSPECT` images each."""
    bursts = [tuple(images[start : start + MAX_INSPECT]) for start in range(0, len(images), MAX_INSPECT)]
    return [OutgoingTask(BULK, Task(kind=Kind.INSPECT, image_ids=burst, attempt=attempt)) for burst in bursts]


def check(check_id: UUID, *, attempt: int = 1) -> OutgoingTask:
    return OutgoingTask(BULK, Task(kind=Kind.CHECK, attempt=attempt, check_id=check_id))
