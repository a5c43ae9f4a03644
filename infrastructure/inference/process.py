"""The process that looks at images: two lanes of children, tasks from Kafka, answers into the log."""

import asyncio
import os
import platform
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn
from uuid import UUID

import psycopg
import structlog

from application.ports import BlobStore, EventStore
from application.tasks import Kind, Task
from application.topics import BULK, URGENT
from domain import model
from domain.errors import CorruptBlob, DomainError, Unavailable
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.capabilities import capabilities_of
from infrastructure.eventstore.event_store import postgres_event_store
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.process_pool import ChildFailed, ChildLost, ForkServer, ProcessPool
from infrastructure.inference.chunk_classifier import ChunkClassifier
from infrastructure.inference.image_inspector import ImageInspector
from infrastructure.kafka.consumer_process import ConsumerProcess
from infrastructure.kafka.producer import Sender
from infrastructure.kafka.task_consumer import TaskConsumer
from infrastructure.observability.health import ABSENT_BLOB
from infrastructure.postgres.notifications import listen
from infrastructure.postgres.profiles import WORKER
from infrastructure.postgres.system import workers
from infrastructure.postgres.wake_ups import DISPATCHED
from infrastructure.security.process_keys import process_keys

log = structlog.get_logger()

TASKS_PER_CHILD: Final = 4  # tasks of a topic under way: enough that no child waits for bytes or answers
BULK_NICE: Final = 10  # a single image that somebody waits for goes first
BLOCKING_THREADS: Final = 16  # for what blocks: the log and the store
HEARTBEAT_INTERVAL_SECONDS: Final = 2.0  # seconds
FIRST_HEARTBEAT_INTERVAL_SECONDS: Final = 0.5  # seconds, until a model has run
NOTED: Final = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def run_inference(given: Settings) -> NoReturn:
    """Answer tasks until SIGTERM, as one of a group that shares them. It holds no keys: private fields stay sealed for it."""
    keys = process_keys(given, "inference")
    events = postgres_event_store(given, keys)
    capabilities = capabilities_of(events, "inference")
    worker = InferenceWorker(given, log=events, blobs=open_blobs(given, keys))
    abreast = {topic: max(TASKS_PER_CHILD, 2 * lane.pool.size) for topic, lane in worker.lanes.items()}
    lanes = TaskConsumer(
        worker.handle,
        send=Sender(given.kafka_url),
        abreast=abreast,
        patience=given.chunk_lease_seconds,
        is_away=worker.lacks_blobs,
    )
    member = ConsumerProcess(given, group="bioscope-inference", topics=(BULK, URGENT), reader=lanes, name="inference")
    ending, ended = asyncio.Event(), asyncio.Event()

    async def at_work() -> None:
        async with worker.at_work(held=lanes.held):
            await ending.wait()
        ended.set()

    async def finish() -> None:
        await lanes.finish(member.commit)
        ending.set()
        await asyncio.wait_for(ended.wait(), 1.0)
        await asyncio.to_thread(capabilities.stop)

    capabilities.start()
    member.run(
        at_work,
        lambda: lanes.commit_always(member.commit),
        lambda: listen(given.postgres_url, {DISPATCHED: member.wake}),
        finish=finish,
        prepared=worker.warmed.wait,
    )


class Lane(NamedTuple):
    """Children of one niceness; `pool.size` tasks are worked on at once."""

    name: str
    topic: str
    pool: ProcessPool
    classifier: ChunkClassifier


class InferenceWorker:
    """All that one process does between two lanes of tasks and the log. Use it from the loop of the main thread."""

    def __init__(self, settings: Settings, *, log: EventStore, blobs: BlobStore) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._settings, self._log, self._blobs = settings, log, blobs
        self._threads = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="inference")
        self._nursery = ForkServer("infrastructure.inference.children.child_functions")
        self._limits = ImageLimits(pixels=settings.image_max_pixels, bands=settings.image_max_bands, pages=settings.image_max_pages)
        processes = settings.inference_processes or os.cpu_count() or 1
        self.lanes = {
            lane.topic: lane
            for lane in (self._lane("bulk", BULK, size=processes, nice=BULK_NICE), self._lane("urgent", URGENT, size=1, nice=0))
        }
        self._inspector = ImageInspector(log=log, blobs=blobs, pool=self.lanes[BULK].pool, threads=self._threads, limits=self._limits)
        self.warmed = asyncio.Event()
        self._warmed: dict[UUID, int] = {}
        self._connection: psycopg.Connection | None = None

    async def handle(self, topic: str, task: Task) -> None:
        """Answer a task; returns once the answer is durable. Raises Unavailable when what it needs stays away."""
        match task.kind:
            case Kind.CLASSIFY:
                await self.lanes[topic].classifier.classify(task)
            case Kind.INSPECT:
                await self._inspector.inspect(task)

    async def warm(self, in_use: Mapping[UUID, int]) -> None:
        """Have the urgent lane run the production models once. Sets `warmed` when one has run, or when there is none to run.

        A model that cannot be run is reported when it is asked for. One whose file is not there yet is tried again.
        """
        for model_id in [known for known, version in in_use.items() if self._warmed.get(known) != version]:
            self._warmed[model_id] = in_use[model_id]
            state = await asyncio.to_thread(self._log.load, model_id, model.evolve)
            if state is not None and await self._has_run(state):
                self.warmed.set()
        if not in_use and not self.warmed.is_set() and await asyncio.to_thread(self._is_caught_up):
            log.warning("there is no model yet: images can be uploaded, but not classified")
            self.warmed.set()

    async def _has_run(self, state: model.Model) -> bool:
        try:
            await self.lanes[URGENT].classifier.warm(state.production)
        except (Unavailable, OSError, ChildLost) as error:
            self._warmed.pop(state.id, None)
            log.warning("model not warmed", model=state.name, reason=str(error))
        except (ChildFailed, CorruptBlob, DomainError) as error:
            log.warning("model not warmed", model=state.name, reason=str(error))
        else:
            return True
        return False

    async def lacks_blobs(self) -> bool:
        """Whether the store is away, and not just one of its blobs."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._blobs.exists, ABSENT_BLOB)
        except Unavailable:
            return True
        return False

    async def beat(self, held: Callable[[], Sequence[UUID]]) -> None:
        """Say every few seconds that we live, and what is in hand; warm what is new. For ever; a database that is away only delays it."""
        while True:
            try:
                await self.warm(await asyncio.to_thread(self._send_heartbeat, held()))
            except (psycopg.Error, DomainError) as error:
                log.warning("heartbeat not written", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS if self.warmed.is_set() else FIRST_HEARTBEAT_INTERVAL_SECONDS)

    @asynccontextmanager
    async def at_work(self, *, held: Callable[[], Sequence[UUID]] = tuple) -> AsyncIterator[None]:
        """Beats while the block runs; afterwards nothing of this worker is left, neither rows nor children. `held`: the work in hand."""
        beating = asyncio.create_task(self.beat(held))
        try:
            yield
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating
            await asyncio.to_thread(self._withdraw)
            self.close()

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.pool.close()
        self._nursery.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _lane(self, name: str, topic: str, *, size: int, nice: int) -> Lane:
        given = self._settings
        pool = ProcessPool(
            self._nursery,
            size=size,
            nice=nice,
            memory_bytes=given.inference_memory_bytes,
            hang_seconds=given.inference_hang_seconds,
        )
        parts = {"log": self._log, "blobs": self._blobs, "pool": pool, "threads": self._threads}
        return Lane(name, topic, pool, ChunkClassifier(**parts, worker=self.name, cpu=cpu_name(), limits=self._limits))  # type: ignore[arg-type]

    def _send_heartbeat(self, held: Sequence[UUID]) -> dict[UUID, int]:
        lanes = {self._row(lane): (lane.name, lane.pool.size) for lane in self.lanes.values()}
        return workers.record_heartbeat(self._connected(), lanes, held)

    def _is_caught_up(self) -> bool:
        return workers.are_read_models_caught_up(self._connected())

    def _withdraw(self) -> None:
        with suppress(psycopg.Error), closing(self._connected()) as connection:
            workers.remove(connection, [self._row(lane) for lane in self.lanes.values()])

    def _row(self, lane: Lane) -> str:
        return f"{self.name}/{lane.name}"

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = WORKER.connect(self._settings.postgres_url)
        return self._connection


def cpu_name() -> str:
    """The processor's name, and those of its abilities that decide which arithmetic a network is run with."""
    said: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            said.setdefault(name.strip(), value.strip())
    able = set((said.get("flags") or said.get("Features") or "").split())
    return " ".join([platform.machine(), said.get("model name", ""), *(flag for flag in NOTED if flag in able)]).replace("  ", " ")
