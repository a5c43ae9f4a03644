"""The shipped models answer as before packages were run: the same scores, measures and warnings for each example micrograph."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from domain.classification import PlaneSelection
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.loaded_models import LoadedModels
from infrastructure.inference.children.prediction import predict
from infrastructure.inference.model_reference import ModelReference
from infrastructure.inference.models.bundled import micrographs, models
from infrastructure.inference.models.manifest import load_manifest, manifest_as_json, scores
from infrastructure.inference.preprocessing import prepare
from infrastructure.inference.scoring import measures

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "predictions" / "shipped_models.json").read_text())
FILES = sorted(RECORDED["pbc8"]["answers"])
NAMES = sorted(RECORDED)
BETWEEN_PROCESSORS = 1e-3


@cache
def predictions(name):
    folder = models() / name
    record = load_manifest(folder)
    weights = (folder / record.weights.file).read_bytes()
    reference = ModelReference(file=record.sha256, weights=record.sha256, record=manifest_as_json(folder))
    with LoadedModels(lambda _: memoryview(weights)).network(reference) as network:
        assert network.manifest.preprocessing_digest == RECORDED[name]["preprocessing"]
        data = [(micrographs() / file).read_bytes() for file in FILES]
        return [predict(network, one, PlaneSelection(), ImageLimits()) for one in data]


def test_all_micrographs_are_recorded():
    assert len(FILES) == 51
    assert NAMES == ["bccd3", "pbc8"]


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_are_those_that_were_recorded(name):
    """Within the difference between processors."""
    for file, found in zip(FILES, predictions(name), strict=True):
        recorded = RECORDED[name]["answers"][file]
        assert (found.label, found.out_of_domain) == (recorded["label"], recorded["out_of_domain"])
        assert found.scores == pytest.approx(recorded["scores"], abs=BETWEEN_PROCESSORS)
        assert found.signals == pytest.approx(recorded["signals"], rel=BETWEEN_PROCESSORS, abs=BETWEEN_PROCESSORS)
        assert [warning.code for warning in found.warnings] == recorded["warnings"]
        assert found.value is None


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_exactly_those_of_a_bare_network(name):
    folder = models() / name
    record = load_manifest(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / record.weights.file, options, providers=["CPUExecutionProvider"])
    for file, found in zip(FILES, predictions(name), strict=True):
        tensor = prepare((micrographs() / file).read_bytes(), record.preprocessing)
        logits, distance = session.run(list(record.output_names), {record.input_name: tensor[None]})
        probabilities = scores(np.asarray(logits[0], np.float64), record.temperature)
        assert found.scores == tuple(round(score, 6) for score in probabilities.tolist())
        assert found.signals["distance"] == round(float(distance.reshape(-1)[0]), 6)
        expected = {measure: round(value, 6) for measure, value in measures(tensor, record.preprocessing).items()}
        assert expected.items() <= found.signals.items()
