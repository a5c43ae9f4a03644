"""Chunks classified by versions from packages, from the check of the package to the event: results of every kind, planes, and refusals."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from hashlib import sha256
from uuid import uuid4

import msgspec
import numpy as np
import pytest
import tifffile
from PIL import Image

from application.jobs.tasks import Kind, Task
from application.models import add_version
from domain import classification, model
from domain.classification import PlaneSelection, PlannedImage, Projection, Verdict
from domain.values import chunk_id, model_id
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.chunk_classifier import ChunkClassifier
from infrastructure.inference.package_answers import CheckedPackage, RefusedPackage, version_of
from infrastructure.retry import Retry
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, command
from tests.infrastructure.inference.packages.making import divided_by_zero, files, manifest, network, with_network, zipped
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder

pytestmark = pytest.mark.anyio

ROOT = RootKey(bytes(32))
SYSTEM = actor(None, kind="system")
CHILD_FUNCTIONS = "infrastructure.inference.children.child_functions"
SIGMOID = {"id": "sigmoid", "kwargs": {}}
TO_LOGITS = {"id": "scale_linear", "kwargs": {"gain": 10.0, "offset": -5.0}}


def described(kind, *, postprocessing=(), labels=("red", "green", "blue"), output=None, **bioscope):
    """A network that gives the means of three channels of a picture in 8 bits, as numbers from 0 to 1."""
    document = manifest(name=f"Letters {kind}")
    document["inputs"][0]["data"] = {"type": "float32"}
    del document["inputs"][0]["test_tensor"], document["outputs"][0]["test_tensor"]
    document["outputs"][0]["postprocessing"] = list(postprocessing)
    document["outputs"][0]["axes"][1]["channel_names"] = list(labels)
    rules = {"values": "unit", "resize": "stretch"}
    return document | {"config": {"bioscope": {"model": "letters", "input": rules, "output": {"kind": kind, **(output or {})}, **bioscope}}}


class Rig:
    """A worker with a log, blobs and one real child, and models that were checked by it."""

    def __init__(self, log, blobs, pool, retry):
        self.log, self.blobs, self.pool = log, blobs, pool
        self.worker = ChunkClassifier(log=log, blobs=blobs, pool=pool, retry=retry, worker="bench", cpu="test")

    async def add(self, contents):
        """Check a package in the child, and add its version."""
        archive = zipped(contents)
        package = self.blobs.keep(archive)

        async def lend():
            return archive

        found = await self.pool.run(f"{CHILD_FUNCTIONS}:check_model", package, into=CheckedPackage | RefusedPackage, lend={package: lend})
        assert isinstance(found, CheckedPackage), found
        return self.add_version(version_of(found, package=package))

    def add_version(self, version):
        add_version(name="letters", description="", version=version, command=command(SYSTEM), log=self.log)
        return self.log.load(model_id("letters"), model.evolve).versions[-1]

    async def judged(self, version, pictures, *, threshold=None, planes=None):
        planned = [PlannedImage(uuid4(), self.blobs.keep(data)) for data in pictures]
        about = {"model_id": model_id("letters"), "model_name": "letters", "model_version": version.number}
        requested = classification.request(
            uuid4(),
            dataset=uuid4(),
            image=None,
            **about,
            model_sha256=version.sha256,
            threshold=version.review_below if threshold is None else threshold,
            planes=planes,
            by=SYSTEM.id,
            at=NOW,
        )
        self.log.append(command(SYSTEM), *requested)
        state = self.log.load(requested[0].originator_id, classification.evolve)
        self.log.append(command(SYSTEM), *classification.plan(state, planned, by=SYSTEM.id, at=NOW))
        await self.worker.classify(Task(kind=Kind.CLASSIFY, job=state.id, number=0))
        (recorded,) = self.log.history(chunk_id(state.id, 0))
        return self.log.decode(recorded)


@asynccontextmanager
async def started_rig():
    fork_server = ForkServer(CHILD_FUNCTIONS)
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=1024**3, hang_seconds=15.0)
    with ThreadPoolExecutor(4) as threads:
        try:
            yield Rig(RecorderEventStore(MemoryRecorder(ROOT), ROOT), MemoryBlobs(), pool, Retry(threads))
        finally:
            pool.close()
            fork_server.close()


def png(*colour, size=(4, 4)):
    file = io.BytesIO()
    Image.new("RGB" if len(colour) == 3 else "L", size, colour if len(colour) == 3 else colour[0]).save(file, "png")
    return file.getvalue()


def stack(values):
    file = io.BytesIO()
    tifffile.imwrite(file, values, imagej=True, metadata={"axes": "ZCYX"})
    return file.getvalue()


# ---- kinds -------------------------------------------------------------------------------------------------------------------------
async def test_probabilities_from_a_package():
    async with started_rig() as rig:
        version = await rig.add(files(described("softmax", postprocessing=[{"id": "softmax"}])))
        event = await rig.judged(version, [png(255, 0, 0), png(0, 0, 255, size=(9, 5))])
    expected = np.exp([1, 0, 0]) / np.exp([1, 0, 0]).sum()
    first, second = event.results
    assert event.labels == ("red", "green", "blue")
    assert first.scores == pytest.approx(expected, abs=1e-6)
    assert (first.label, second.label, first.value) == ("red", "blue", None)
    assert first.signals.keys() == {"brightness", "contrast", "saturation", "focus"}
    assert event.provenance.model_sha256 == version.sha256 != version.package
    assert len(event.provenance.preprocessing) == 64


async def test_labels_of_which_several_apply_or_none():
    async with started_rig() as rig:
        version = await rig.add(files(described("multi_label", postprocessing=[TO_LOGITS, SIGMOID], review_below=0.9)))
        event = await rig.judged(version, [png(255, 255, 0), png(0, 0, 0), png(128, 0, 0)])
    both, none, unsure = event.results
    assert event.labels == ("red", "green", "blue", "none")
    assert (both.label, both.verdict) == ("red", Verdict.CLEAR)
    assert (none.label, none.verdict) == ("none", Verdict.CLEAR)
    assert none.confidence == none.scores[-1] == pytest.approx(1 - 1 / (1 + np.exp(5)), abs=1e-5)
    assert unsure.verdict is Verdict.NEEDS_REVIEW


async def test_a_number_with_its_place_in_the_range():
    one_channel = {"id": "scale_linear", "kwargs": {"gain": 100.0}}
    document = described("regression", postprocessing=[one_channel], labels=["cells"], output={"range": [0, 50]}, review_outside=[5, 45])
    document["inputs"][0]["axes"][1]["channel_names"] = ["grey"]
    weights = network(dims=("N", 1, 4, 4), labels=1)
    document["weights"]["onnx"]["sha256"] = sha256(weights).hexdigest()
    async with started_rig() as rig:
        version = await rig.add(files(document, model__onnx=weights))
        event = await rig.judged(version, [png(51), png(0), png(204)], threshold=0.5)
    inside, edge = event.results
    assert (inside.label, inside.confidence, inside.verdict) == ("cells", 0.0, Verdict.CLEAR)
    assert inside.value == pytest.approx(20.0)
    assert inside.scores == (pytest.approx(0.4),)
    assert edge.verdict is Verdict.NEEDS_REVIEW
    (outside,) = event.failures
    assert outside.reason == "model_failed"
    assert outside.detail == "The model failed on this image: it gives 80; a result lies between 0 and 50"


async def test_a_label_has_its_own_threshold_until_the_caller_gives_one():
    document = described("softmax", postprocessing=[{"id": "softmax"}], review_below=0.3, review_below_for={"red": 0.9})
    async with started_rig() as rig:
        version = await rig.add(files(document))
        default = await rig.judged(version, [png(255, 0, 0), png(0, 255, 0)])
        strict = await rig.judged(version, [png(255, 0, 0), png(0, 255, 0)], threshold=0.5)
    assert [result.verdict for result in default.results] == [Verdict.NEEDS_REVIEW, Verdict.CLEAR]
    assert [result.verdict for result in strict.results] == [Verdict.CLEAR, Verdict.CLEAR]


async def test_a_picture_outside_a_gate_keeps_its_label():
    document = described("softmax", postprocessing=[{"id": "softmax"}], gates={"brightness_above": 0.2})
    async with started_rig() as rig:
        version = await rig.add(files(document))
        event = await rig.judged(version, [png(255, 0, 0), png(20, 0, 0)])
    assert [(result.label, result.verdict) for result in event.results] == [("red", Verdict.CLEAR), ("red", Verdict.OUT_OF_DOMAIN)]


# ---- planes ------------------------------------------------------------------------------------------------------------------------
async def test_a_job_chooses_the_planes():
    values = np.zeros((2, 3, 4, 4), np.uint8)
    values[0, 0], values[1, 1] = 255, 255
    async with started_rig() as rig:
        version = await rig.add(files(described("softmax", postprocessing=[{"id": "softmax"}])))
        labels = {}
        for name, planes in {
            "first": None,
            "second": PlaneSelection(z=1),
            "turned": PlaneSelection(z=0, c=(2, 1, 0)),
            "all": PlaneSelection(z=Projection.MAX, c=(1, 2, 0)),
        }.items():
            (result,) = (await rig.judged(version, [stack(values)], planes=planes)).results
            labels[name] = result.label
    assert labels == {"first": "red", "second": "green", "turned": "blue", "all": "red"}


@pytest.mark.parametrize(
    ("picture", "planes", "said"),
    [
        (png(9), None, "The model takes 3 (red, green, blue) channels, and the image has 1"),
        (png(9, 9, 9), PlaneSelection(z=4), "The image has no z=4: it has 1 focal plane, counted from 0"),
        (png(9, 9, 9), PlaneSelection(c=(0, 5, 1)), "The image has no c=5: it has 3 channels, counted from 0"),
    ],
)
async def test_an_image_that_does_not_fit_fails_alone_and_says_where(picture, planes, said):
    async with started_rig() as rig:
        version = await rig.add(files(described("softmax", postprocessing=[{"id": "softmax"}])))
        event = await rig.judged(version, [picture, png(255, 0, 0)] if planes is None else [picture], planes=planes)
    (failure,) = event.failures
    assert (failure.reason, failure.detail) == ("input_mismatch", said)
    assert [result.label for result in event.results] == (["red"] if planes is None else [])


# ---- models that fail --------------------------------------------------------------------------------------------------------------
async def test_a_network_that_gives_no_numbers_fails_each_image():
    async with started_rig() as rig:
        contents = with_network(divided_by_zero())
        good = await rig.add(files(described("softmax", postprocessing=[{"id": "softmax"}])))
        archive = zipped(contents)
        broken = msgspec.structs.replace(good, package=rig.blobs.keep(archive), sha256=sha256(divided_by_zero()).hexdigest())
        event = await rig.judged(rig.add_version(broken), [png(255, 0, 0)] * 2)
    assert {(failure.reason, failure.detail) for failure in event.failures} == {
        ("model_failed", "The model failed on this image: it gives numbers that are not finite")
    }
    assert event.provenance is not None


@pytest.mark.parametrize("spoiled", ["package", "weights"])
async def test_a_package_or_weights_of_another_digest_are_refused(spoiled):
    async with started_rig() as rig:
        version = await rig.add(files(described("softmax", postprocessing=[{"id": "softmax"}])))
        if spoiled == "package":
            rig.blobs.kept[version.package] += b"!"
        else:
            version = rig.add_version(msgspec.structs.replace(version, sha256="ab" * 32))
        event = await rig.judged(version, [png(255, 0, 0)])
    assert [failure.reason for failure in event.failures] == ["model_refused"]
    assert event.results == ()


async def test_models_take_turns_in_one_child():
    async with started_rig() as rig:
        offsets = {number: {"id": "scale_linear", "kwargs": {"gain": float(number)}} for number in range(1, 6)}
        versions = [await rig.add(files(described("logits", postprocessing=[offset]))) for offset in offsets.values()]
        for _ in range(2):
            for gain, version in zip(offsets, versions, strict=True):
                (result,) = (await rig.judged(version, [png(255, 0, 0)])).results
                assert result.scores[0] == pytest.approx(np.exp(gain) / (np.exp(gain) + 2), abs=1e-5)
