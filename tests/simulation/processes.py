"""The processes of an installation: production code over in-memory twins, composed as the composition roots do."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from aiokafka.errors import KafkaConnectionError

from application.blob_gc import BlobReferences, SweepResult, sweep_orphans
from application.history.hash_chain import linked
from application.jobs.job_scheduler import SchedulerLimits
from application.jobs.planner import PlanningLimits
from application.jobs.tasks import Kind
from application.jobs.topics import BULK, EVENTS, URGENT
from application.jobs.work_queue import Worker
from application.ports import ChainedEvent, RecordedEvent
from domain.errors import DomainError, Unavailable
from infrastructure.eventstore.codec import Undecodable
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.child_process import ChildFailed, ChildHung, ChildLost
from infrastructure.inference.chunk_classifier import ChunkClassifier
from infrastructure.inference.image_inspector import ImageInspector
from infrastructure.inference.predictions import JPEG_START, BatchPrediction, ImageRefusal, InspectedUpload, ModelPrediction
from infrastructure.kafka.cloud_events import authenticated
from infrastructure.kafka.task_consumer import TaskConsumer
from infrastructure.postgres.system.relay_checkpoint import RelayCheckpoint
from infrastructure.relay.errors import Fenced
from infrastructure.relay.process import RETRY_DELAY_SECONDS, STANDBY_INTERVAL_SECONDS
from infrastructure.relay.publisher import Publisher, RelayLimits
from infrastructure.retry import Retry
from infrastructure.security.keys import WrongRootKey
from projections.engine.projector import Projector
from projections.engine.sequencer import Sequencer
from projections.engine.subscription import CatchUpSubscription
from projections.process.background import BackgroundTasks
from projections.process.composition import LogDecoder
from projections.process.live_notifier import LiveNotifier
from projections.process.main import CONSUMER_GROUP, PartitionOwnerScheduler
from tests.simulation.broker import RECORD_KEY, Member, MemoryTopic
from tests.simulation.turns import sleep
from tests.simulation.world import ROOT, AsyncPort, Port, Process, World
from tests.twins.read_models import MemoryModels, MemoryWork, in_use

LEASE, ATTEMPTS = 4.0, 3
SCHEDULER_LIMITS = SchedulerLimits(planning=PlanningLimits(images_per_command=2, images_per_turn=4))
RELAY_LIMITS = RelayLimits(events_per_batch=9, republished_events=6)
SEQUENCED_EVENTS_PER_BATCH = 11
"""Sizes for a world of some dozen events, so that something is divided at all."""
LABELS = ("round", "flat", "long")
SLOTS = 2
BEAT = 1.0
SWEEP = 1.0


def database_away() -> Exception:
    return psycopg.OperationalError("the connection is lost")


def store_away() -> Exception:
    return Unavailable("away", retry_after=1)


def kafka_away() -> Exception:
    return KafkaConnectionError("away")


def log_of(process: Process) -> RecorderEventStore:
    return RecorderEventStore(Port(process, process.world.recorder, "database", store_away), ROOT, clock=process.world.clock.monotonic)


def blobs_of(process: Process) -> Any:
    return Port(process, process.world.blobs, "blobs", store_away)


# ---- api ---------------------------------------------------------------------------------------------------------------------------
class Api:
    """Answers commands until it dies."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log, self.blobs = log_of(process), blobs_of(process)


async def api(process: Process, apis: list[Api]) -> None:
    mine = Api(process)
    apis.append(mine)
    process.leaves(lambda: apis.remove(mine))
    await asyncio.Event().wait()


# ---- relay -------------------------------------------------------------------------------------------------------------------------
class MemoryCheckpointStore:
    """Behaves like `infrastructure.relay.checkpoint_store.PostgresCheckpointStore`; one relay leads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.epoch, self.checkpoint = 0, RelayCheckpoint(0, "", 0)
        self.leader: Process | None = None

    async def take_over(self) -> tuple[int, RelayCheckpoint]:
        self.epoch += 1
        return self.epoch, self.checkpoint

    async def needed_position(self) -> int:
        return min(self.checkpoint.position, self._world.database.token.checkpoint.position)

    async def events_after(self, position: int, limit: int) -> list[ChainedEvent]:
        recorder = self._world.recorder
        return list(linked(recorder.select_recorded(position, limit), recorder.hash_at(position)))

    async def advance(self, epoch: int, current: RelayCheckpoint, to: RelayCheckpoint) -> bool:
        if (epoch, current) != (self.epoch, self.checkpoint):
            return False
        self.checkpoint = to
        return True


async def relay(process: Process) -> None:
    """As `infrastructure.relay.process.Leader`, without signatures."""
    world = process.world
    while True:
        with suppress(psycopg.Error, OSError, Fenced):
            await _lead(process)
        await asyncio.sleep(RETRY_DELAY_SECONDS)
        world.counted["relay leads again"] += 1


async def _lead(process: Process) -> None:
    world, published = process.world, process.world.published
    while published.leader is not None:
        await asyncio.sleep(STANDBY_INTERVAL_SECONDS)
    published.leader = process
    process.leaves(lambda: _let_go(world, process))

    @asynccontextmanager
    async def topic() -> AsyncIterator[Any]:
        while world.is_away("kafka"):
            await asyncio.sleep(0.25)
        yield AsyncPort(process, MemoryTopic(world), "kafka", kafka_away)

    publisher = Publisher(AsyncPort(process, published, "database", database_away), topic, limits=RELAY_LIMITS)
    try:
        await publisher.publish_always()
    finally:
        _let_go(world, process)


def _let_go(world: World, process: Process) -> None:
    if world.published.leader is process:
        world.published.leader = None


# ---- projector ---------------------------------------------------------------------------------------------------------------------
class Poisonous(LogDecoder):
    """Some events cannot be decoded, until they are mended."""

    def __init__(self, log: RecorderEventStore, world: World) -> None:
        super().__init__(log)
        self._world = world

    def decode(self, recorded: RecordedEvent) -> Any:
        if recorded.event_id in self._world.poisoned:
            raise Undecodable("its bytes are damaged")
        return super().decode(recorded)


def models_of(process: Process) -> Any:
    return Port(process, MemoryModels(process.world.database), "database", database_away, safe=frozenset({"close"}))


def work_of(process: Process) -> Any:
    twin = MemoryWork(process.world.database)
    process.leaves(twin.close)
    return Port(process, twin, "database", database_away, safe=frozenset({"close"}))


def projector_of(process: Process, log: RecorderEventStore) -> Projector:
    return Projector(lambda: models_of(process), Poisonous(log, process.world), fatal=(WrongRootKey,), sleep=sleep)


def sender(process: Process) -> Any:
    """As `infrastructure.kafka.producer.Sender`."""
    world = process.world

    async def send(topic: str, key: bytes, value: bytes) -> None:
        number = process.before(f"send {topic}")
        await asyncio.sleep(process.pause())
        process.must_live()
        if world.is_away("kafka") or world.happens(world.plan.away):
            raise kafka_away()
        world.broker.send(topic, key, value)
        process.after(f"send {topic}", number)
        if world.happens(world.plan.answer_lost):
            raise TimeoutError

    return send


async def projector(process: Process) -> None:
    """As `projections.process.run_projector`."""
    world = process.world
    log = log_of(process)
    member = Member(process, CONSUMER_GROUP, (EVENTS,))
    scheduler = PartitionOwnerScheduler(
        lambda: work_of(process),
        log,
        lease=LEASE,
        attempts=ATTEMPTS,
        limits=SCHEDULER_LIMITS,
        clock=world.clock.monotonic,
        now=world.clock.today,
        owns=lambda: member.owns(EVENTS),
    )

    async def publish(channel: str, message: bytes) -> None:
        process.must_live()
        if world.happens(world.plan.news_lost):
            raise ConnectionError
        world.counted["news"] += 1
        if world.live is not None:
            world.live.publish(channel, message)

    clock = world.clock.monotonic
    background = BackgroundTasks(scheduler, LiveNotifier(publish, clock=clock), sender(process), loop=world.loop)
    sequencer = Sequencer(projector_of(process, log), log, on_applied=background.on_applied, events_per_batch=SEQUENCED_EVENTS_PER_BATCH)
    subscription = CatchUpSubscription(
        sequencer,
        log,
        authenticated=partial(authenticated, key=RECORD_KEY),
        owns=lambda: member.owns(EVENTS),
        count=lambda _, numbers: world.counted.update(numbers),
        clock=clock,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(subscription.follow_store())
        group.create_task(member.read_always(subscription))


# ---- inference ---------------------------------------------------------------------------------------------------------------------
class MadeUpPool:
    """In the place of the pool of children: findings that the bytes decide, and children that are lost."""

    def __init__(self, process: Process) -> None:
        self._process, self.size = process, SLOTS

    async def run(self, target: str, *arguments: Any, into: Any, check: Any, lend: Any = None) -> Any:
        world = self._process.world
        number = self._process.before("Pool.run")
        await asyncio.sleep(0.01 + world.delay())
        if world.happens(world.plan.child_lost):
            raise world.chance.choice([ChildLost(), ChildHung(), ChildFailed("MemoryError", "no room")])
        for ask in (lend or {}).values():
            await ask()
        self._process.after("Pool.run", number)
        if target.endswith(":examine"):
            found = inspected(arguments[0])
        else:
            found = BatchPrediction([seen(data) for data in arguments[1]], "resize", "made up", "cpu", "none", 0.01)
        check(found)
        return found


def inspected(data: bytes) -> InspectedUpload | ImageRefusal:
    if hashlib.sha256(data).digest()[0] < 16:
        return ImageRefusal("damaged_image", "It is torn.")
    return InspectedUpload(
        width=8,
        height=8,
        bands=3,
        dtype="uint8",
        pages=1,
        axes="YXS",
        pixel_size_um=None,
        reader=READER_VERSION,
        warnings=(),
        thumbnail=JPEG_START + b"small",
        preview=None,
    )


def seen(data: bytes) -> ModelPrediction:
    place = hashlib.sha256(data).digest()[1] % len(LABELS)
    scores = tuple(0.8 if place == index else 0.1 for index in range(len(LABELS)))
    return ModelPrediction(LABELS[place], 0.8, out_of_domain=False, scores=scores, signals={})


async def inference(process: Process) -> None:
    """As `infrastructure.inference.process.InferenceWorker`, its children made up."""
    world = process.world
    log, blobs, pool = log_of(process), blobs_of(process), MadeUpPool(process)
    retry = Retry(None, jitter=world.chance.uniform)
    parts: dict[str, Any] = {"log": log, "blobs": blobs, "pool": pool, "retry": retry, "now": world.clock.today}
    classifier = ChunkClassifier(**parts, worker=process.name, cpu="made up", clock=world.clock.monotonic)
    inspector = ImageInspector(**parts, limits=ImageLimits())

    async def handle(topic: str, task: Any) -> None:
        await (classifier.classify(task) if task.kind is Kind.CLASSIFY else inspector.inspect(task))

    consumer = TaskConsumer(handle, send=sender(process), concurrency={BULK: 4, URGENT: 4})
    member = Member(process, "bioscope-inference", (BULK, URGENT))
    async with asyncio.TaskGroup() as group:
        group.create_task(member.read_always(consumer))
        group.create_task(consumer.commit_always(member.commit))
        group.create_task(_beat(process, world, consumer))


async def _beat(process: Process, world: World, consumer: TaskConsumer) -> None:
    while True:
        number = process.before("beat")
        if not world.is_away("database"):
            now = world.clock.today_of_the_database()
            world.database.workers[process.name] = Worker(seen_at=now, slots=SLOTS, lane="bulk")
            for work in consumer.leased_work():
                if work in world.database.releases:
                    world.database.releases[work].held_at = now
        process.after("beat", number)
        await asyncio.sleep(BEAT)


# ---- what is done now and then -----------------------------------------------------------------------------------------------------
async def sweeper(process: Process) -> None:
    """As `bioscope sweep`, run again and again."""
    world = process.world
    log, blobs = log_of(process), blobs_of(process)

    def known(names: Iterable[str]) -> BlobReferences:
        return in_use(world.database, names, read=world.recorder.select_recorded, discarded=log.discarded())

    def sweep(now: datetime) -> SweepResult:
        return sweep_orphans(blobs, known, now=now)

    while True:
        await asyncio.sleep(SWEEP)
        with suppress(DomainError):
            swept = await asyncio.to_thread(sweep, world.clock.today())
            world.counted["blobs swept"] += swept.freed
            world.counted["blobs left for waiting events"] += swept.waiting
