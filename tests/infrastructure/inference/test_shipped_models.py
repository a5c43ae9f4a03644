"""The shipped models: their records are valid, and they classify the example micrographs as documented."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from bioimageio.spec import ValidationContext, load_description
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from domain.errors import Invalid
from infrastructure.inference.models.manifest import load_manifest, manifest_as_json, scores
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.preprocessing import prepare
from training.measure import interpret_picture

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "models").glob("*/rdf.yaml"))
MICROGRAPHS = ROOT / "examples" / "micrographs"

shipped = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def demo_rows() -> list[dict[str, str]]:
    with (MICROGRAPHS / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_blood_cell_model_is_shipped():
    assert "pbc8" in [folder.name for folder in FOLDERS]


@shipped
def test_every_file_is_the_one_that_the_record_names(folder):
    record = load_manifest(folder)
    assert digest(folder / record.weights.file) == record.sha256
    assert (folder / record.weights.file).stat().st_size == record.size_bytes
    for file in filter(None, (record.int8, record.test_input, record.test_output)):
        assert digest(folder / file.file) == file.sha256
    assert (folder / "labels.txt").read_text().split() == list(record.labels)


@shipped
def test_the_test_tensors_come_out_again(folder):
    record = load_manifest(folder)
    tensors = np.load(folder / record.test_input.file)
    assert tensors.shape[1:] == record.input_shape
    logits = session(folder / record.weights.file).run(list(record.output_names), {record.input_name: tensors})[0]
    assert np.abs(logits - np.load(folder / record.test_output.file)).max() <= record.tolerance


@shipped
@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the validator's own
def test_the_record_is_a_valid_bioimage_description(folder):
    with ValidationContext(perform_io_checks=True):
        summary = load_description(folder / "rdf.yaml").validation_summary
    assert summary.status == "valid-format", summary.format()


@shipped
def test_a_batch_of_any_length_gives_each_picture_its_own_scores(folder):
    record = load_manifest(folder)
    opened = session(folder / record.weights.file)
    tensors = np.load(folder / record.test_input.file)
    whole = opened.run(list(record.output_names), {record.input_name: np.concatenate([tensors] * 5)})[0]
    alone = opened.run(list(record.output_names), {record.input_name: tensors[:1]})[0]
    assert np.abs(whole[0] - alone[0]).max() < 1e-4
    assert len(whole) == 5 * len(tensors)


def test_the_demo_micrographs_are_what_their_manifest_says():
    rows = demo_rows()
    assert len(rows) >= 40
    assert all(digest(MICROGRAPHS / row["file"]) == row["sha256"] for row in rows)


def test_the_demo_micrographs_are_classified():
    record = load_manifest(ROOT / "models" / "pbc8")
    rows = demo_rows()
    tensors = np.stack([prepare((MICROGRAPHS / row["file"]).read_bytes(), record.preprocessing) for row in rows])
    outputs = session(ROOT / "models" / "pbc8" / record.weights.file).run(list(record.output_names), {record.input_name: tensors})
    manifest = parse_record(manifest_as_json(ROOT / "models" / "pbc8"))
    found = [interpret_picture(tensor, [output[index] for output in outputs], manifest) for index, tensor in enumerate(tensors)]
    right = [judgement.label == row["label"] for judgement, row in zip(found, rows, strict=True)]
    assert np.mean(right) >= 0.9
    assert np.mean([judgement.status == "out_of_domain" for judgement in found]) <= 0.05


def changed(tmp_path: Path, change) -> Path:
    folder = shutil.copytree(ROOT / "models" / "pbc8", tmp_path / "model")
    record = yaml.safe_load((folder / "rdf.yaml").read_text())
    change(record)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(record))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rdf: rdf["weights"]["onnx"].update(sha256="abc"), "sha256"),
        (lambda rdf: rdf["weights"]["onnx"].update(sha256=12345678), "sha256"),
        (lambda rdf: rdf.pop("config"), "config"),
        (lambda rdf: rdf["config"]["bioscope"]["preprocessing"].update(filter="nearest"), "filter"),
        (lambda rdf: rdf["config"]["bioscope"].update(temprature=1.0), "temprature"),
        (lambda rdf: rdf["outputs"][0]["axes"].pop(1), "channel"),
    ],
)
def test_a_record_that_cannot_be_served_by_names_the_field(tmp_path, change, said):
    with pytest.raises(Invalid, match=said):
        load_manifest(changed(tmp_path, change))


def test_a_folder_without_a_record_is_no_model(tmp_path):
    with pytest.raises(Invalid, match=r"rdf\.yaml"):
        load_manifest(tmp_path)


@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(-1e4, 1e4, width=32)), st.floats(0.05, 20))
def test_scores_are_probabilities_in_the_order_of_the_logits(logits, temperature):
    found = scores(logits, temperature)
    assert np.allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    assert all(row[logit.argmax()] == row.max() for row, logit in zip(found, logits, strict=True))
