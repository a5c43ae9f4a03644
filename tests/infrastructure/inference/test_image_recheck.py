"""The recheck with child processes: their answers and failures, and nothing is left of them."""

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager

import pytest
from anyio.from_thread import BlockingPortal

from application.recheck.pixel_reader import DecodedImage, DecoderFailed, Prediction, UnreadableImage
from domain.errors import CorruptBlob, Invalid, NotFound, Unavailable
from domain.model import Version
from infrastructure.configuration.settings import Settings
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.image_recheck import CLASSIFY, EXAMINE, ChildReader, recheck_images
from infrastructure.inference.models.bundled import micrographs, models
from infrastructure.inference.models.manifest import load_manifest, manifest_as_json
from infrastructure.inference.preprocessing import digest
from tests.application.recheck_archive import Archive
from tests.process_tree import children, command_line
from tests.rigs.waiting import wait_until
from tests.twins.blobs import MemoryBlobs

pytestmark = pytest.mark.anyio

PBC8 = models() / "pbc8"
PICTURE = min(micrographs().rglob("*.jpg")).read_bytes()
BREAKING = {
    "examine": "tests.infrastructure.inference.breaking_child_functions:examine",
    "classify": "tests.infrastructure.inference.breaking_child_functions:classify",
}
ENDS = [(b"deadly", "crashed"), (b"stuck", "takes too long"), (b"buggy", "RuntimeError")]


@pytest.fixture
def blobs():
    return MemoryBlobs()


@pytest.fixture
def pbc8(blobs):
    record = load_manifest(PBC8)
    blobs.keep((PBC8 / record.weights.file).read_bytes())
    return Version(number=1, sha256=record.sha256, size=1, labels=record.labels, review_below=0.5, record=manifest_as_json(PBC8))


@asynccontextmanager
async def a_reader(blobs, *, hang_seconds=15.0, examine=EXAMINE, classify=CLASSIFY):
    fork_server = ForkServer("infrastructure.inference.children.child_functions", "tests.infrastructure.inference.breaking_child_functions")
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=1024**3, hang_seconds=hang_seconds)
    async with BlockingPortal() as portal:
        yield ChildReader(portal, pool, blobs=blobs, limits=ImageLimits(), examine=examine, classify=classify)
        pool.close()
        fork_server.close()


async def test_an_image_is_decoded_with_its_pictures(blobs):
    async with a_reader(blobs) as reader:
        found = await asyncio.to_thread(reader.decode, PICTURE)
    assert isinstance(found, DecodedImage)
    assert (found.inspection.bands, found.inspection.dtype, found.inspection.reader) == (3, "uint8", READER_VERSION)
    assert reader.version == READER_VERSION
    assert found.thumbnail.startswith(b"\xff\xd8")
    assert found.preview is None


async def test_a_file_that_the_reader_refuses_is_unreadable_and_says_what_to_do(blobs):
    async with a_reader(blobs) as reader:
        found = await asyncio.to_thread(reader.decode, PICTURE[: len(PICTURE) // 2])
    assert isinstance(found, UnreadableImage)
    assert len(found.detail) > 20


@pytest.mark.parametrize(("end", "problem"), ENDS)
async def test_a_file_that_breaks_its_child_says_nothing_about_the_file_and_the_next_one_is_decoded(blobs, pbc8, end, problem):
    async with a_reader(blobs, hang_seconds=2.0, **BREAKING) as reader:
        for look in (reader.decode, lambda data: reader.classify(data, pbc8, None)):
            with pytest.raises(DecoderFailed, match=problem):
                await asyncio.to_thread(look, PICTURE + end)
            assert not isinstance(await asyncio.to_thread(look, PICTURE), UnreadableImage)


async def test_a_model_answers_with_the_scores_of_its_labels(blobs, pbc8):
    async with a_reader(blobs) as reader:
        found = await asyncio.to_thread(reader.classify, PICTURE, pbc8, None)
        refused = await asyncio.to_thread(reader.classify, PICTURE[:-5000], pbc8, None)
    assert isinstance(found, Prediction)
    assert len(found.scores) == len(pbc8.labels)
    assert pbc8.labels[found.scores.index(max(found.scores))] == found.label
    assert found.confidence == max(found.scores)
    assert isinstance(refused, UnreadableImage)


async def test_weights_that_are_missing_or_damaged_are_distinguished_from_the_image(blobs, pbc8):
    async with a_reader(blobs) as reader:
        blobs.kept[pbc8.sha256] = b"other weights"
        with pytest.raises(CorruptBlob):
            await asyncio.to_thread(reader.classify, PICTURE, pbc8, None)
        del blobs.kept[pbc8.sha256]
        with pytest.raises(NotFound):
            await asyncio.to_thread(reader.classify, PICTURE, pbc8, None)


async def test_the_digest_is_the_one_that_is_recorded_with_a_result(blobs, pbc8):
    async with a_reader(blobs) as reader:
        assert reader.preprocessing(pbc8.record) == digest(load_manifest(PBC8).preprocessing)
        with pytest.raises(Invalid):
            reader.preprocessing("{}")


# ---- the whole run ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def archive():
    """Seven images that reader 1 accepted, two of which cannot be checked."""
    archive = Archive()
    images = [archive.accepted(PICTURE + bytes(number)) for number in range(7)]
    archive.lose(images[0])
    archive.damage(images[1])
    archive.follow(archive.database)
    return archive


def run(archive, report):
    def recheck_with(reader):
        archive.reader = reader
        return archive.a_recheck()

    pages = archive.stored.pages(None)
    recheck_images(Settings(inference_processes=2), pages, blobs=archive.blobs, recheck_with=recheck_with, report=report)


def left_over():
    """Processes and threads of a recheck."""
    return [child for child in children(os.getpid()) if "infrastructure.inference.children.child_functions" in command_line(child)] + [
        thread.name for thread in threading.enumerate() if thread.name.startswith("recheck")
    ]


def test_every_image_is_reported_once(archive):
    found, at_work = [], []
    run(archive, lambda one: (found.append(one), at_work.extend(left_over())))
    assert at_work
    assert sorted(one.image for one in found) == sorted(archive.rows()["images"])
    assert [len(one.not_checked) for one in sorted(found, key=lambda one: -len(one.not_checked))] == [1, 1, 0, 0, 0, 0, 0]
    assert sum(one.recorded for one in found) == 5
    assert left_over() == []


def lose_the_database(_):
    raise Unavailable("The database is away")


def press_ctrl_c(_):
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("cut", "error"), [(lose_the_database, Unavailable), (press_ctrl_c, KeyboardInterrupt)])
def test_a_run_that_is_cut_short_leaves_nothing_behind_and_the_next_one_finishes_it(archive, cut, error):
    with pytest.raises(error):
        run(archive, cut)
    wait_until(lambda: not left_over(), explain=left_over)
    found = []
    run(archive, found.append)
    assert {archive.state(one.image).inspection.reader for one in found if not one.not_checked} == {READER_VERSION}
    assert len(found) == 7
