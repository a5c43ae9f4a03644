"""One worker process: its two lanes, its heartbeats, and how it ends."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from application.jobs.topics import BULK, URGENT
from domain.errors import Unavailable
from infrastructure.inference.models.bundled import register_bundled
from infrastructure.inference.worker import InferenceWorker, cpu_name
from projections.engine.checkpoints import Checkpoint
from projections.process.composition import projector_over
from tests.infrastructure.test_chunk_classifier import PICTURES, Bench
from tests.infrastructure.test_process_pool import runs, until
from tests.twins.blobs import MemoryBlobs

pytestmark = pytest.mark.anyio


class Noting(MemoryBlobs):
    def __init__(self):
        super().__init__()
        self.reads = []

    def read(self, sha256):
        self.reads.append(sha256)
        return super().read(sha256)


@pytest.fixture
def blobs():
    return Noting()


@pytest.fixture
def project(settings, log):
    """Bring the read models to the head of the log."""
    projector = projector_over(settings.postgres_url, log)

    def follow():
        at = projector.checkpoint().position
        while events := log.read(at, 500):
            at = events[-1].position
            projector.apply(events, Checkpoint(at))

    yield follow
    projector.close()


def rows(url, query="select lane, slots, now() - seen_at < interval '4 seconds' from ops.workers order by lane"):
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


async def test_a_worker_says_that_it_lives_and_when_it_has_gone(settings, log, blobs):
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        both = [("bulk", worker.lanes[BULK].pool.size, True), ("urgent", 1, True)]
        await until(lambda: rows(settings.postgres_url) == both)
        first = rows(settings.postgres_url, "select seen_at from ops.workers")
        await until(lambda: rows(settings.postgres_url, "select seen_at from ops.workers") > first)
    assert rows(settings.postgres_url) == []


async def test_what_is_in_hand_is_said_with_each_beat(settings, log, blobs):
    given, other = uuid4(), uuid4()
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        for work in (given, other):
            connection.execute("insert into ops.releases (id, attempts, released_at) values (%s, 1, now() - interval '1 hour')", (work,))
    held = "select id from ops.releases where held_at > now() - interval '10 s'"
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running(leased_work=lambda: [given]):
        await until(lambda: rows(settings.postgres_url, held) == [(given,)])


async def test_a_child_that_cannot_be_born_does_not_end_the_beats(settings, log, blobs, project, monkeypatch):
    await asyncio.to_thread(register_bundled, blobs, log)
    project()
    worker = InferenceWorker(settings, log=log, blobs=blobs)

    async def too_many_processes(_version):
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(worker.lanes[URGENT].classifier, "warm", too_many_processes)
    async with worker.running():
        await until(lambda: rows(settings.postgres_url) != [])
        first = rows(settings.postgres_url, "select seen_at from ops.workers")
        await until(lambda: rows(settings.postgres_url, "select seen_at from ops.workers") > first)


async def test_a_store_that_is_away_is_told_from_a_blob_that_is(settings, log, blobs, monkeypatch):
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    assert not await worker.is_blob_store_unavailable()

    def away(_):
        raise Unavailable("The blob store is unavailable")

    monkeypatch.setattr(blobs, "exists", away)
    assert await worker.is_blob_store_unavailable()
    worker.close()


async def test_the_urgent_lane_is_warm_for_what_is_in_production(settings, log, blobs, project):
    await asyncio.to_thread(register_bundled, blobs, log)
    project()
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        bench = Bench(log, blobs, worker.lanes[URGENT].pool, worker._threads, "-")
        await until(lambda: bench.version.sha256 in blobs.reads, seconds=20)
        await worker.lanes[URGENT].classifier.warm(bench.version)
        task = bench.job(PICTURES[:1])
        started = time.perf_counter()
        await worker.handle(URGENT, task)
        took = time.perf_counter() - started
        assert len(bench.said(task).results) == 1
        assert took < 0.25
        assert blobs.reads.count(bench.version.sha256) == 1, "its weights were not read again"
        assert bench.said(task).provenance.worker == worker.name


async def test_a_worker_is_ready_once_a_production_model_has_run(settings, log, blobs, project):
    await asyncio.to_thread(register_bundled, blobs, log)
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        await asyncio.sleep(1.5)
        assert not worker.warmed.is_set(), "the read models do not show the models yet"
        project()
        await until(worker.warmed.is_set, seconds=20)
        assert blobs.reads != []


async def test_a_worker_without_any_model_is_ready(settings, log, blobs):
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        await until(worker.warmed.is_set, seconds=10)
    assert blobs.reads == []


async def test_a_worker_whose_models_cannot_be_run_is_not_ready(settings, log, blobs, project):
    await asyncio.to_thread(register_bundled, blobs, log)
    project()
    worker = InferenceWorker(settings, log=log, blobs=Noting())
    async with worker.running():
        await until(lambda: len(worker._warmed_versions) == 2, seconds=20)
        await asyncio.sleep(1)
        assert not worker.warmed.is_set()


async def test_both_lanes_answer_and_nothing_is_left_of_them(settings, log, blobs):
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        bench = Bench(log, blobs, worker.lanes[BULK].pool, worker._threads, "-")
        tasks = {topic: bench.job(PICTURES[:4]) for topic in (BULK, URGENT)}
        await asyncio.gather(*(worker.handle(topic, task) for topic, task in tasks.items()))
        assert [len(bench.said(task).results) for task in tasks.values()] == [4, 4]
        nursery = worker._fork_server._process.pid
        nices = sorted(nice_of(pid) for pid in children_of(nursery))
        assert nices[0] < nices[-1] == nices[0] + 10
    assert not runs(nursery)


def children_of(pid):
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def nice_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


def test_the_processor_is_named_with_what_it_can_do():
    assert len(cpu_name().split()) >= 2
