"""Whatever is damaged, a package is opened or refused with a code; no other error ends the process that reads it."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.inference.models.refusals import PackageRefused, RefusalCode
from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.packages.package import Package, open_package
from infrastructure.inference.packages.package_manifest import PackageManifest
from infrastructure.inference.packages.tensor_file import read_tensor
from tests.infrastructure.inference.packages.making import changed, files, manifest, network, test_input, zipped

FULL = manifest(
    config={
        "bioscope": {
            "model": "letters",
            "input": {"crop": 0.5, "resize": "cover", "values": "unit", "bit_depths": [8]},
            "output": {"kind": "softmax", "tensor": "scores"},
            "labels": {"alpha": "first"},
            "review_below_for": {"beta": 0.5},
            "gates": {"focus_above": 0.1},
        },
        "bioimageio": {"reproducibility_tolerance": [{"absolute_tolerance": 0.1}]},
    },
    cite=[{"text": "a", "doi": "b"}],
)
FULL["inputs"][0]["preprocessing"] = [
    {"id": "scale_range", "kwargs": {"axes": ["x", "y"], "reference_tensor": "image"}},
    {"id": "scale_linear", "kwargs": {"gain": [1.0, 2.0, 3.0], "axis": "channel"}},
]
PLAIN = {
    "model": "letters",
    "input_tensor": {"axes": "bcyx", "channels": ["red", "green", "blue"], "size": 4, "depth": 1, "preprocessing": [{"id": "sigmoid"}]},
    "output": {"kind": "softmax", "tensor": "scores"},
    "weights": "model.onnx",
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "channel", "softmax", "inf"]) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["id", "size", "min", "step", "kind"]), children, max_size=3)
    ),
    max_leaves=5,
)


def places(value, path=()):
    """Each place of a manifest that may hold something else."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


PLACES = [path for path in places(FULL) if path]
ARCHIVE = zipped(files())
TENSOR = files()["test_input.npy"]


def outcome(read):
    """What was read, or the refusal."""
    try:
        return read()
    except PackageRefused as refused:
        return refused


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=2))
def test_a_manifest_with_other_values_is_read_or_refused(changes):
    document = FULL
    for path, value in changes:
        try:
            document = changed(document, *path, to=value)
        except (KeyError, IndexError, TypeError):  # the first change took the place of the second away
            continue
    found = outcome(lambda: parse_manifest(document))
    assert isinstance(found, PackageManifest) or isinstance(found.code, RefusalCode)


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_a_manifest_without_a_part_is_read_or_refused(path):
    found = outcome(lambda: parse_manifest(changed(FULL, *path, to=None)))
    assert isinstance(found, PackageManifest) or found.field or found.code == "inputs_unsupported"


@settings(max_examples=200)
@given(st.sampled_from([path for path in places(PLAIN) if path]), VALUES)
def test_a_manifest_of_the_simple_form_with_another_value_is_read_or_refused(path, value):
    contents = {"bioscope.yaml": json.dumps(changed(PLAIN, *path, to=value)), "labels.txt": "alpha\nbeta\ngamma"}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in contents.items():
            (Path(folder) / name).write_text(text)
        (Path(folder) / "model.onnx").write_bytes(network())
        found = outcome(lambda: open_package(Path(folder)))
    assert isinstance(found, Package) or isinstance(found.code, RefusalCode)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_archive_is_opened_or_refused(draw):
    at = draw.draw(st.integers(0, len(ARCHIVE) - 1))
    damaged = ARCHIVE[:at] + draw.draw(st.binary(max_size=4)) + ARCHIVE[at + draw.draw(st.integers(0, 4)) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.zip"
        path.write_bytes(damaged)
        found = outcome(lambda: open_package(path))
        assert isinstance(found, PackageRefused) or found.read("model.onnx") == files()["model.onnx"]


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_tensor_is_read_or_refused(draw):
    at = draw.draw(st.integers(0, 127))
    damaged = TENSOR[:at] + draw.draw(st.binary(max_size=4)) + TENSOR[at + draw.draw(st.integers(0, 4)) :]
    found = outcome(lambda: read_tensor(damaged, name="a.npy"))
    assert isinstance(found, PackageRefused) or found.nbytes <= test_input().nbytes
