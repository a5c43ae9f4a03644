"""Uploaded images, inspected in child processes: good, bad, and deleted ones."""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from uuid import uuid4

import numpy as np
import pytest
import tifffile
from PIL import Image

from application.derivatives import preview_of, thumbnail_of
from application.jobs.tasks import Kind, Task
from domain import image
from domain.classification import PlannedImage
from domain.image import ImageAccepted, ImageDescribed, ImageRejected
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.image_inspector import EXAMINE, ImageInspector
from infrastructure.inference.models.bundled import micrographs
from infrastructure.retry import Retry
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, command
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder

pytestmark = pytest.mark.anyio

ROOT = RootKey(bytes(32))
SYSTEM = actor(None, kind="system")
PICTURE = min(micrographs().rglob("*.jpg")).read_bytes()
BREAKING = "tests.infrastructure.inference.breaking_child_functions:examine"


def stack():
    file = io.BytesIO()
    tifffile.imwrite(file, np.arange(3 * 40 * 60, dtype=np.uint16).reshape(3, 40, 60), imagej=True, metadata={"axes": "ZYX"})
    return file.getvalue()


class ImageInspectorRig:
    def __init__(self, log, blobs, pool, threads, examine):
        self.log, self.blobs = log, blobs
        self.inspector = ImageInspector(log=log, blobs=blobs, pool=pool, retry=Retry(threads), limits=ImageLimits(), function=examine)

    def uploaded(self, data):
        about = {"filename": "cell.jpg", "size": len(data), "media_type": "image/jpeg", "width": 360, "height": 363}
        event = image.upload(uuid4(), dataset=uuid4(), device=None, sha256=self.blobs.keep(data), **about, by=SYSTEM.id, at=NOW)
        self.log.append(command(SYSTEM), event)
        return PlannedImage(event.originator_id, event.sha256)

    async def inspect(self, *images):
        await self.inspector.inspect(Task(kind=Kind.INSPECT, image_ids=tuple(one.id for one in images)))

    def said(self, planned):
        """What followed the upload."""
        return [self.log.decode(recorded) for recorded in self.log.history(planned.id)[1:]]


@asynccontextmanager
async def started_rig(log=None, *, hang_seconds=15.0, examine=EXAMINE):
    fork_server = ForkServer("infrastructure.inference.children.child_functions", "tests.infrastructure.inference.breaking_child_functions")
    pool = ProcessPool(fork_server, size=2, nice=0, memory_bytes=1024**3, hang_seconds=hang_seconds)
    with ThreadPoolExecutor(8) as threads:
        try:
            yield ImageInspectorRig(log or RecorderEventStore(MemoryRecorder(ROOT), ROOT), MemoryBlobs(), pool, threads, examine)
        finally:
            pool.close()
            fork_server.close()


@pytest.fixture
def postgres_log(app_url):
    log = RecorderEventStore(PostgresRecorder(app_url, ROOT), ROOT)
    yield log
    log.close()


async def test_a_good_image_is_accepted_with_its_measures_and_gets_a_thumbnail():
    async with started_rig() as rig:
        planned = rig.uploaded(PICTURE)
        await rig.inspect(planned)
        (said,) = rig.said(planned)
        thumbnail = Image.open(io.BytesIO(rig.blobs.get_derived(thumbnail_of(planned.sha256, READER_VERSION))))
        assert rig.blobs.get_derived(preview_of(planned.sha256, READER_VERSION)) is None
    with Image.open(io.BytesIO(PICTURE)) as picture:
        assert (said.width, said.height) == picture.size
    assert isinstance(said, ImageAccepted)
    assert (said.bands, said.dtype, said.pages, said.axes) == (3, "uint8", 1, "YXS")
    assert max(thumbnail.size) <= 256


async def test_what_browsers_cannot_show_gets_a_preview():
    async with started_rig() as rig:
        planned = rig.uploaded(stack())
        await rig.inspect(planned)
        (said,) = rig.said(planned)
        preview = Image.open(io.BytesIO(rig.blobs.get_derived(preview_of(planned.sha256, READER_VERSION))))
    assert (said.dtype, said.pages, said.axes) == ("uint16", 3, "ZYX")
    assert preview.size == (60, 40)


async def test_a_bad_image_is_rejected_with_its_reason_while_others_are_accepted():
    async with started_rig() as rig:
        good, bad = rig.uploaded(PICTURE), rig.uploaded(PICTURE[: len(PICTURE) // 2])
        await rig.inspect(good, bad)
        (accepted,), (rejected,) = rig.said(good), rig.said(bad)
    assert isinstance(accepted, ImageAccepted)
    assert isinstance(rejected, ImageRejected)
    assert rejected.reason
    assert len(rejected.detail) > 20


@pytest.mark.parametrize(("end", "reason"), [(b"deadly", "decoder_broke"), (b"stuck", "decoder_hung"), (b"buggy", "inspection_failed")])
async def test_an_image_that_breaks_its_child_is_rejected_alone(end, reason):
    async with started_rig(examine=BREAKING, hang_seconds=1.0) as rig:
        images = [rig.uploaded(PICTURE), rig.uploaded(PICTURE + end), rig.uploaded(stack())]
        await rig.inspect(*images)
        (first,), (second,), (third,) = map(rig.said, images)
    assert isinstance(first, ImageAccepted)
    assert isinstance(third, ImageAccepted)
    assert second.reason == reason
    assert "model" not in second.detail


async def test_a_file_that_is_gone_or_was_changed_is_rejected():
    async with started_rig() as rig:
        gone, changed = rig.uploaded(PICTURE), rig.uploaded(stack())
        del rig.blobs.kept[gone.sha256]
        rig.blobs.kept[changed.sha256] = PICTURE
        await rig.inspect(gone, changed)
        assert [rig.said(one)[0].reason for one in (gone, changed)] == ["image_missing", "image_corrupted"]


async def test_a_task_that_comes_again_says_nothing_again(postgres_log):
    async with started_rig(postgres_log) as rig:
        planned = rig.uploaded(PICTURE)
        await asyncio.gather(*(rig.inspect(planned) for _ in range(3)))
        await rig.inspect(planned)
        assert [type(event) for event in rig.said(planned)] == [ImageAccepted]


async def test_a_deleted_image_gets_no_answer(postgres_log):
    async with started_rig(postgres_log) as rig:
        planned = rig.uploaded(PICTURE)
        state = postgres_log.load(planned.id, image.evolve)
        postgres_log.append(command(SYSTEM), image.delete(state, by=SYSTEM.id, at=NOW))
        await rig.inspect(planned)
        assert len(rig.said(planned)) == 1


class Overtaken(RecorderEventStore):
    """Just before the first answer is appended, somebody describes the image."""

    overtaken = False

    def append(self, given, *events, **how):
        if isinstance(events[0], ImageAccepted) and not self.overtaken:
            self.overtaken = True
            state = self.load(events[0].originator_id, image.evolve)
            self.append(command(SYSTEM), *image.describe(state, filename="renamed.jpg", by=SYSTEM.id, at=NOW))
        return super().append(given, *events, **how)


async def test_an_image_that_is_described_meanwhile_is_accepted_all_the_same():
    async with started_rig(Overtaken(MemoryRecorder(ROOT), ROOT)) as rig:
        planned = rig.uploaded(PICTURE)
        await rig.inspect(planned)
        assert [type(event) for event in rig.said(planned)] == [ImageDescribed, ImageAccepted]
