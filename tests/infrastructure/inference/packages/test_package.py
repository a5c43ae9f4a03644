import itertools
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml

from infrastructure.inference.models.bundled import models
from infrastructure.inference.models.onnx_validation import ModelLimits, summarize_model
from infrastructure.inference.models.refusals import PackageRefused
from infrastructure.inference.packages.operators import NamedArray, apply
from infrastructure.inference.packages.package import PackageLimits, open_package
from infrastructure.inference.packages.package_files import FileLimits
from infrastructure.inference.packages.tensor_file import read_tensor
from tests.adversaries import onnx_files as onnx
from tests.adversaries.onnx_files import field
from tests.infrastructure.inference.packages.making import (
    LABELS,
    SIZE,
    archive,
    changed,
    classifier_of_trees,
    entry,
    fed,
    files,
    manifest,
    network,
    npy,
    value,
    with_network,
    zipped,
)

SCIKIT_LEARN = Path(__file__).parents[3] / "data" / "scikit-learn"
PLAIN = {
    "model": "letters",
    "input_tensor": {"axes": "bcyx", "channels": ["red", "green", "blue"], "size": SIZE},
    "output": {"kind": "softmax"},
    "review_below": 0.6,
}


@pytest.fixture
def opened(tmp_path):
    """Opens files by name, or the bytes of an archive."""

    def open_it(contents, limits=None):
        path = tmp_path / ("package.zip" if isinstance(contents, bytes) else "package")
        if isinstance(contents, bytes):
            path.write_bytes(contents)
        else:
            path.mkdir(exist_ok=True)
            for name, data in contents.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        return open_package(path, limits or PackageLimits())

    return open_it


@pytest.fixture
def refused(opened):
    def refusal(contents, limits=None):
        with pytest.raises(PackageRefused) as error:
            opened(contents, limits)
        return error.value

    return refusal


def plain(chosen=None, *, weights=None, labels="alpha\nbeta\ngamma"):
    """A package of the simple form."""
    text = yaml.safe_dump(chosen or PLAIN).encode()
    return {"bioscope.yaml": text, "labels.txt": labels.encode(), "model.onnx": network() if weights is None else weights}


# ---- forms -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", [files, lambda: zipped(files())], ids=["folder", "archive"])
def test_a_package_is_opened_with_its_manifest_and_files(form, opened):
    package = opened(form())
    assert package.manifest.labels == LABELS
    assert package.names == ("image", {"scores": "scores"})
    assert {name: package.read(name) for name in package.files} == files()
    assert package.files["model.onnx"].sha256 == sha256(network()).hexdigest()


def test_the_manifest_may_lie_in_the_only_folder(opened):
    inside = {f"letters/{name}": data for name, data in files().items()} | {"__MACOSX/letters/._rdf.yaml": b"\0"}
    assert opened(zipped(inside)).read("model.onnx") == network()


def test_stored_files_are_read_as_well_as_deflated_ones(opened):
    assert opened(archive(*(entry(name, data) for name, data in files().items()))).manifest.labels == LABELS


def test_an_archive_may_have_folders_and_a_comment(opened):
    assert opened(zipped(files(), entry("images/", mode=0o040755), comment=b"made by hand")).manifest.labels == LABELS


def test_archives_in_an_archive_stay_closed(opened):
    assert opened(zipped(files(more__zip=zipped(files(), entry("../evil"))))).manifest.labels == LABELS


@pytest.mark.parametrize("folder", sorted(path.parent for path in models().glob("*/rdf.yaml")), ids=lambda folder: folder.name)
def test_the_shipped_models_are_packages(folder):
    package = open_package(folder)
    assert package.manifest.model == folder.name
    assert package.manifest.files


def test_the_quantised_network_need_not_be_there(opened):
    """Wheels leave it out."""
    shipped = {path.name: path.read_bytes() for path in (models() / "pbc8").iterdir() if path.name != "model-int8.onnx"}
    assert opened(shipped).manifest.int8.file == "model-int8.onnx"


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_package(tmp_path / "nothing")


def test_each_limit_is_one(refused):
    size = sum(map(len, files().values()))
    assert refused(files(), PackageLimits(files=FileLimits(total_bytes=size - 1))).code == "too_large"
    assert refused(files(), PackageLimits(files=FileLimits(entries=3))).code == "too_many_entries"
    assert refused(files(), PackageLimits(network=ModelLimits(file_bytes=10))).code == "onnx_too_large"
    assert refused(zipped(files()), PackageLimits(files=FileLimits(total_bytes=100))).code == "too_large"


def test_a_file_that_is_not_in_the_package_cannot_be_read(opened):
    with pytest.raises(PackageRefused, match=r"^\.\./secret: is not in the package$"):
        opened(files()).read("../secret")


def test_the_simple_form_needs_labels(refused):
    contents = plain()
    del contents["labels.txt"]
    assert str(refused(contents)) == "labels.txt: is not in the package"


# ---- the simple form ---------------------------------------------------------------------------------------------------------------
def test_an_onnx_file_needs_labels_and_a_short_manifest(opened):
    package = opened(plain(labels="alpha\tfirst letter\nbeta\ngamma\n"))
    assert (package.manifest.model, package.manifest.kind, package.manifest.review_below) == ("letters", "softmax", 0.6)
    assert (package.manifest.labels, package.manifest.label_texts) == (LABELS, {"alpha": "first letter"})
    assert package.manifest.input.axis_ids == ("batch", "channel", "y", "x")


def test_it_may_lie_beside_its_manifest(tmp_path):
    for name, data in (plain() | {"unrelated.txt": b"x"}).items():
        (tmp_path / name).write_bytes(data)
    assert sorted(open_package(tmp_path / "model.onnx").files) == ["bioscope.yaml", "labels.txt", "model.onnx"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model"),
        ({"input_tensor": {"axes": "bcyx", "size": 4}}, "input_tensor.axes[1].channel_names"),
        ({"input_tensor": {"axes": "bcq", "size": 4}}, "input_tensor.axes"),
        ({"temprature": 2}, "config.bioscope"),
        ({"review_below": 3}, "review_below"),
        ({"weights": "other.onnx"}, "weights"),
    ],
)
def test_a_refusal_of_the_simple_form_names_its_own_fields(change, field, refused):
    error = refused(plain({name: value for name, value in (PLAIN | change).items() if value is not None}))
    assert error.file == "bioscope.yaml"
    assert error.field == field


def test_the_output_must_be_named_where_there_are_several(opened, refused):
    outputs = [value("label", onnx.INT64, ("N",)), value("scores", onnx.FLOAT, ("N", 3))]
    weights = network(outputs=outputs)
    assert refused(plain(weights=weights)).field == "output.tensor"
    package = opened(plain(PLAIN | {"output": {"kind": "softmax", "tensor": "scores"}}, weights=weights))
    assert package.names.outputs == {"scores": "scores"}


def test_a_classifier_of_scikit_learn_takes_one_row_of_numbers(opened, refused):
    chosen = PLAIN | {"input": {"flatten": True}, "output": {"kind": "softmax", "tensor": "scores"}}
    assert opened(plain(chosen, weights=classifier_of_trees())).network.operators == {"ai.onnx.ml:TreeEnsembleClassifier"}
    smaller = chosen | {"input_tensor": {"axes": "byx", "size": SIZE}}
    assert "take" in refused(plain(smaller, weights=classifier_of_trees())).detail


@pytest.mark.parametrize("name", ["forest", "logistic"])
def test_an_export_of_scikit_learn_is_opened_and_gives_probabilities(name, opened):
    weights = (SCIKIT_LEARN / f"{name}.onnx").read_bytes()
    rules = {"input": {"flatten": True, "values": "unit"}, "output": {"kind": "softmax", "tensor": "probabilities"}}
    package = opened(plain(PLAIN | rules, weights=weights))
    session = onnxruntime.InferenceSession(package.read("model.onnx"), providers=["CPUExecutionProvider"])
    image = NamedArray(np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8), ("y", "x", "channel"))
    row = fed(image, package.manifest.input)
    (probabilities,) = session.run([package.names.outputs["probabilities"]], {package.names.input: row})
    assert probabilities.shape == (1, 3)
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["forest", "logistic"])
def test_an_export_of_scikit_learn_with_maps_is_refused_with_the_option_to_use(name, refused):
    weights = (SCIKIT_LEARN / f"{name}-zipmap.onnx").read_bytes()
    rules = {"input": {"flatten": True}, "output": {"kind": "softmax", "tensor": "output_probability"}}
    error = refused(plain(PLAIN | rules, weights=weights))
    assert (error.code, error.file) == ("onnx_signature", "model.onnx")
    assert "zipmap=False" in error.detail


def test_an_external_classifier_has_labels_and_no_weights(opened):
    package = opened({"bioscope.yaml": b"model: theirs\noutput: {kind: external}\n", "labels.txt": b"a\nb\n"})
    assert (package.manifest.kind, package.manifest.weights, package.network, package.names) == ("external", None, None, None)


# ---- the network and its manifest -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_axes_of_a_network_may_have_any_order(order, opened):
    axes, dims = manifest()["inputs"][0]["axes"], ("N", 3, SIZE, SIZE)
    weights = network(dims=tuple(dims[index] for index in order))
    document = changed(manifest(), "inputs", 0, "axes", to=[axes[index] for index in order])
    document = changed(document, "inputs", 0, "test_tensor", to=None)
    document["weights"]["onnx"]["sha256"] = sha256(weights).hexdigest()
    assert opened(files(document, model__onnx=weights)).manifest.input.axis_ids[order.index(1)] == "channel"


@pytest.mark.parametrize(("kind", "dtype"), [(onnx.FLOAT, "float32"), (2, "uint8"), (4, "uint16"), (onnx.INT8, "int8"), (11, "float64")])
def test_the_type_of_the_input_is_that_after_the_preprocessing(kind, dtype, opened, refused):
    cast = [{"id": "ensure_dtype", "kwargs": {"dtype": dtype}}]
    document = changed(manifest(), "inputs", 0, "preprocessing", to=[{"id": "clip", "kwargs": {"min": 0}}, *cast])
    weights = network(kind=kind)
    document["weights"]["onnx"]["sha256"] = sha256(weights).hexdigest()
    assert opened(files(document, model__onnx=weights)).network.inputs[0].element_type == kind
    if dtype != "float32":
        assert f"ensure_dtype {dtype}" in refused(with_network(weights)).detail


def test_a_flexible_size_needs_a_network_that_leaves_it_open(opened, refused):
    document = changed(manifest(), "inputs", 0, "axes", 2, "size", to={"min": SIZE, "step": 2})
    assert refused(files(document)).field == "input `image`"
    weights = network(dims=("N", 3, "H", SIZE))
    document["weights"]["onnx"]["sha256"] = sha256(weights).hexdigest()
    assert opened(files(document, model__onnx=weights)).manifest.input.axes[2].step == 2


def test_a_fixed_batch_of_one_is_taken_and_no_other(opened, refused):
    assert opened(with_network(network(dims=(1, 3, SIZE, SIZE)))).names.input == "image"
    assert "batch" in refused(with_network(network(dims=(8, 3, SIZE, SIZE)))).detail


def test_inputs_with_a_default_are_not_fed(opened):
    weights = network(initializers=[onnx.tensor("scale", dims=[1], raw=bytes(4))], more_inputs=[value("scale", onnx.FLOAT, (1,))])
    assert opened(with_network(weights)).names.input == "image"


def test_outputs_go_by_order_where_the_network_has_other_names(opened):
    document = changed(manifest(), "outputs", 0, "id", to="probabilities")
    assert opened(files(document)).names.outputs == {"probabilities": "scores"}


def test_a_refusal_of_an_output_that_goes_by_order_names_it_as_the_network_and_as_the_manifest_do(refused):
    weights = network(outputs=[value("label", onnx.INT64, ("N", 4))])
    document = changed(manifest(), "outputs", 0, "id", to="probabilities")
    document["weights"]["onnx"]["sha256"] = sha256(weights).hexdigest()
    error = refused(files(document, model__onnx=weights))
    assert error.field == "output `label`, which is `probabilities` in the manifest by its order"
    assert error.detail == "gives 4 numbers; the manifest has 3 labels (alpha, beta, gamma)"


@pytest.mark.parametrize("name", ["tensor", "distance"])
def test_the_simple_form_names_outputs_that_the_network_has(name, refused):
    output = {"kind": "softmax", "tensor": "scores"} | {name: "probabilities"}
    error = refused(plain(PLAIN | {"output": output}))
    assert (error.code, error.file, error.field) == ("onnx_signature", "bioscope.yaml", f"output.{name}")
    assert error.detail == "the network has no output `probabilities`; it has `scores`"


def test_a_name_that_an_export_of_scikit_learn_with_maps_lacks_is_refused_with_the_option_to_use(refused):
    weights = (SCIKIT_LEARN / "forest-zipmap.onnx").read_bytes()
    rules = {"input": {"flatten": True}, "output": {"kind": "softmax", "tensor": "probabilities"}}
    assert refused(plain(PLAIN | rules, weights=weights)).detail == (
        "the network has no output `probabilities`; it has `output_label`, `output_probability`: export it with the option zipmap=False"
    )


def test_a_network_that_takes_a_row_is_refused_with_the_rule_for_it(refused):
    detail = refused(plain(weights=network(dims=("N", 3 * SIZE * SIZE)))).detail
    assert detail == "has 2 dimensions; the manifest has the axes batch, channel, y, x: set `flatten: true` if it takes one row of numbers"


def test_a_label_that_occurs_twice_is_refused_with_its_lines(refused):
    error = refused(plain() | {"labels.txt": b"a\n\nb\tfirst\nc\nb\tsecond\n"})
    assert (error.code, error.file, error.detail) == ("labels", "labels.txt", "has the label `b` twice: in the lines 3 and 5")


def test_the_summary_of_a_network_names_shapes_and_operators():
    summary = summarize_model(network(more_inputs=[value("key", onnx.STRING, ())]))
    assert [(one.name, one.kind, one.element_type, one.shape) for one in summary.inputs] == [
        ("image", "tensor", 1, (None, 3, SIZE, SIZE)),
        ("key", "tensor", 8, ()),
    ]
    assert summary.operators == {"GlobalAveragePool", "Flatten"}


@pytest.mark.parametrize(("key", "kind"), [(4, "sequence"), (5, "map"), (9, "optional"), (8, "sparse tensor")])
def test_outputs_that_are_no_tensors_are_named(key, kind, refused):
    output = field(1, "scores") + field(2, field(key, b""))
    error = refused(with_network(network(outputs=[output])))
    assert kind in error.detail
    assert ("zipmap=False" in error.detail) == (kind in {"sequence", "map"})


def test_a_good_package_gives_its_test_output(opened):
    """From an image to scores, with the runtime: so that the packages of these tests are what they say."""
    package = opened(files())
    session = onnxruntime.InferenceSession(package.read("model.onnx"), providers=["CPUExecutionProvider"])
    image = NamedArray(read_tensor(package.read("test_input.npy"), name="test_input.npy")[0], ("channel", "y", "x"))
    raw = session.run(list(package.names.outputs.values()), {package.names.input: fed(image, package.manifest.input)})
    scored = package.manifest.output(package.manifest.scored_output)
    scores = apply(scored.postprocessing, NamedArray(raw[0], tuple(axis.id for axis in scored.axes))).values
    assert np.abs(scores - read_tensor(package.read("test_output.npy"), name="test_output.npy")).max() < 1e-6


# ---- test tensors ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "array", [np.zeros((2, 3), "f4"), np.asfortranarray(np.arange(6, dtype="u2").reshape(2, 3)), np.array(7), np.ones(4, ">i8")]
)
def test_a_tensor_is_read_as_numpy_reads_it(array):
    read = read_tensor(npy(array), name="a.npy")
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)


def test_a_test_input_must_have_sizes_that_belong_together(opened, refused):
    document = changed(manifest(), "inputs", 0, "axes", 2, "size", to={"min": 2, "step": 1})
    document = changed(document, "inputs", 0, "axes", 3, "size", to={"tensor_id": "image", "axis_id": "y"})
    weights = network(dims=("N", 3, "H", "W"))
    document["weights"]["onnx"]["sha256"] = sha256(weights).hexdigest()
    good, bad = (npy(np.zeros((1, 3, height, 5), np.float32)) for height in (5, 4))
    assert opened(files(document, model__onnx=weights, test_input__npy=good)).manifest.input.axes[3].reference
    assert refused(files(document, model__onnx=weights, test_input__npy=bad)).code == "tensor_mismatch"
