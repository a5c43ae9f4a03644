"""Chunks of real micrographs, classified by the shipped model in child processes, and every failure of one image or of all."""

import asyncio
import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import numpy as np
import pytest
from PIL import Image
from structlog.testing import capture_logs

from application.jobs.chunk_results import JobPlans
from application.jobs.tasks import Kind, Task
from domain import classification, image, model
from domain.classification import MIN_CHUNK_IMAGES, TARGET_CHUNKS, PlaneSelection, PlannedImage, Verdict
from domain.errors import Unavailable, UpgradeNeeded
from domain.values import chunk_id, model_id
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.inference.children.child_process import PoolClosed
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.chunk_classifier import ChunkClassifier
from infrastructure.inference.group_classifier import CLASSIFY
from infrastructure.inference.models.bundled import micrographs, models
from infrastructure.inference.models.manifest import load_manifest, manifest_as_json
from infrastructure.retry import RETRY_DELAYS_SECONDS, Retry
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, add_model, command
from tests.older_release import at_version
from tests.process_tree import children
from tests.rigs.waiting import wait_until_async
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder

pytestmark = pytest.mark.anyio

ROOT = RootKey(bytes(32))
PBC8 = models() / "pbc8"
PICTURES = [path.read_bytes() for path in sorted(micrographs().rglob("*.jpg"))]
BREAKING = "tests.infrastructure.inference.breaking_child_functions:classify"
SYSTEM = actor(None, kind="system")


class ChunkClassifierRig:
    """A worker on its bench: a log, blobs, a job over pictures, and what was said of them."""

    def __init__(self, log, blobs, pool, retry, look):
        self.log, self.blobs, self._pool = log, blobs, pool
        parts = {"log": log, "blobs": blobs, "pool": pool, "retry": retry}
        self.worker = ChunkClassifier(**parts, worker="bench", cpu="test", function=look)
        record = load_manifest(PBC8)
        self.weights = (PBC8 / record.weights.file).read_bytes()
        blobs.keep(self.weights)
        about = {"name": record.name, "description": "", "sha256": record.sha256, "size": len(self.weights), "labels": record.labels}
        add_model(**about, review_below=0.5, record=manifest_as_json(PBC8), command=command(SYSTEM), log=log)
        self.version = log.load(model_id("pbc8"), model.evolve).production

    def job(self, pictures, *, threshold=0.5, planes=None):
        """A planned job whose first chunk covers pictures that are in the store."""
        chunk = [PlannedImage(uuid4(), self.blobs.keep(data)) for data in pictures]
        other_chunks = [] if len(chunk) <= MIN_CHUNK_IMAGES else (TARGET_CHUNKS - 1) * chunk
        planned = [*chunk, *(PlannedImage(uuid4(), image.sha256) for image in other_chunks)]
        about = {"model_id": model_id("pbc8"), "model_name": "pbc8", "model_version": 1, "model_sha256": self.version.sha256}
        requested = classification.request(
            uuid4(), dataset=uuid4(), image=None, **about, threshold=threshold, planes=planes, by=SYSTEM.id, at=NOW
        )
        self.log.append(command(SYSTEM), *requested)
        state = self.log.load(requested[0].originator_id, classification.evolve)
        self.log.append(command(SYSTEM), *classification.plan(state, planned, by=SYSTEM.id, at=NOW))
        return Task(kind=Kind.CLASSIFY, job=state.id, number=0)

    def children(self):
        """The pids of the children that were forked."""
        server = self._pool._fork_server._process
        return children(server.pid) if server else []

    def images(self, task):
        """As planned."""
        return JobPlans(self.log).chunk(task.job, task.number).images

    def said(self, task):
        """What the log holds of a chunk: at most one event."""
        recorded = self.log.history(chunk_id(task.job, task.number))
        assert len(recorded) <= 1
        return self.log.decode(recorded[0]) if recorded else None

    async def judged(self, pictures, **how):
        task = self.job(pictures, **how)
        await self.worker.classify(task)
        return self.said(task)


@asynccontextmanager
async def started_rig(log=None, blobs=None, *, size=2, hang_seconds=15.0, look=CLASSIFY, retry_delays_seconds=RETRY_DELAYS_SECONDS):
    fork_server = ForkServer("infrastructure.inference.children.child_functions", "tests.infrastructure.inference.breaking_child_functions")
    pool = ProcessPool(fork_server, size=size, nice=0, memory_bytes=1024**3, hang_seconds=hang_seconds)
    with ThreadPoolExecutor(8) as threads:
        try:
            log = log or RecorderEventStore(MemoryRecorder(ROOT), ROOT)
            yield ChunkClassifierRig(log, blobs or MemoryBlobs(), pool, Retry(threads, delays_seconds=retry_delays_seconds), look)
        finally:
            pool.close()
            fork_server.close()


@pytest.fixture
def postgres_log(app_url):
    log = RecorderEventStore(PostgresRecorder(app_url, ROOT), ROOT)
    yield log
    log.close()


def claiming(width, height):
    """A small PNG whose header claims another size."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "png")
    data = bytearray(file.getvalue())
    data[16:24] = width.to_bytes(4) + height.to_bytes(4)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def failures_of(event):
    return {failure.image_id: failure.reason for failure in event.failures}


# ---- what is said of good images ---------------------------------------------------------------------------------------------------
async def test_a_chunk_is_answered_by_one_event_in_the_order_of_its_images():
    async with started_rig() as rig:
        task = rig.job(PICTURES[:20], threshold=0.5)
        await rig.worker.classify(task)
        event = rig.said(task)
    assert [result.image_id for result in event.results] == [image.id for image in rig.images(task)]
    assert [result.sha256 for result in event.results] == [image.sha256 for image in rig.images(task)]
    assert event.failures == ()
    assert event.labels == load_manifest(PBC8).labels
    for result in event.results:
        assert sum(result.scores) == pytest.approx(1, abs=1e-4)
        assert result.scores[event.labels.index(result.label)] == result.confidence == max(result.scores)
        assert all(score == round(score, 6) for score in result.scores)
        assert result.signals
        if result.verdict is not Verdict.OUT_OF_DOMAIN:
            assert result.verdict is (Verdict.CLEAR if result.confidence >= 0.5 else Verdict.NEEDS_REVIEW)


async def test_most_of_the_shipped_micrographs_are_recognised():
    labels = [path.parent.name for path in sorted(micrographs().rglob("*.jpg"))]
    async with started_rig() as rig:
        event = await rig.judged(PICTURES)
    right = sum(result.label == label for result, label in zip(event.results, labels, strict=True))
    assert right >= 0.9 * len(labels)


async def test_an_image_is_judged_the_same_in_any_company():
    async with started_rig() as rig:
        together, alone = await rig.judged(PICTURES[:9]), await rig.judged(PICTURES[8:9])
    assert together.results[8].scores == alone.results[0].scores
    assert together.results[8].signals == alone.results[0].signals


async def test_the_threshold_of_the_job_decides_what_needs_review():
    async with started_rig() as rig:
        strict, lax = await rig.judged(PICTURES[:8], threshold=1.0), await rig.judged(PICTURES[:8], threshold=0.0)
    assert len(strict.results) == len(lax.results) > 0
    assert {result.verdict for result in strict.results} <= {Verdict.NEEDS_REVIEW, Verdict.OUT_OF_DOMAIN}
    assert {result.verdict for result in lax.results} <= {Verdict.CLEAR, Verdict.OUT_OF_DOMAIN}


async def test_an_event_holds_its_provenance():
    async with started_rig() as rig:
        provenance = (await rig.judged(PICTURES[:3])).provenance
    assert provenance.model_sha256 == load_manifest(PBC8).sha256
    assert provenance.runtime.startswith("onnxruntime 1.")
    assert provenance.provider == "CPUExecutionProvider"
    assert "libjpeg_turbo" in provenance.decoder
    assert len(provenance.preprocessing) == 64
    assert (provenance.worker, provenance.cpu) == ("bench", "test")
    assert 0 < provenance.seconds < 60


# ---- what is said of bad ones ------------------------------------------------------------------------------------------------------
async def test_bad_images_fail_alone_and_say_why():
    bad = {
        "truncated": PICTURES[1][: len(PICTURES[1]) // 2],
        "unsupported_type": b"GIF89a and so on",
        "too_many_pixels": claiming(60_000, 60_000),
    }
    async with started_rig() as rig:
        task = rig.job([PICTURES[0], *bad.values(), PICTURES[2]])
        await rig.worker.classify(task)
        event = rig.said(task)
    assert [result.image_id for result in event.results] == [rig.images(task)[0].id, rig.images(task)[4].id]
    assert [failure.reason for failure in event.failures] == list(bad)
    assert all(failure.detail.endswith((".", "it", "again", "type", "down")) and len(failure.detail) > 20 for failure in event.failures)
    assert event.provenance is not None


async def test_a_file_that_is_gone_or_was_changed_fails_alone():
    async with started_rig() as rig:
        task = rig.job(PICTURES[:4])
        del rig.blobs.kept[rig.images(task)[1].sha256]
        rig.blobs.kept[rig.images(task)[2].sha256] = PICTURES[5]
        await rig.worker.classify(task)
        event = rig.said(task)
    assert failures_of(event) == {rig.images(task)[1].id: "image_missing", rig.images(task)[2].id: "image_corrupted"}
    assert len(event.results) == 2


async def test_a_model_that_is_not_safe_to_run_fails_every_image_and_is_asked_for_once():
    async with started_rig(look="tests.infrastructure.inference.breaking_child_functions:refuse") as rig:
        with capture_logs() as logs:
            event = await rig.judged(PICTURES[:4])
    assert {failure.reason for failure in event.failures} == {"model_refused"}
    assert len(event.failures) == 4
    assert [entry["reason"] for entry in logs if entry["event"] == "model refused"] == ["it keeps weights in other files"]


@pytest.mark.parametrize(
    ("end", "reason"), [(b"deadly", "decoder_broke"), (b"lying", "decoder_broke"), (b"stuck", "decoder_hung"), (b"buggy", "model_failed")]
)
async def test_an_image_that_breaks_its_child_fails_alone(end, reason):
    async with started_rig(look=BREAKING, hang_seconds=4.0) as rig:
        await rig.judged(PICTURES[:2])
        task = rig.job([*PICTURES[:5], PICTURES[5] + end, *PICTURES[6:10]])
        await rig.worker.classify(task)
        event = rig.said(task)
    assert failures_of(event) == {rig.images(task)[5].id: reason}
    assert "model" in event.failures[0].detail
    assert len(event.results) == 9
    assert event.provenance is not None


async def test_a_chunk_of_nothing_but_bad_images_ends_without_provenance():
    async with started_rig(look=BREAKING) as rig:
        event = await rig.judged([PICTURES[0] + b"deadly", PICTURES[1] + b"deadly"])
    assert [failure.reason for failure in event.failures] == ["decoder_broke"] * 2
    assert event.provenance is None


@pytest.mark.parametrize("spoil", ["missing", "changed"])
async def test_a_model_that_is_missing_or_changed_is_refused(spoil):
    async with started_rig() as rig:
        if spoil == "missing":
            del rig.blobs.kept[rig.version.sha256]
        else:
            rig.blobs.kept[rig.version.sha256] = rig.weights[:-1] + b"x"
        event = await rig.judged(PICTURES[:3])
    assert [failure.reason for failure in event.failures] == ["model_refused"] * 3
    assert event.results == ()


# ---- once, and only while it is wanted ---------------------------------------------------------------------------------------------
async def test_a_task_that_comes_again_makes_no_second_event(postgres_log):
    async with started_rig(postgres_log) as rig:
        task = rig.job(PICTURES[:6])
        await asyncio.gather(*(rig.worker.classify(task) for _ in range(3)))
        head = postgres_log.head()
        await rig.worker.classify(task)
        assert postgres_log.head() == head
        assert len(rig.said(task).results) == 6


async def test_two_workers_on_one_chunk_leave_one_event(postgres_log):
    async with started_rig(postgres_log) as rig, started_rig(postgres_log, rig.blobs) as other:
        task = rig.job(PICTURES[:8])
        await asyncio.gather(rig.worker.classify(task), other.worker.classify(task))
        assert len(rig.said(task).results) == 8


@pytest.mark.parametrize("ending", ["cancel", "delete"])
async def test_a_job_that_has_ended_gets_no_answer(postgres_log, ending):
    async with started_rig(postgres_log) as rig:
        before, during = rig.job(PICTURES[:2]), rig.job(PICTURES[:2])

        def end(task):
            state = postgres_log.load(task.job, classification.evolve)
            decided = getattr(classification, ending)(state, by=SYSTEM.id, at=NOW)
            postgres_log.append(command(SYSTEM), *(decided if isinstance(decided, list) else [decided]))

        end(before)
        await rig.worker.classify(before)
        assert rig.said(before) is None
        assert rig.worker._open_chunk(during.job, 0) is not None
        end(during)
        await rig.worker.classify(during)
        assert rig.said(during) is None


async def test_a_job_that_nobody_asked_for_gets_no_answer():
    async with started_rig() as rig:
        task = Task(kind=Kind.CLASSIFY, job=uuid4(), number=0)
        await rig.worker.classify(task)
        assert rig.said(task) is None


@pytest.mark.parametrize("deleted", [1, 3])
async def test_deleted_images_are_left_out_and_a_chunk_of_nothing_else_fails(deleted):
    async with started_rig() as rig:
        task = rig.job(PICTURES[:3])
        images = list(rig.images(task))
        for one in images[:deleted]:
            about = {"filename": "cell.jpg", "sha256": one.sha256, "size": 1, "media_type": "image/jpeg", "width": 8, "height": 8}
            uploaded = image.upload(one.id, dataset=uuid4(), device=None, **about, by=SYSTEM.id, at=NOW)
            gone = image.delete(image.evolve(None, uploaded), by=SYSTEM.id, at=NOW)
            rig.log.append(command(SYSTEM), uploaded, gone)
        await rig.worker.classify(task)
        event = rig.said(task)
    assert [one.image_id for one in event.results] == [one.id for one in images[deleted:]]
    assert failures_of(event) == ({one.id: "image_deleted" for one in images} if deleted == 3 else {})


async def test_a_chunk_that_was_not_planned_gets_no_answer():
    async with started_rig() as rig:
        task = rig.job(PICTURES[:2])
        for number in (1, 777, -1):
            await rig.worker.classify(msgspec.structs.replace(task, number=number))
        assert [one.type for one in rig.log.read(0, 1000) if one.type == "ChunkJudged"] == []


class Moody(MemoryBlobs):
    """Away for the first few reads."""

    def __init__(self, *, away):
        super().__init__()
        self.away = away

    def read(self, sha256):
        if self.away > 0:
            self.away -= 1
            raise Unavailable("The blob store is unavailable", retry_after=5)
        return super().read(sha256)


async def test_a_worker_of_an_older_release_keeps_the_task_of_a_job_that_chooses_planes():
    async with started_rig() as rig:
        task = rig.job(PICTURES[:1], planes=PlaneSelection(t=0))
        with at_version("ClassificationRequested", 1), pytest.raises(UpgradeNeeded):
            await rig.worker.classify(task)
        assert rig.said(task) is None
        await rig.worker.classify(task)
        assert rig.said(task).results


async def test_a_store_that_comes_back_is_waited_for():
    async with started_rig(blobs=Moody(away=3)) as rig:
        event = await rig.judged(PICTURES[:2])
    assert len(event.results) == 2


async def test_a_store_that_stays_away_is_no_failure_of_an_image():
    async with started_rig(blobs=Moody(away=1000), retry_delays_seconds=(0.01, 0.01)) as rig:
        task = rig.job(PICTURES[:2])
        with pytest.raises(Unavailable):
            await rig.worker.classify(task)
        assert rig.said(task) is None


async def test_children_that_end_with_the_worker_are_no_failure_of_an_image():
    async with started_rig(look=BREAKING) as rig:
        task = rig.job([PICTURES[0] + b"stuck"])
        under_way = asyncio.create_task(rig.worker.classify(task))
        await wait_until_async(lambda: rig.children() != [], within=30)
    with pytest.raises(PoolClosed):
        await under_way
    assert rig.said(task) is None
