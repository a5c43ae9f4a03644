"""The inference worker: two lanes of children, heartbeats that renew its leases, and models that are run before a job needs them."""

import asyncio
import os
import platform
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
import structlog

from application.jobs.tasks import Kind, Task
from application.jobs.topics import BULK, URGENT
from application.ports import BlobStore, EventStore
from domain.errors import DomainError, Unavailable
from domain.model import Version
from infrastructure.configuration.settings import Settings, variable
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.chunk_classifier import ChunkClassifier
from infrastructure.inference.group_classifier import CHILD_FUNCTIONS
from infrastructure.inference.heartbeats import Heartbeats
from infrastructure.inference.image_inspector import ImageInspector
from infrastructure.inference.model_checker import ModelChecker
from infrastructure.inference.model_reference import DEFAULT_PROVIDER
from infrastructure.inference.model_warmer import ModelWarmer
from infrastructure.observability.health import ABSENT_BLOB
from infrastructure.process_lifecycle import CannotStart
from infrastructure.retry import Retry

log = structlog.get_logger()

CHECKS_AT_ONCE: Final = 1  # a model package takes as much memory as a child may have
PROVIDERS: Final = f"{CHILD_FUNCTIONS}:providers"
CPU_FLAGS: Final = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
"""CPU flags that determine which arithmetic the runtime uses."""


class WorkerLimits(NamedTuple):
    """`tasks_per_child`: tasks in progress per topic, enough that no child waits. `bulk_niceness` gives the urgent lane priority.

    `blocking_threads`: threads for the log and the blob store. `first_heartbeat_interval_seconds` applies until a model has run.
    """

    tasks_per_child: int = 4
    bulk_niceness: int = 10
    blocking_threads: int = 16
    heartbeat_interval_seconds: float = 2.0
    first_heartbeat_interval_seconds: float = 0.5


DEFAULT_LIMITS: Final = WorkerLimits()


class Lane(NamedTuple):
    """The children of one lane, which handle `pool.size` calls at once."""

    name: str
    topic: str
    pool: ProcessPool
    classifier: ChunkClassifier


def _no_work() -> Sequence[UUID]:
    return ()


class InferenceWorker:
    """Handles the tasks of two lanes. To be used on the event loop of the main thread."""

    def __init__(self, settings: Settings, *, log: EventStore, blobs: BlobStore, limits: WorkerLimits = DEFAULT_LIMITS) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._settings, self._log, self._blobs, self._limits = settings, log, blobs, limits
        self._threads = ThreadPoolExecutor(limits.blocking_threads, thread_name_prefix="inference")
        self._retry = Retry(self._threads)
        self._fork_server = ForkServer(CHILD_FUNCTIONS)
        self._image_limits = ImageLimits(pixels=settings.image_max_pixels, bands=settings.image_max_bands, pages=settings.image_max_pages)
        size = settings.inference_processes or os.cpu_count() or 1
        bulk = self._lane("bulk", BULK, size=size, nice=limits.bulk_niceness)
        self.lanes = {BULK: bulk, URGENT: self._lane("urgent", URGENT, size=1, nice=0)}
        self._inspector = ImageInspector(log=log, blobs=blobs, pool=bulk.pool, retry=self._retry, limits=self._image_limits)
        self._check_pool = self._pool(size=CHECKS_AT_ONCE, nice=limits.bulk_niceness, single_use=True)
        self._checker = ModelChecker(
            log=log, blobs=blobs, pool=self._check_pool, retry=self._retry, cpu=cpu_name(), provider=settings.inference_provider
        )
        lanes = {f"{self.name}/{lane.name}": (lane.name, lane.pool.size) for lane in self.lanes.values()}
        self._heartbeats = Heartbeats(settings.postgres_url, lanes)
        self._warmer = ModelWarmer(log, self._run_once)

    @property
    def warmed(self) -> asyncio.Event:
        """Set when a version in production has run, or if there is none."""
        return self._warmer.ready

    @property
    def concurrency(self) -> dict[str, int]:
        """The number of tasks of each topic to handle at once."""
        return {topic: max(self._limits.tasks_per_child, 2 * lane.pool.size) for topic, lane in self.lanes.items()}

    async def handle(self, topic: str, task: Task) -> None:
        """Handle a task; return when its results are durable. Raises Unavailable if a dependency stays unavailable."""
        match task.kind:
            case Kind.CLASSIFY:
                await self.lanes[topic].classifier.classify(task)
            case Kind.INSPECT:
                await self._inspector.inspect(task)
            case Kind.CHECK:
                await self._checker.check(task)

    async def is_blob_store_unavailable(self) -> bool:
        """Whether the whole blob store is unavailable, not only a single blob."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._blobs.exists, ABSENT_BLOB)
        except Unavailable:
            return True
        return False

    @asynccontextmanager
    async def running(self, *, leased_work: Callable[[], Sequence[UUID]] = _no_work) -> AsyncIterator[None]:
        """Send heartbeats during the block, which renew the leases of `leased_work`, and warm models.

        At the end, remove the worker's rows and children.
        """
        await self._check_provider()
        tasks = [asyncio.create_task(self._beat_always(leased_work)), asyncio.create_task(self._warmer.run_always())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(self._heartbeats.withdraw)
            self.close()

    async def _check_provider(self) -> None:
        """Raises CannotStart for a provider that the onnxruntime of the children lacks."""
        wanted = self._settings.inference_provider
        if wanted == DEFAULT_PROVIDER:
            return
        found = await self.lanes[URGENT].pool.run(PROVIDERS, into=list[str])
        if wanted not in found:
            raise CannotStart(f"onnxruntime has no {wanted}: set {variable('inference_provider')} to one of {', '.join(found)}")

    def close(self) -> None:
        for pool in (*(lane.pool for lane in self.lanes.values()), self._check_pool):
            pool.close()
        self._fork_server.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _lane(self, name: str, topic: str, *, size: int, nice: int) -> Lane:
        pool = self._pool(size=size, nice=nice)
        classifier = ChunkClassifier(
            log=self._log,
            blobs=self._blobs,
            pool=pool,
            retry=self._retry,
            worker=self.name,
            cpu=cpu_name(),
            image_limits=self._image_limits,
            provider=self._settings.inference_provider,
        )
        return Lane(name, topic, pool, classifier)

    def _pool(self, *, size: int, nice: int, single_use: bool = False) -> ProcessPool:
        return ProcessPool(
            self._fork_server,
            size=size,
            nice=nice,
            memory_bytes=self._settings.inference_memory_bytes,
            hang_seconds=self._settings.inference_hang_seconds,
            single_use=single_use,
        )

    async def _run_once(self, version: Version) -> None:
        await self.lanes[URGENT].classifier.warm(version)

    # ---- heartbeats ----
    async def _beat_always(self, leased_work: Callable[[], Sequence[UUID]]) -> None:
        """Send heartbeats, which say what is in production. An unavailable database only delays that."""
        while True:
            try:
                await self._beat(leased_work())
            except (psycopg.Error, DomainError) as error:
                log.warning("heartbeat not written", error=f"{type(error).__name__}: {error}")
            is_warm = self.warmed.is_set()
            await asyncio.sleep(self._limits.heartbeat_interval_seconds if is_warm else self._limits.first_heartbeat_interval_seconds)

    async def _beat(self, work: Sequence[UUID]) -> None:
        # Checked first: read models that become current after the heartbeat's query may show a model that it did not find.
        was_current = not self.warmed.is_set() and await asyncio.to_thread(self._heartbeats.read_models_are_current)
        in_production = await asyncio.to_thread(self._heartbeats.send, work)
        self._warmer.set_in_production(in_production)
        if was_current and not in_production:
            self._warmer.nothing_to_warm()


def cpu_name() -> str:
    """The name of the processor, with the flags that determine which arithmetic the runtime uses."""
    fields: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return " ".join([platform.machine(), fields.get("model name", ""), *(flag for flag in CPU_FLAGS if flag in flags)]).replace("  ", " ")
