import copy
import itertools

import msgspec
import pytest
import yaml
from bioimageio.spec import ValidationContext, load_description, validate_format

from infrastructure.inference.models.bundled import models
from infrastructure.inference.models.manifest import load_manifest
from infrastructure.inference.models.refusals import PackageRefused
from infrastructure.inference.packages.manifest_reader import model_name, parse_manifest
from infrastructure.inference.packages.operators import EnsureDtype
from tests.infrastructure.inference.packages.making import LABELS, changed, files, manifest

SHIPPED = sorted(path.parent for path in models().glob("*/rdf.yaml"))
POSTPROCESSING = ("outputs", 0, "postprocessing")


def refused(document):
    with pytest.raises(PackageRefused) as error:
        parse_manifest(document)
    return error.value


def with_config(**fields):
    return manifest(config={"bioscope": fields})


def without_postprocessing(**fields):
    return changed(with_config(**fields), *POSTPROCESSING, to=[])


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_model_has_the_same_manifest_as_before(folder):
    parsed, manifest = parse_manifest(yaml.safe_load((folder / "rdf.yaml").read_text())), load_manifest(folder)
    assert (parsed.model, parsed.title, parsed.version, parsed.labels) == (manifest.name, manifest.title, manifest.version, manifest.labels)
    assert (parsed.temperature, parsed.review_below, parsed.gates) == (manifest.temperature, manifest.review_below, manifest.gates)
    assert (parsed.legacy_preprocessing, parsed.other_label) == (manifest.preprocessing, manifest.other_label)
    assert (parsed.scored_output, parsed.distance_output) == manifest.output_names
    assert parsed.kind == "logits"
    assert {output.absolute for output in parsed.tolerances.values()} == {manifest.tolerance}
    assert parsed.int8.sha256 == manifest.int8.sha256


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # the validator's own
def test_the_good_package_of_these_tests_is_valid_by_the_specification(tmp_path):
    for name, data in files().items():
        (tmp_path / name).write_bytes(data)
    with ValidationContext(perform_io_checks=True):
        summary = load_description(tmp_path / "rdf.yaml").validation_summary
    assert summary.status == "valid-format", summary.format()


Y, X = ("inputs", 0, "axes", 2), ("inputs", 0, "axes", 3)
BEFORE, AFTER = ("inputs", 0, "preprocessing"), ("outputs", 0, "postprocessing")
VALID = [
    ((*Y, "size"), {"min": 32, "step": 16}),
    ((*Y, "size"), {"tensor_id": "image", "axis_id": "x", "offset": 2}),
    (Y, {"type": "space", "id": "y", "size": 4, "unit": "micrometer", "scale": 0.25, "concatenable": True}),
    (("inputs", 0, "axes", 0), {"type": "batch", "size": 1}),
    (("inputs", 0, "axes", 0), {"type": "time", "size": 1}),
    (("inputs", 0, "axes", 0), {"type": "index", "size": 1}),
    (("inputs", 0, "axes", 1, "channel_names"), ["grey"]),
    (("inputs", 0, "data"), {"type": "uint16", "range": [0, 4095]}),
    (("inputs", 0, "data"), [{"type": "uint8"}, {"type": "uint8", "range": [0, 200]}, {"type": "uint8"}]),
    (("inputs", 0, "data"), {"type": "uint8", "values": [0, 1, 2]}),
    (
        BEFORE,
        [
            {"id": "scale_range", "kwargs": {"axes": ["x", "y"], "max_percentile": 99.8, "eps": 1e-3}},
            {"id": "clip", "kwargs": {"max": 1.0}},
        ],
    ),
    (BEFORE, [{"id": "zero_mean_unit_variance"}]),
    (BEFORE, [{"id": "binarize", "kwargs": {"threshold": [0.1, 0.2, 0.3], "axis": "channel"}}]),
    (AFTER, [{"id": "scale_linear", "kwargs": {"gain": [1.0, 2.0, 3.0], "axis": "channel"}}, {"id": "softmax"}]),
    (AFTER, [{"id": "sigmoid"}, {"id": "ensure_dtype", "kwargs": {"dtype": "float64"}}]),
    (
        ("config",),
        {"bioimageio": {"reproducibility_tolerance": [{"output_ids": ["scores"], "relative_tolerance": 0.005}]}, "other": {"a": 1}},
    ),
]
INVALID = [
    ((*Y, "size"), -4),
    ((*Y, "size"), {"min": 32}),
    ((*Y, "size"), {"tensor_id": "image", "axis_id": "y"}),
    ((*X, "id"), "y"),
    (("inputs", 0, "axes", 1, "channel_names"), []),
    (("inputs", 0, "axes", 0, "size"), 2),
    (("inputs", 0, "data"), {"type": "float16"}),
    (("inputs", 0, "data"), [{"type": "uint8"}, {"type": "uint16"}, {"type": "uint8"}]),
    (BEFORE, [{"id": "scale_mean_variance", "kwargs": {"reference_tensor": "image"}}]),
    (BEFORE, [{"id": "clip", "kwargs": {}}]),
    (BEFORE, [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["z"]}}]),
    (AFTER, [{"id": "scale_range", "kwargs": {"reference_tensor": "other"}}]),
    (AFTER, [{"id": "argmax"}]),
    (("weights", "onnx", "opset_version"), 6),
    (("weights",), {}),
    (("name",), ""),
    (("type",), "notebook"),
]


def status_by_the_specification(document):
    with ValidationContext(perform_io_checks=False):
        return validate_format(copy.deepcopy(document)).status


@pytest.mark.parametrize(("path", "value"), VALID)
def test_what_the_specification_takes_is_read(path, value):
    document = changed(manifest(), *path, to=value)
    assert status_by_the_specification(document) == "valid-format"
    assert parse_manifest(document).labels == LABELS


@pytest.mark.parametrize(("path", "value"), INVALID)
def test_what_the_specification_refuses_is_refused(path, value):
    document = changed(manifest(), *path, to=value)
    assert status_by_the_specification(document) == "failed"
    assert refused(document)


@pytest.mark.parametrize("version", ["0.5.0", "0.5.4", "0.5.14", "0.5.99"])
def test_every_minor_version_of_the_format_is_read(version):
    assert parse_manifest(manifest(format_version=version)).format_version == version


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_axes_may_have_any_order(order):
    axes = manifest()["inputs"][0]["axes"]
    parsed = parse_manifest(changed(manifest(), "inputs", 0, "axes", to=[axes[index] for index in order]))
    assert parsed.input.axis_ids == tuple(("batch", "channel", "y", "x")[index] for index in order)
    assert parsed.input.channels == ("red", "green", "blue")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64", "bool"])
def test_the_casts_of_the_specification_surround_the_preprocessing(dtype):
    document = changed(manifest(), "inputs", 0, "data", to={"type": dtype})
    steps = [{"id": "clip", "kwargs": {"min": 0.0}}]
    parsed = parse_manifest(changed(document, "inputs", 0, "preprocessing", to=steps)).input
    assert [type(operator).__name__ for operator in parsed.preprocessing] == ["EnsureDtype", "Clip", "EnsureDtype"]
    assert {operator.kwargs.dtype for operator in parsed.preprocessing if isinstance(operator, EnsureDtype)} == {dtype}


def test_one_cast_is_not_added_twice():
    parsed = parse_manifest(changed(manifest(), "inputs", 0, "preprocessing", to=[{"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}}]))
    assert [operator.kwargs.dtype for operator in parsed.input.preprocessing] == ["uint8"]


def test_sizes_may_be_flexible_and_follow_each_other():
    document = changed(manifest(), "inputs", 0, "axes", 2, "size", to={"min": 32, "step": 16})
    document = changed(document, "inputs", 0, "axes", 3, "size", to={"tensor_id": "image", "axis_id": "y", "offset": 2})
    y, x = parse_manifest(document).input.axes[2:]
    assert [size for size in range(70) if y.permits(size)] == [32, 48, 64]
    assert (y.largest_below(31), y.largest_below(47), y.largest_below(48)) == (None, 32, 48)
    assert x.following(y, 48) == 50


def test_unknown_fields_that_decide_nothing_are_ignored():
    more = {"covers": ["a.png"], "authors": [{"name": "A"}], "tags": 5, "unheard_of": {"a": [1]}}
    assert parse_manifest(manifest(**more)) == parse_manifest(manifest())


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    [
        (("inputs", 0, "axes", 2, "size"), "4", "inputs[0].axes[2].size", "Expected"),
        (("inputs", 0, "axes", 2), {"type": "space", "id": "y"}, "inputs[0].axes[2].size", "missing"),
        (("inputs", 0, "axes", 1), {"type": "channel"}, "inputs[0].axes[1].channel_names", "missing"),
        (("inputs", 0, "axes", 2, "size"), {"min": 4}, "inputs[0].axes[2].size", "`min` and `step`"),
        (("weights", "onnx"), {"sha256": "0" * 64}, "weights.onnx.source", "missing"),
        (("weights", "onnx", "opset_version"), 6, "weights.onnx.opset_version", ">= 7"),
        (("weights", "onnx", "sha256"), "0" * 63, "weights.onnx.sha256", "64 hexadecimal digits"),
        (("weights", "onnx", "sha256"), 12, "weights.onnx.sha256", "Expected `str"),
        (("name",), None, "name", "missing"),
        (("outputs", 0, "postprocessing"), [{"id": "nothing"}], "outputs[0].postprocessing[0].id", "softmax"),
        (
            ("outputs", 0, "postprocessing"),
            [{"id": "softmax", "kwargs": {"axis": "x"}}],
            "outputs[0].postprocessing[0].kwargs",
            "batch, channel",
        ),
        (
            ("outputs", 0, "postprocessing"),
            [{"id": "binarize", "kwargs": {"threshold": [0.5]}}],
            "outputs[0].postprocessing[0].kwargs",
            "axis",
        ),
        (("config",), {"bioscope": {"review_outside": [2, 1]}}, "config.bioscope", "lower one first"),
        (("outputs", 0, "id"), "image", "outputs", "two tensors"),
        (("config",), {"bioscope": {"review_below": 2}}, "config.bioscope.review_below", "<= 1"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_expected(path, value, field, says):
    error = refused(changed(manifest(), *path, to=value))
    assert (error.file, error.field) == ("rdf.yaml", field)
    assert says in error.detail


@pytest.mark.parametrize(
    ("postprocessing", "declared", "kind"),
    [
        (["softmax"], None, "softmax"),
        (["softmax"], "softmax", "softmax"),
        (["sigmoid"], None, "multi_label"),
        (["sigmoid"], "multi_label", "multi_label"),
        ([], "logits", "logits"),
        ([], "softmax", "softmax"),
        ([], "multi_label", "multi_label"),
    ],
)
def test_the_kind_of_output_is_declared_or_follows_from_the_postprocessing(postprocessing, declared, kind):
    document = with_config(output={"kind": declared} if declared else {})
    assert parse_manifest(changed(document, *POSTPROCESSING, to=[{"id": name} for name in postprocessing])).kind == kind


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "output.kind"),
        ({"output": {"kind": "regression"}}, "output.range"),
        ({"output": {"kind": "logits", "range": [0, 1]}}, "output.range"),
        ({"output": {"kind": "softmax"}, "temperature": 2.0}, "temperature"),
        ({"output": {"kind": "logits"}, "review_outside": [0, 1]}, "review_outside"),
        ({"output": {"kind": "external"}}, "output.kind"),
    ],
)
def test_rules_that_do_not_belong_to_a_kind_are_refused(fields, field):
    error = refused(without_postprocessing(**fields))
    assert (error.code, error.field) == ("output_kind", f"config.bioscope.{field}")


def test_a_regression_gives_one_number_within_its_range():
    document = without_postprocessing(output={"kind": "regression", "range": [0, 100], "unit": "%"}, review_outside=[5, 95])
    assert refused(document).code == "labels"
    parsed = parse_manifest(changed(document, "outputs", 0, "axes", 1, "channel_names", to=["confluence"]))
    assert (parsed.labels, parsed.range, parsed.unit, parsed.review_outside) == (("confluence",), (0, 100), "%", (5, 95))


def test_labels_have_words_and_thresholds_of_their_own():
    parsed = parse_manifest(
        with_config(labels={"alpha": "first letter"}, review_below=0.5, review_below_for={"beta": 0.9}, other_label="gamma")
    )
    assert (parsed.labels, parsed.label_texts) == (LABELS, {"alpha": "first letter"})
    assert (parsed.review_below, parsed.review_below_for, parsed.other_label) == (0.5, {"beta": 0.9}, "gamma")


def test_the_first_tolerance_that_applies_counts():
    entries = [
        {"weights_formats": ["torchscript"], "absolute_tolerance": 0.1},
        {"output_ids": ["other"], "absolute_tolerance": 0.2},
        {"output_ids": "any_continuous_output", "absolute_tolerance": 0.3, "relative_tolerance": 0.004},
        {"absolute_tolerance": 0.4},
    ]
    parsed = parse_manifest(manifest(config={"bioimageio": {"reproducibility_tolerance": entries}}))
    assert msgspec.structs.astuple(parsed.tolerances["scores"]) == (0.3, 0.004, 100)
    assert msgspec.structs.astuple(parse_manifest(manifest()).tolerances["scores"]) == (1e-3, 1e-3, 100)
    assert parse_manifest(with_config(tolerance=0.5)).tolerances["scores"].absolute == 0.5


def test_a_model_is_named_after_its_title_where_it_has_no_name():
    assert parse_manifest(manifest()).model == "three-letters"
    assert parse_manifest(with_config(model="abc_1")).model == "abc_1"
    assert refused(with_config(model="A b")).field == "config.bioscope.model"
    for name in ("7a6f3a8b-7231-4b93-a450-5cccfcaa22f1", "ab" * 16):
        error = refused(with_config(model=name))
        assert (error.code, error.field) == ("manifest_field", "config.bioscope.model")
    assert refused(manifest(name="7a6f3a8b 7231 4b93 a450 5cccfcaa22f1")).detail.startswith("must not look like an id")
    assert model_name("Zellen, 3. Versuch!") == "zellen-3-versuch"


def test_a_gate_needs_what_it_measures():
    assert refused(with_config(gates={"distance_below": 2.0})).field == "config.bioscope.gates.distance_below"
    assert refused(with_config(gates={"energy_above": 2.0})).field == "config.bioscope.gates.energy_above"
    assert parse_manifest(with_config(gates={"focus_above": 0.1})).gates.focus_above == 0.1


def test_files_may_be_named_from_the_folder_of_the_manifest():
    parsed = parse_manifest(changed(manifest(), "weights", "onnx", "source", to="./model.onnx"))
    assert parsed.weights.source == "model.onnx"


def test_both_forms_of_preprocessing_at_once_are_refused():
    assert refused(with_config(preprocessing={"size": 4}, input={"crop": 0.5})).code == "manifest_field"


def test_open_ranges_are_read():
    for end in (None, "inf", ".inf", float("inf")):
        assert parse_manifest(changed(manifest(), "inputs", 0, "data", to={"range": [0, end]})).input.range == (0, None)
    per_channel = [{"range": [0, 10]}, {"range": [-1, 5]}, {"range": [0, 7]}]
    assert parse_manifest(changed(manifest(), "inputs", 0, "data", to=per_channel)).input.range == (-1, 10)
    assert refused(changed(manifest(), "inputs", 0, "data", to={"range": [0, "much"]})).field == "inputs[0].data.range"
