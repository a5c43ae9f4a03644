"""An inference worker: two lanes, heartbeats, and its end."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg
import pytest

from application import models
from application.jobs.topics import BULK, URGENT
from domain import model
from domain.access import Role
from domain.errors import Unavailable
from domain.model import Version
from domain.values import model_id
from infrastructure.inference.models.bundled import register_bundled
from infrastructure.inference.worker import InferenceWorker, cpu_name
from infrastructure.postgres.profiles import WORKER
from infrastructure.postgres.system import workers
from infrastructure.process_lifecycle import CannotStart
from projections.engine.checkpoints import Checkpoint
from projections.process.composition import projector_over
from tests.given import actor, command
from tests.infrastructure.inference.test_chunk_classifier import PICTURES, ChunkClassifierRig
from tests.infrastructure.inference.test_process_pool import runs
from tests.rigs.waiting import wait_until_async
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


async def test_a_worker_sends_heartbeats_and_withdraws_at_its_end(settings, log, blobs):
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        both = [("bulk", worker.lanes[BULK].pool.size, True), ("urgent", 1, True)]
        await wait_until_async(lambda: rows(settings.postgres_url) == both)
        first = rows(settings.postgres_url, "select seen_at from ops.workers")
        await wait_until_async(lambda: rows(settings.postgres_url, "select seen_at from ops.workers") > first)
    assert rows(settings.postgres_url) == []


async def test_a_worker_does_not_start_with_a_provider_that_its_runtime_lacks(settings, log, blobs):
    worker = InferenceWorker(msgspec.structs.replace(settings, inference_provider="MoonExecutionProvider"), log=log, blobs=blobs)
    with pytest.raises(CannotStart, match=r"no MoonExecutionProvider: set BIOSCOPE_INFERENCE_PROVIDER to one of .*CPUExecutionProvider"):
        async with worker.running():
            pass
    worker.close()
    assert rows(settings.postgres_url) == []


async def test_leases_in_progress_are_renewed_with_each_heartbeat(settings, log, blobs):
    given, other = uuid4(), uuid4()
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        for work in (given, other):
            connection.execute("insert into ops.releases (id, attempts, released_at) values (%s, 1, now() - interval '1 hour')", (work,))
    held = "select id from ops.releases where held_at > now() - interval '10 s'"
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running(leased_work=lambda: [given]):
        await wait_until_async(lambda: rows(settings.postgres_url, held) == [(given,)])


async def test_a_child_that_cannot_be_born_does_not_end_the_beats(settings, log, blobs, project, monkeypatch):
    await asyncio.to_thread(register_bundled, blobs, log)
    project()
    worker = InferenceWorker(settings, log=log, blobs=blobs)

    async def too_many_processes(_version):
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(worker.lanes[URGENT].classifier, "warm", too_many_processes)
    async with worker.running():
        await wait_until_async(lambda: rows(settings.postgres_url) != [])
        first = rows(settings.postgres_url, "select seen_at from ops.workers")
        await wait_until_async(lambda: rows(settings.postgres_url, "select seen_at from ops.workers") > first)


async def test_a_store_that_is_away_is_distinguished_from_a_missing_blob(settings, log, blobs, monkeypatch):
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
        rig = ChunkClassifierRig(log, blobs, worker.lanes[URGENT].pool, worker._threads, "-")
        await wait_until_async(lambda: rig.version.file in blobs.reads, within=20)
        await worker.lanes[URGENT].classifier.warm(rig.version)
        task, children = rig.job(PICTURES[:1]), children_of(worker._fork_server._process.pid)
        await worker.handle(URGENT, task)
        assert len(rig.said(task).results) == 1
        assert children_of(worker._fork_server._process.pid) == children, "no child was started for it"
        assert blobs.reads.count(rig.version.file) == 1, "its weights were not read again"
        assert rig.said(task).provenance.worker == worker.name


def counted_heartbeats(worker):
    """A list that grows with each heartbeat."""
    sent, send = [], worker._heartbeats.send

    def counted(leased):
        sent.append(leased)
        return send(leased)

    worker._heartbeats.send = counted
    return sent


async def test_a_worker_is_ready_once_a_production_model_has_run(settings, log, blobs, project):
    await asyncio.to_thread(register_bundled, blobs, log)
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    sent = counted_heartbeats(worker)
    async with worker.running():
        await wait_until_async(lambda: len(sent) > 2)
        assert not worker.warmed.is_set(), "the read models do not show the models yet"
        project()
        await wait_until_async(worker.warmed.is_set, within=20)
        assert blobs.reads != []


async def test_a_model_that_the_read_models_show_only_after_a_heartbeat_is_not_missed(settings, log, blobs, project):
    await asyncio.to_thread(register_bundled, blobs, log)
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    send = worker._heartbeats.send

    def sent_before_they_are_current(leased):
        found = send(leased)
        project()
        return found

    worker._heartbeats.send = sent_before_they_are_current
    async with worker.running():
        await wait_until_async(worker.warmed.is_set, within=20)
        assert blobs.reads != []


async def test_a_worker_without_any_model_is_ready(settings, log, blobs):
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        await wait_until_async(worker.warmed.is_set, within=10)
    assert blobs.reads == []


async def test_a_worker_is_ready_and_runs_nothing_if_there_are_candidates_alone(settings, log, blobs, project):
    candidate = Version(number=1, sha256="ab" * 32, size=10, labels=("a", "b"), review_below=0.5, record="{}", digest="cd" * 32)
    about = {"name": "cells", "description": "", "version": candidate, "alias": "candidate", "by": uuid4(), "at": datetime.now(UTC)}
    log.append(command(actor(Role.ADMIN)), *model.add_version(model_id("cells"), None, **about))
    project()
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        await wait_until_async(worker.warmed.is_set, within=10)
        assert (blobs.reads, worker._warmer.attempted) == ([], {})


async def test_a_worker_is_ready_and_runs_nothing_if_only_external_classifiers_are_in_production(settings, log, blobs, project):
    about = {"name": "vesicles", "description": "", "labels": ("a", "b"), "label_texts": {}, "review_below": 0.5}
    models.add_external(**about, command=command(), log=log)
    models.move_alias(name="vesicles", alias="production", number=1, command=command(actor(Role.ADMIN)), log=log)
    project()
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        await wait_until_async(worker.warmed.is_set, within=10)
        assert (blobs.reads, worker._warmer.attempted) == ([], {})


async def test_the_number_in_production_is_warmed_and_a_candidate_warms_nothing_again(settings, log, blobs, project):
    await asyncio.to_thread(register_bundled, blobs, log)
    project()
    with WORKER.connect(settings.postgres_url) as connection:
        before = workers.record_heartbeat(connection, {}, [])
        assert before == {model_id("pbc8"): 1, model_id("bccd3"): 1}
        known = log.load(model_id("pbc8"), model.evolve)
        other = msgspec.structs.replace(known.production, record="{}", digest="cd" * 32)
        about = {"name": "pbc8", "description": "", "version": other, "by": uuid4(), "at": datetime.now(UTC)}
        log.append(command(actor(Role.ADMIN)), *model.add_version(model_id("pbc8"), known, **about))
        project()
        assert workers.record_heartbeat(connection, {}, []) == before
        models.move_alias(name="pbc8", alias="production", number=2, command=command(actor(Role.ADMIN)), log=log)
        project()
        assert workers.record_heartbeat(connection, {}, []) == before | {model_id("pbc8"): 2}


async def test_a_model_that_hangs_while_it_is_warmed_delays_no_heartbeat(settings, log, blobs, project, monkeypatch):
    await asyncio.to_thread(register_bundled, blobs, log)
    project()
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    hanging = asyncio.Event()

    async def hang(_version):
        hanging.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(worker.lanes[URGENT].classifier, "warm", hang)
    sent = counted_heartbeats(worker)
    async with worker.running():
        await asyncio.wait_for(hanging.wait(), 20)
        before = len(sent)
        await wait_until_async(lambda: len(sent) > before + 2)
        assert not worker.warmed.is_set()


async def test_a_worker_whose_models_cannot_be_run_is_not_ready(settings, log, blobs, project):
    await asyncio.to_thread(register_bundled, blobs, log)
    project()
    worker = InferenceWorker(settings, log=log, blobs=Noting())
    sent = counted_heartbeats(worker)
    async with worker.running():
        await wait_until_async(lambda: len(worker._warmer.attempted) == 2, within=20)
        before = len(sent)
        await wait_until_async(lambda: len(sent) > before + 1)
        assert not worker.warmed.is_set()


async def test_both_lanes_answer_and_nothing_is_left_of_them(settings, log, blobs):
    worker = InferenceWorker(settings, log=log, blobs=blobs)
    async with worker.running():
        rig = ChunkClassifierRig(log, blobs, worker.lanes[BULK].pool, worker._threads, "-")
        tasks = {topic: rig.job(PICTURES[:4]) for topic in (BULK, URGENT)}
        await asyncio.gather(*(worker.handle(topic, task) for topic, task in tasks.items()))
        assert [len(rig.said(task).results) for task in tasks.values()] == [4, 4]
        fork_server = worker._fork_server._process.pid
        nices = sorted(nice_of(pid) for pid in children_of(fork_server))
        assert nices[0] < nices[-1] == nices[0] + 10
    assert not runs(fork_server)


def children_of(pid):
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def nice_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


def test_the_processor_is_named_with_what_it_can_do():
    assert len(cpu_name().split()) >= 2
