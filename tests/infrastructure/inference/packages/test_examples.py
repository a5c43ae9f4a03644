"""The packages in examples/models, from PyTorch and scikit-learn: they are valid, and say of their images what was drawn."""

import csv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bioimageio.spec import ValidationContext, load_description, validate_format

from infrastructure.images.reader import open_image
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.packages.input_fitting import ImageFacts, mismatches
from infrastructure.inference.packages.operators import NamedArray, apply
from infrastructure.inference.packages.package import open_package
from infrastructure.inference.packages.tensor_file import read_tensor
from tests.archives import zip_of
from tests.infrastructure.inference.packages.making import fed

EXAMPLES = Path(__file__).parents[4] / "examples" / "models"
IMAGES = EXAMPLES / "images"
SIMPLE = ("granules", "vesicles", "cell-count")
KINDS = {"nuclei-marker": "softmax", "granules": "multi_label", "vesicles": "softmax", "cell-count": "regression"}
MAX_BYTES = 300_000
BOTH = {"both": {"granules", "vacuoles"}, "granules": {"granules"}, "vacuoles": {"vacuoles"}, "neither": set()}


def images(name):
    return sorted(path for path in (IMAGES / name).iterdir() if path.suffix in {".tif", ".png"})


def drawn(name):
    """The label of each image, by its file."""
    with (IMAGES / name / "manifest.csv").open(newline="") as file:
        return {row["file"]: row["label"] for row in csv.DictReader(file)}


def pixels(path, *, z=0):
    """All channels of one focal plane, with what the file says of itself."""
    with open_image(path, limits=ImageLimits()) as reader:
        count = reader.metadata.planes.sizes.get("C", 1) if reader.metadata else 1
        values = np.concatenate([reader.plane(c=c, z=z).pixels for c in range(count)], axis=-1)
        facts = ImageFacts(
            width=reader.header.width,
            height=reader.header.height,
            channels=values.shape[-1],
            dtype=reader.dtype,
            bits=reader.header.bits,
            pixel_size_um=reader.pixel_size_um,
        )
    return NamedArray(values, ("y", "x", "channel")), facts


def outcome(package, tensor):
    """The scored output for what the network is fed with."""
    session = onnxruntime.InferenceSession(package.read(package.manifest.weights.source), providers=["CPUExecutionProvider"])
    scored = package.manifest.output(package.manifest.scored_output)
    (found,) = session.run([package.names.outputs[scored.id]], {package.names.input: tensor})
    return apply(scored.postprocessing, NamedArray(found, tuple(axis.id for axis in scored.axes))).values


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


@pytest.fixture
def package(name):
    return open_package(EXAMPLES / name)


def answers(package, name):
    """The numbers for each image, by its file."""
    return {path.name: outcome(package, fed(pixels(path)[0], package.manifest.input))[0] for path in images(name)}


def test_every_example_is_opened_as_the_kind_that_it_shows(name, package):
    assert (package.manifest.model, package.manifest.kind) == (name, KINDS[name])
    assert sum(facts.size for facts in package.files.values()) < MAX_BYTES


def test_its_archive_is_the_same_package(name, package, tmp_path):
    archive = tmp_path / "package.zip"
    archive.write_bytes(zip_of(EXAMPLES / name))
    assert open_package(archive).document == package.document


def test_every_image_fits_its_model(name, package):
    assert len(images(name)) >= 4
    for path in images(name):
        assert mismatches(pixels(path)[1], package.manifest.input) == (), path.name


def test_no_image_of_another_model_fits_the_one_for_two_channels():
    tensor = open_package(EXAMPLES / "nuclei-marker").manifest.input
    for other in SIMPLE:
        assert {found.axis for found in mismatches(pixels(images(other)[0])[1], tensor)} >= {"channel", "bit depth"}


@pytest.mark.parametrize("name", ["nuclei-marker", "vesicles"])
def test_one_label_is_recognised_in_each_image(name):
    package = open_package(EXAMPLES / name)
    found = answers(package, name)
    assert {file: package.manifest.labels[scores.argmax()] for file, scores in found.items()} == drawn(name)
    assert all(scores.sum() == pytest.approx(1, abs=1e-4) for scores in found.values())
    assert set(drawn(name).values()) == set(package.manifest.labels)


def test_all_labels_that_apply_are_recognised():
    package = open_package(EXAMPLES / "granules")
    found = answers(package, "granules")
    applies = {Path(file).stem: {label for label, score in zip(package.manifest.labels, scores, strict=True) if score >= 0.5}
               for file, scores in found.items()}  # fmt: skip
    assert applies == BOTH


def test_the_number_of_cells_is_near_the_one_that_was_drawn():
    package = open_package(EXAMPLES / "cell-count")
    low, high = package.manifest.range
    for file, (number,) in answers(package, "cell-count").items():
        assert abs(number - int(Path(file).stem.removeprefix("cells_"))) < 1
        assert low <= number <= high


def test_the_answer_for_a_stack_depends_on_the_plane():
    package = open_package(EXAMPLES / "nuclei-marker")
    (path,) = images("stacks")
    labels = {z: package.manifest.labels[outcome(package, fed(pixels(path, z=z)[0], package.manifest.input)).argmax()] for z in (0, 1)}
    assert labels == {0: "no_nuclei", 1: drawn("stacks")[path.name]}


def test_the_package_of_the_zoo_gives_its_test_output():
    package = open_package(EXAMPLES / "nuclei-marker")
    tensor, output = package.manifest.input, package.manifest.outputs[0]
    image = read_tensor(package.read(tensor.test_tensor.source), name="test_input.npy")
    fed = apply(tensor.preprocessing, NamedArray(image, tensor.axis_ids)).values
    expected = read_tensor(package.read(output.test_tensor.source), name="test_output.npy")
    assert np.abs(outcome(package, fed) - expected).max() < 1e-5
    assert expected.argmax() == package.manifest.labels.index("marker_positive")


# ---- by the specification -------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # the validator's own
def test_the_package_of_the_zoo_is_valid_by_the_specification():
    with ValidationContext(perform_io_checks=True):
        summary = load_description(EXAMPLES / "nuclei-marker" / "rdf.yaml").validation_summary
    assert summary.status == "valid-format", summary.format()


@pytest.mark.parametrize("name", SIMPLE)
def test_the_record_of_a_simple_package_is_valid_by_the_specification(name):
    document = open_package(EXAMPLES / name).document
    with ValidationContext(perform_io_checks=False):
        assert validate_format(document).status == "valid-format"
