"""Dishonest workers, a dishonest blob store, and wrong clocks."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from application.jobs.chunk_results import JobPlans
from application.jobs.tasks import Kind, Task, encode
from application.jobs.topics import BULK, URGENT
from application.ports import Command
from domain.classification import ChunkJudged, ClassificationRequested, ImageResult, PlannedImage, Verdict
from domain.errors import DomainError, Refused
from domain.events import Event
from domain.image import ImageAccepted, ImageUploaded
from domain.values import chunk_id
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.inference.failures import ACTOR
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS
from tests.given import provenance
from tests.simulation.processes import LABELS, log_of, sender
from tests.simulation.world import Process, World

PAUSE_SECONDS = 0.1
NEVER_PLANNED = 777
STORE_PAUSE_SECONDS = 0.2
CLOCK_PAUSE_SECONDS = 1.0
LIES_FOR = (0.05, 2.0)  # seconds that the store gives other bytes


async def lying_worker(process: Process) -> None:
    """Forges tasks, and appends answers that nobody asked for, where it may append at all."""
    world, send = process.world, sender(process)
    log = log_of(process)
    while True:
        await asyncio.sleep(world.chance.expovariate(1 / PAUSE_SECONDS))
        try:
            if world.happens(0.3):
                await send(world.chance.choice([BULK, URGENT]), b"", encode(_forged_task(world)))
            elif (lie := await asyncio.to_thread(_lie, world, log)) is not None:
                await asyncio.to_thread(log.append, Command(id=world.new_id(), actor=ACTOR, at=world.clock.today()), lie)
                world.counted["lies taken"] += 1
        except Refused:
            world.counted["lies refused"] += 1
        except (DomainError, *UNAVAILABLE_ERRORS):
            world.counted["lies without effect"] += 1


def _forged_task(world: World) -> Task:
    recorded = world.recorder.select_recorded(0, 10**9)
    jobs = [one.stream for one in recorded if one.type == ClassificationRequested.__name__]
    if jobs and world.happens(0.7):
        return Task(kind=Kind.CLASSIFY, job=world.chance.choice(jobs), number=world.chance.choice([0, 1, 2, NEVER_PLANNED]))
    streams = [one.stream for one in recorded]
    return Task(kind=Kind.INSPECT, image_ids=(world.chance.choice(streams), world.new_id()))


def _lie(world: World, log: RecorderEventStore) -> Event | None:
    """None where there is nothing yet to lie about."""
    recorded = log.read(0, 10**9)
    at = world.clock.today()
    if world.happens(0.3):
        uploads = [one.stream for one in recorded if one.type == ImageUploaded.__name__]
        return _false_inspection(world.chance.choice(uploads) if uploads and world.happens(0.5) else world.new_id(), at)
    jobs = [one.stream for one in recorded if one.type == ClassificationRequested.__name__]
    return _false_judgement(world, log, world.chance.choice(jobs), at) if jobs else None


def _false_inspection(stream: UUID, at: datetime) -> Event:
    """Of what was not uploaded, or of other bytes."""
    found = {"width": 1, "height": 1, "bands": 1, "dtype": "uint8", "pages": 1, "axes": "YX"}
    return ImageAccepted(originator_id=stream, originator_version=2, at=at, by=ACTOR.id, sha256="0" * 64, **found)  # type: ignore[arg-type]


def _false_judgement(world: World, log: RecorderEventStore, job: UUID, at: datetime) -> Event | None:
    number = world.chance.choice([0, 0, 1])
    chunk = JobPlans(log).chunk(job, number)
    if chunk is None:
        return None
    images = list(chunk.images)
    stream = chunk_id(job, number)
    match world.chance.choice(["never planned", "foreign", "swapped", "twice"]):
        case "never planned":
            number, stream = NEVER_PLANNED, chunk_id(job, NEVER_PLANNED)
        case "foreign":
            images.append(PlannedImage(world.new_id(), images[0].sha256))
        case "swapped":
            images = [PlannedImage(one.id, "f" * 64) for one in images]
        case _:
            stream = world.new_id()
    return ChunkJudged(
        originator_id=stream,
        originator_version=1,
        at=at,
        by=ACTOR.id,
        job_id=job,
        number=number,
        dataset_id=chunk.job.dataset_id,
        model_name=chunk.job.model_name,
        model_version=chunk.job.model_version,
        labels=LABELS,
        results=tuple(map(_false_result, images)),
        failures=(),
        provenance=provenance(chunk.job.model_sha256),
    )


def _false_result(of: PlannedImage) -> ImageResult:
    about = {"label": LABELS[0], "confidence": 1.0, "verdict": Verdict.CLEAR, "scores": (1.0, 0.0, 0.0)}
    return ImageResult(image_id=of.id, sha256=of.sha256, **about)  # type: ignore[arg-type]


# ---- the blob store ------------------------------------------------------------------------------------------------------------------
async def lying_store(process: Process) -> None:
    """Gives other bytes under a right name, for a while: those of another file, a part, or none."""
    world = process.world
    while not world.is_calm:
        await asyncio.sleep(world.chance.expovariate(1 / STORE_PAUSE_SECONDS))
        if world.blobs.kept:
            name = world.chance.choice(list(world.blobs.kept))
            process.leaves(partial(_put_back, world, name))
            _swap(world, name)
            await asyncio.sleep(world.chance.uniform(*LIES_FOR))
            _put_back(world, name)
    await asyncio.Event().wait()


def _swap(world: World, name: str) -> None:
    right = world.blobs.ever[name]
    another = world.blobs.ever[world.chance.choice(list(world.blobs.ever))]
    world.blobs.kept[name] = world.chance.choice([another, another, right[:-1], b""])
    world.counted["files swapped"] += world.blobs.kept[name] != right


def _put_back(world: World, name: str) -> None:
    """Unless the file was deleted meanwhile."""
    if name in world.blobs.kept:
        world.blobs.kept[name] = world.blobs.ever[name]


# ---- clocks --------------------------------------------------------------------------------------------------------------------------
async def wrong_clocks(process: Process) -> None:
    world = process.world
    while not world.is_calm:
        await asyncio.sleep(world.chance.expovariate(1 / CLOCK_PAUSE_SECONDS))
        set_a_clock(world)
    await asyncio.Event().wait()


def set_a_clock(world: World) -> None:
    """That of the processes, of the database, or both: a day ahead, a day behind, or right."""
    to = timedelta(days=world.chance.choice([-1, 0, 1]))
    where = world.chance.choice(["both", "processes", "database"])
    world.tell(f"the clock of {where} is set {to.days} days off")
    if where != "database":
        world.clock.jumped = to
    if where != "processes":
        world.clock.database_jumped = to


async def clock_set_back(process: Process) -> None:
    """The database's clock is ahead for a while. When it is right again, Kafka and the workers have lost their tasks."""
    world = process.world
    while not world.is_calm:
        world.clock.database_jumped = timedelta(days=1)
        await asyncio.sleep(world.chance.expovariate(1 / CLOCK_PAUSE_SECONDS))
        world.clock.database_jumped = timedelta(0)
        world.broker.lose_everything()
        for one in sorted(world.alive, key=lambda process: process.name):
            if one.name.startswith("inference"):
                one.kill()
        await asyncio.sleep(world.chance.expovariate(1 / CLOCK_PAUSE_SECONDS))
    await asyncio.Event().wait()
