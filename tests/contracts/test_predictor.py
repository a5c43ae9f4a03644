"""The contract of the predictor: sandboxed children with a shipped model, and the in-memory twin."""

from pathlib import Path

import msgspec
import pytest

from application.ports import Prediction
from domain import model
from domain.classification import PlaneSelection, Verdict
from domain.values import model_id
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.inference.models.bundled import register_bundled
from infrastructure.inference.predictor import SandboxedPredictor
from tests.contracts.conftest import ROOT
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder
from tests.twins.predictor import MemoryPredictor

pytestmark = pytest.mark.anyio
CELLS = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "examples" / "micrographs").rglob("*.jpg"))[:11]]
ABSENT = "ab" * 32


@pytest.fixture(scope="module")
def shipped():
    """The blobs of the shipped models, and the version of pbc8 in production."""
    blobs, log = MemoryBlobs(), RecorderEventStore(MemoryRecorder(ROOT), ROOT)
    register_bundled(blobs, log)
    return blobs, log.load(model_id("pbc8"), model.evolve).production


@pytest.fixture(params=["memory", "sandboxed"])
async def predictor(request, shipped):
    if request.param == "memory":
        yield MemoryPredictor(lacks=[ABSENT])
        return
    predictor = SandboxedPredictor(Settings(), shipped[0])
    yield predictor
    predictor.close()


@pytest.fixture
def predict(predictor, shipped):
    async def predict(images, version=shipped[1], *, threshold=None):
        return await predictor.predict(images, version, planes=PlaneSelection(), threshold=threshold)

    return predict


async def test_every_image_has_its_answer_in_order(predict, shipped):
    _, version = shipped
    answers = await predict([*CELLS[:5], b"no image", *CELLS[5:]])
    assert [type(answer) for answer in answers].index(Prediction) == 0
    failure = answers.pop(5)
    assert (failure.is_ours, bool(failure.reason), bool(failure.detail)) == (False, True, True)
    assert len(answers) == len(CELLS)
    for answer in answers:
        assert answer.label == version.labels[answer.scores.index(max(answer.scores))]
        assert answer.confidence == max(answer.scores)
        assert sum(answer.scores) == pytest.approx(1, abs=1e-4)
        assert answer.value is None


async def test_the_verdict_follows_the_threshold(predict):
    (low,), (high,) = await predict(CELLS[:1], threshold=0.0), await predict(CELLS[:1], threshold=1.0)
    assert (low.verdict, high.verdict) == (Verdict.CLEAR, Verdict.NEEDS_REVIEW)
    assert (low.scores, low.label) == (high.scores, high.label)


async def test_a_model_whose_file_is_missing_is_no_fault_of_the_image(predict, shipped):
    (failure,) = await predict(CELLS[:1], msgspec.structs.replace(shipped[1], sha256=ABSENT, package=""))
    assert failure.is_ours
    assert failure.reason == "model_refused"


async def test_nothing_is_no_answer(predict):
    assert await predict([]) == []


async def test_it_says_whether_there_are_processes(predictor):
    assert predictor.is_enabled
    assert not MemoryPredictor(is_enabled=False).is_enabled
    assert not SandboxedPredictor(Settings(kserve_processes=0), MemoryBlobs()).is_enabled
