"""Exports are valid by the specification of bioimage.io, hold all files of the package, and are the same version when added again."""

import io
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import msgspec
import pytest
import yaml
from bioimageio.spec import ValidationContext, load_description

from domain.model import Version
from infrastructure.inference.packages.export import export_package, weights_file
from infrastructure.inference.packages.package import open_package
from infrastructure.inference.packages.strict_yaml import YamlLimits, load_yaml
from infrastructure.inference.version_digest import version_digest
from tests.adversaries import onnx_files as onnx
from tests.archives import zip_of
from tests.infrastructure.inference.packages.making import SIZE, files, manifest, network, value, zipped

EXAMPLES = Path(__file__).parents[4] / "examples" / "models"
SIMPLE = ("granules", "vesicles", "cell-count")
PLAIN = {
    "model": "letters",
    "input_tensor": {"axes": "bcyx", "channels": ["red", "green", "blue"], "size": SIZE},
    "output": {"kind": "softmax"},
}
validates = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # the validator's own


def plain(*, weights=None, labels="alpha\nbeta\ngamma\n", **fields):
    """An archive of the simple form; `fields` replace those of its manifest."""
    manifest = {name: content for name, content in (PLAIN | fields).items() if content is not None}
    text = yaml.safe_dump(manifest, allow_unicode=True).encode()
    return zipped({"bioscope.yaml": text, "labels.txt": labels.encode(), "model.onnx": network() if weights is None else weights})


def version_of(archive):
    """As a check that passes records it."""
    package = open_package(archive)
    weights = package.files[package.manifest.weights.source]
    return Version(
        number=1,
        sha256=weights.sha256,
        size=weights.size,
        labels=package.manifest.labels,
        review_below=0,
        record=msgspec.json.encode(package.document, order="deterministic").decode(),
        digest=version_digest(weights.sha256, package.document),
        package=sha256(archive).hexdigest(),
    )


def exported(archive):
    """The bytes of the export; None where the archive is exported as it is."""
    pieces = export_package(version_of(archive), io.BytesIO(archive))
    return None if pieces is None else b"".join(pieces)


def contents(archive):
    with ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def manifest_of(archive):
    return load_yaml(contents(archive)["rdf.yaml"], file="rdf.yaml", limits=YamlLimits())


def assert_valid(archive, tmp_path):
    path = tmp_path / "exported.zip"
    path.write_bytes(archive)
    with ValidationContext(perform_io_checks=True):
        summary = load_description(path).validation_summary
    assert summary.status == "valid-format", summary.format()


def in_folder(archive, folder="cells"):
    return zipped({f"{folder}/{name}": data for name, data in contents(archive).items()} | {f"__MACOSX/{folder}/._x": b"\0"})


@validates
@pytest.mark.parametrize("name", SIMPLE)
def test_a_simple_package_gets_a_valid_manifest_beside_its_own_files(name, tmp_path):
    archive = zip_of(EXAMPLES / name)
    found = exported(archive)
    assert_valid(found, tmp_path)
    assert {file: data for file, data in contents(found).items() if file != "rdf.yaml"} == contents(archive)
    onnx_weights = manifest_of(found)["weights"]["onnx"]
    assert onnx_weights == {"source": "model.onnx", "opset_version": 18, "sha256": version_of(archive).sha256}


@pytest.mark.parametrize("name", SIMPLE)
def test_an_export_is_the_same_version_and_is_exported_as_it_is(name):
    archive = zip_of(EXAMPLES / name)
    found = exported(archive)
    before, after = version_of(archive), version_of(found)
    assert (after.digest, after.record, after.sha256) == (before.digest, before.record, before.sha256)
    assert exported(found) is None
    assert exported(archive) == found


def odd(**changes):
    return lambda: plain(**changes)


ODD = {
    "a short name": odd(model="wbc"),
    "a name without Latin letters": odd(title="细胞"),
    "a name with accents": odd(title="Zähler für Größen; schnell"),
    "a long name": odd(title="cells " * 30),
    "a version that is a date": odd(version="2026-11-29"),
    "a version in words": odd(version="second draft"),
    "a licence of our own": odd(license="For our laboratory only", description="Letters"),
    "a known licence": odd(license="CC-BY-NC-SA-4.0"),
    "a long description": odd(description="long \x85\u2028\ufeff\U0001f52c" * 500),
    "a description in parts that JSON escapes": odd(description='"\\/\n\t\x7f: #'),
    "labels with blanks": odd(labels="HeLa cells\nno\n-1\t'none' of: these\n"),
    "whole numbers": odd(
        input_tensor=PLAIN["input_tensor"] | {"type": "uint8", "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]}
    ),
    "truth values": odd(
        input_tensor=PLAIN["input_tensor"] | {"type": "bool", "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]}
    ),
    "names of tensors that are no identifiers": lambda: plain(
        weights=network(outputs=[value(name, onnx.FLOAT, ("N", size)) for name, size in (("class", 3), ("Class", 1), ("1:out put", 1))]),
        output={"kind": "softmax", "tensor": "class", "distance": "Class"},
    ),
    "a reference to the input": odd(
        input_tensor=PLAIN["input_tensor"]
        | {"preprocessing": [{"id": "scale_range", "kwargs": {"axes": ["y", "x"], "reference_tensor": "image"}}]}
    ),
    "a flexible size": odd(input_tensor=PLAIN["input_tensor"] | {"size": {"min": 4, "step": 2}}, weights=network(dims=("N", 3, "H", "W"))),
}  # fmt: skip


@validates
@pytest.mark.parametrize("case", ODD)
def test_what_the_specification_does_not_permit_is_renamed_or_left_out_in_the_export_alone(case, tmp_path):
    archive = ODD[case]()
    found = exported(archive)
    assert_valid(found, tmp_path)
    assert version_of(found).digest == version_of(archive).digest


def test_a_licence_without_an_identifier_is_stated_in_the_description():
    found = manifest_of(exported(ODD["a licence of our own"]()))
    assert (found["description"], "license" in found) == ("Licence: For our laboratory only. Letters", False)
    assert manifest_of(exported(ODD["a known licence"]()))["license"] == "CC-BY-NC-SA-4.0"


def test_labels_are_written_as_they_are():
    found = manifest_of(exported(ODD["labels with blanks"]()))
    assert found["outputs"][0]["axes"][1]["channel_names"] == ["HeLa cells", "no", "-1"]


def test_a_network_that_states_no_operator_set_gets_the_lowest():
    archive = plain()
    version = version_of(archive)
    record = msgspec.json.decode(version.record)
    del record["weights"]["onnx"]["opset_version"]
    without = msgspec.structs.replace(version, record=msgspec.json.encode(record).decode())
    found = b"".join(export_package(without, io.BytesIO(archive)))
    assert manifest_of(found)["weights"]["onnx"]["opset_version"] == 7


# ---- which manifest ----------------------------------------------------------------------------------------------------------------
def test_the_simple_form_goes_before_an_rdf_beside_it():
    both = zipped(contents(plain(model="simple")) | {"rdf.yaml": b"model: other\n"})
    assert open_package(both).manifest.model == "simple"
    assert exported(both) is None


def test_a_package_with_an_rdf_at_the_top_is_exported_as_it_is():
    assert exported(zipped(files())) is None


@validates
@pytest.mark.parametrize("archive", [plain(), zipped(files())], ids=["simple", "full"])
def test_a_package_in_a_folder_is_exported_without_the_folder(archive, tmp_path):
    inside = in_folder(archive)
    found = exported(inside)
    assert_valid(found, tmp_path)
    assert contents(found).keys() == contents(archive).keys() | {"rdf.yaml"}
    assert version_of(found).digest == version_of(inside).digest


@pytest.mark.parametrize("record", ["{}", "[", "null", '{"inputs": [7]}'])
def test_a_version_whose_record_cannot_be_read_is_exported_as_it_is(record):
    archive = plain()
    assert export_package(msgspec.structs.replace(version_of(archive), record=record), io.BytesIO(archive)) is None


def test_what_a_record_may_leave_out_is_no_error():
    document = manifest()
    del document["inputs"][0]["id"], document["outputs"][0]["id"], document["version"], document["license"]
    version = msgspec.structs.replace(version_of(plain()), record=msgspec.json.encode(document).decode())
    found = manifest_of(b"".join(export_package(version, io.BytesIO(plain()))))
    assert (found["inputs"][0]["id"], found["outputs"][0]["id"]) == ("input", "output")
    assert found["config"] == {"bioscope": {}}


@pytest.mark.parametrize("record", ["", "[", "7", '{"inputs": 7}', '{"inputs": [7], "outputs": null}', "[" * 10_000])
def test_a_version_of_an_earlier_release_is_exported_whatever_its_record_is(record):
    weights = io.BytesIO(b"weights")
    version = msgspec.structs.replace(version_of(plain()), package="", record=record)
    assert contents(b"".join(export_package(version, weights)))["model.onnx"] == b"weights"


def test_what_is_no_archive_is_exported_as_it_is():
    assert export_package(version_of(plain()), io.BytesIO(b"package")) is None


NAMES = {
    '{"weights": {"onnx": {"source": "nets/cells.onnx"}}}': "nets/cells.onnx",
    '{"weights": {"onnx": {"source": "../../etc/passwd"}}}': "model.onnx",
    '{"weights": {"onnx": {"source": "/etc/passwd"}}}': "model.onnx",
    '{"weights": {"onnx": {"source": 7}}}': "model.onnx",
    '{"weights": {"onnx": {"source": "rdf.yaml"}}}': "model.onnx",
    '{"weights": null}': "model.onnx",
    "{}": "model.onnx",
    "[": "model.onnx",
}


@pytest.mark.parametrize("record", NAMES)
def test_weights_have_the_name_of_the_manifest_if_it_is_safe(record):
    assert weights_file(record) == NAMES[record]
