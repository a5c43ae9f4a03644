"""Model packages that somebody made to break the worker, to read files, or to pass for what they are not.

    python -m tests.adversaries.hostile_packages FOLDER    writes them all, with an index

Those of `STATIC` are refused without running anything, each with its code. Those of `RUN` are good packages by their bytes: only the
sandbox can refuse them.
"""

import io
import json
import pickle
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.adversaries import onnx_files as onnx
from tests.adversaries.onnx_files import external, field, graph, model, nested, node, tensor
from tests.infrastructure.inference.packages import making
from tests.infrastructure.inference.packages.making import (
    archive,
    changed,
    classifier_of_trees,
    entry,
    files,
    manifest,
    network,
    value,
    with_network,
    zipped,
)

RDF = making.files()["rdf.yaml"]
CHANNELS = ("outputs", 0, "axes", 1, "channel_names")


class Hostile(NamedTuple):
    """`make` writes the zip file; `code` is that of its refusal. `is_quick`: tried in each run of the tests."""

    code: str
    make: Callable[[], bytes]
    is_quick: bool = False


def with_manifest(*path, to):
    """A good package with another value in its manifest."""
    return lambda: zipped(files(changed(manifest(), *path, to=to)))


def with_yaml(text):
    return lambda: zipped(files(rdf__yaml=text if isinstance(text, bytes) else text.encode()))


def with_entry(*args, **written):
    return lambda: zipped(files(), entry(*args, **written))


def with_onnx(weights):
    return lambda: zipped(with_network(weights))


def with_test_output(data):
    return lambda: zipped(files(test_output__npy=data))


def bioscope(**fields):
    return {"bioscope": fields}


def zeros(size):
    """Deflated, without being held at once."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()


def header(text, *, length=None):
    """An .npy file with that header and 12 bytes of data."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text) if length is None else length) + text + bytes(12)


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archived:
        archived.addfile(tarfile.TarInfo("rdf.yaml"))
    return file.getvalue()


def bomb_in_bombs():
    """Sixteen archives of archives, of a gigabyte each, which stay closed."""
    inner = archive(entry("zeros", method=8, stream=zeros(64 * 2**20), size=64 * 2**20, crc=0))
    middle = archive(*(entry(f"{index}.zip", inner) for index in range(16)))
    return archive(*(entry(f"{index}.zip", middle, method=8) for index in range(16)))


def sharing():
    """Two entries whose data begin at one place, each with its own header before it: the second lies in the data of the first."""
    inner = entry("b", b"x" * 40)
    header = archive(inner)[:31]
    outer = entry("a", header + b"x" * 40)
    whole = archive(outer)
    second = archive(entry("b", b"x" * 40, at=31))
    body = whole[: 31 + 71]
    directory = whole[31 + 71 : -22] + second[31 + 40 : -22]
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), len(body), 0)


ARCHIVES = {
    "a name that leads out": Hostile("entry_name", with_entry("../evil"), is_quick=True),
    "an absolute name": Hostile("entry_name", with_entry("/etc/passwd")),
    "a name with backslashes": Hostile("entry_name", with_entry("..\\evil.exe")),
    "a drive letter": Hostile("entry_name", with_entry("C:evil.exe")),
    "a name cut by NUL": Hostile("entry_name", with_entry("model.onnx\0.txt"), is_quick=True),
    "a name with a line feed": Hostile("entry_name", with_entry("a\nb")),
    "a name written backwards": Hostile("entry_name", with_entry("a\u202egnp.exe")),
    "a name with an empty part": Hostile("entry_name", with_entry("a//b")),
    "a name with a dot": Hostile("entry_name", with_entry("./a")),
    "a name that ends with a dot": Hostile("entry_name", with_entry("model.onnx.")),
    "a folder that leads out": Hostile("entry_name", with_entry("a/../../b/")),
    "a very long name": Hostile("entry_name", with_entry("a" * 300)),
    "many folders in each other": Hostile("entry_name", with_entry("a/" * 20 + "b")),
    "a name that is no UTF-8": Hostile("entry_name", with_entry(b"\xff\xfe")),
    "a symbolic link": Hostile("entry_kind", with_entry("keys", b"/etc/passwd", mode=0o120777), is_quick=True),
    "a device": Hostile("entry_kind", with_entry("zero", mode=0o020666)),
    "a pipe": Hostile("entry_kind", with_entry("pipe", mode=0o010666)),
    "a name twice": Hostile("entry_duplicate", with_entry("model.onnx", b"other"), is_quick=True),
    "names that differ in case": Hostile("entry_duplicate", with_entry("MODEL.onnx", b"other")),
    "names that look the same": Hostile("entry_duplicate", with_entry("model.\uff4f\uff4e\uff4e\uff58", b"other")),
    "a file that is a folder": Hostile("entry_duplicate", with_entry("model.onnx/a", b"other")),
    "an encrypted file": Hostile("archive_encrypted", with_entry("secret", flags=0x801), is_quick=True),
    "a strongly encrypted file": Hostile("archive_encrypted", with_entry("secret", flags=0x841)),
    "many files": Hostile("too_many_entries", lambda: zipped(files(), *(entry(str(number)) for number in range(1000))), is_quick=True),
    "a directory of unknown length": Hostile("archive_malformed", lambda: zipped(files(), count=2**16 - 1)),
    "a directory that counts too few": Hostile("archive_malformed", lambda: zipped(files(), count=2)),
    "a directory that counts too many": Hostile("archive_malformed", lambda: zipped(files(), count=9)),
    "two directories": Hostile("archive_malformed", lambda: zipped(files(), before_end=struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1))),
    "bytes after the end": Hostile("archive_malformed", lambda: zipped(files(), suffix=b"#!/bin/sh")),
    "a directory elsewhere": Hostile("archive_malformed", lambda: b"MZ" + zipped(files())),
    "an archive in parts": Hostile("archive_malformed", lambda: zipped(files(), disk=1)),
    "an archive that is cut off": Hostile("archive_malformed", lambda: zipped(files())[:-30], is_quick=True),
    "text": Hostile("archive_malformed", lambda: b"import os; os.system('true')"),
    "nothing": Hostile("archive_malformed", lambda: b""),
    "another kind of archive": Hostile("archive_malformed", tarred),
    "a bomb that says so": Hostile("too_large", with_entry("zeros", method=8, stream=zeros(2**20), size=600 * 2**20), is_quick=True),
    "many files that are large together": Hostile(
        "too_large", lambda: zipped(files(), *(entry(f"{number}", method=8, stream=b"\3\0", size=2**20) for number in range(600)))
    ),
    "a bomb that says that it is small": Hostile(
        "entry_corrupted", lambda: zipped(files(), entry("zeros", method=8, stream=zeros(64 * 2**20), size=10)), is_quick=True
    ),
    "a file shorter than it says": Hostile("entry_corrupted", with_entry("a", b"abc", method=8, size=2**20)),
    "a wrong checksum": Hostile("entry_corrupted", with_entry("a", b"abc", crc=1), is_quick=True),
    "another name before the data": Hostile("entry_corrupted", with_entry("a", b"abc", local={"name": b"b"})),
    "another size before the data": Hostile("entry_corrupted", with_entry("a", b"abc", local={"size": 2**31})),
    "another method before the data": Hostile("entry_corrupted", with_entry("a", b"abc", local={"method": 8})),
    "a stored file of two sizes": Hostile("entry_corrupted", with_entry("a", b"abc", size=2**20)),
    "data that cannot be inflated": Hostile("entry_corrupted", with_entry("a", method=8, stream=b"\xff" * 40, size=99)),
    "data after the end of a stream": Hostile(
        "entry_corrupted", with_entry("a", b"abc", method=8, stream=making.deflated(b"abc") + b"rest")
    ),
    "a stream without end": Hostile("entry_corrupted", with_entry("a", b"abc", method=8, stream=making.deflated(b"abc")[:-1])),
    "a file compressed by bzip2": Hostile("archive_compression", with_entry("a", b"abc", method=12)),
    "a file compressed by LZMA": Hostile("archive_compression", with_entry("a", b"abc", method=14)),
    "a header outside the file": Hostile("archive_malformed", with_entry("a", b"abc", at=2**30)),
    "files that share data": Hostile("entry_overlap", sharing, is_quick=True),
    "data that reach into the directory": Hostile("entry_overlap", with_entry("a", b"abc", packed=4000, size=4000, stream=b"abc")),
    "no manifest": Hostile("manifest_missing", lambda: zipped({"model.onnx": network()}), is_quick=True),
    "two manifests": Hostile("manifest_missing", lambda: zipped({"a/rdf.yaml": RDF, "b/rdf.yaml": RDF})),
}

LAUGHS = "a: &a [x, x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

MANIFESTS = {
    "a billion laughs": Hostile("yaml_anchor", with_yaml(LAUGHS), is_quick=True),
    "an alias": Hostile("yaml_anchor", with_yaml("name: *a")),
    "an object of Python": Hostile("yaml_tag", with_yaml("name: !!python/object/apply:os.system ['true']"), is_quick=True),
    "a tag of its own": Hostile("yaml_tag", with_yaml("%TAG ! tag:example.com,2000:\n---\nname: !x y")),
    "a tag of YAML": Hostile("yaml_tag", with_yaml("name: !!binary aGVsbG8=")),
    "a key twice": Hostile("yaml_duplicate_key", with_yaml(RDF + b"name: Other\n"), is_quick=True),
    "lists in each other": Hostile("yaml_too_deep", with_yaml("a: " + "[" * 100 + "]" * 100)),
    "very many lists in each other": Hostile("yaml_too_deep", with_yaml("[" * 200_000), is_quick=True),
    "mappings in each other": Hostile("yaml_too_deep", with_yaml("{a: " * 100_000)),
    "a manifest of two megabytes": Hostile("yaml_too_large", with_yaml("#" * 2 * 2**20)),
    "very many values": Hostile("yaml_too_large", with_yaml("[" + "0," * 200_000 + "]")),
    "two documents": Hostile("yaml_syntax", with_yaml(RDF + b"---\n" + RDF)),
    "a list as a key": Hostile("yaml_syntax", with_yaml("? [a, b]\n: c")),
    "a quotation without end": Hostile("yaml_syntax", with_yaml('name: "a')),
    "a control character": Hostile("yaml_syntax", with_yaml("name: a\x01b")),
    "a manifest that is no UTF-8": Hostile("yaml_encoding", with_yaml(b"name: \xff")),
    "a manifest in UTF-16": Hostile("yaml_encoding", with_yaml("name: a".encode("utf-16"))),
    "a list for a manifest": Hostile("manifest_field", with_yaml("[1, 2]")),
    "a dataset": Hostile("manifest_type", with_manifest("type", to="dataset")),
    "an older format": Hostile("manifest_version", with_manifest("format_version", to="0.4.10")),
    "a later format": Hostile("manifest_version", with_manifest("format_version", to="0.6.0")),
    "a version that is a number": Hostile("manifest_version", with_manifest("format_version", to=0.5)),
    "two inputs": Hostile("inputs_unsupported", with_manifest("inputs", to=[*manifest()["inputs"], *manifest()["inputs"]]), is_quick=True),
    "no inputs": Hostile("inputs_unsupported", with_manifest("inputs", to=[])),
    "a label that is a number": Hostile("manifest_field", with_manifest(*CHANNELS, to=["a", "b", 3])),
    "a negative size": Hostile("manifest_field", with_manifest("inputs", 0, "axes", 2, "size", to=-4)),
    "a size of 2^62": Hostile("manifest_field", with_manifest("inputs", 0, "axes", 2, "size", to=2**62)),
    "an input of many gigabytes": Hostile("axes_unsupported", with_manifest("inputs", 0, "axes", 2, "size", to=2**30)),
    "a size that follows itself": Hostile(
        "axes_unsupported", with_manifest("inputs", 0, "axes", 2, "size", to={"tensor_id": "image", "axis_id": "y"})
    ),
    "an input without width": Hostile(
        "axes_unsupported", with_manifest("inputs", 0, "axes", 3, to={"type": "space", "id": "z", "size": 1})
    ),
    "an axis twice": Hostile("axes_unsupported", with_manifest("inputs", 0, "axes", 3, "id", to="y")),
    "scores that are a picture": Hostile(
        "axes_unsupported",
        with_manifest("outputs", 0, "axes", to=[{"type": "batch"}, *manifest()["outputs"][0]["axes"][1:], {"type": "space", "size": 64}]),
    ),
    "code as postprocessing": Hostile(
        "operator_unsupported",
        with_manifest("outputs", 0, "postprocessing", to=[{"id": "custom", "callable": "run", "source": "run.py"}]),
        is_quick=True,
    ),
    "an operator for cells": Hostile(
        "operator_unsupported", with_manifest("outputs", 0, "postprocessing", to=[{"id": "cellpose_flow_dynamics"}])
    ),
    "an unknown operator": Hostile("operator_unsupported", with_manifest("inputs", 0, "preprocessing", to=[{"id": "exec", "kwargs": {}}])),
    "an unknown argument": Hostile(
        "manifest_field", with_manifest("inputs", 0, "preprocessing", to=[{"id": "scale_range", "kwargs": {"mode": "per_dataset"}}])
    ),
    "a mean that is no number": Hostile(
        "manifest_field",
        with_manifest("inputs", 0, "preprocessing", to=[{"id": "scale_linear", "kwargs": {"gain": float("nan"), "offset": 0.0}}]),
    ),
    "a gain without end": Hostile(
        "manifest_field", with_manifest("inputs", 0, "preprocessing", to=[{"id": "scale_linear", "kwargs": {"gain": float("inf")}}])
    ),
    "percentiles the wrong way round": Hostile(
        "manifest_field",
        with_manifest("inputs", 0, "preprocessing", to=[{"id": "scale_range", "kwargs": {"min_percentile": 90, "max_percentile": 10}}]),
    ),
    "statistics of an unknown tensor": Hostile(
        "manifest_field", with_manifest("inputs", 0, "preprocessing", to=[{"id": "scale_range", "kwargs": {"reference_tensor": "other"}}])
    ),
    "weights of another library": Hostile(
        "weights_unsupported", with_manifest("weights", to={"pytorch_state_dict": {"source": "model.onnx"}}), is_quick=True
    ),
    "weights in a second file": Hostile("weights_unsupported", with_manifest("weights", "onnx", "external_data", to={"source": "a.data"})),
    "weights on the web": Hostile("source_unsupported", with_manifest("weights", "onnx", "source", to="https://example.com/model.onnx")),
    "weights outside the package": Hostile(
        "file_missing", with_manifest("weights", "onnx", "source", to="../../etc/passwd"), is_quick=True
    ),
    "weights that are not there": Hostile("file_missing", with_manifest("weights", "onnx", "source", to="other.onnx")),
    "other weights": Hostile("digest_mismatch", with_manifest("weights", "onnx", "sha256", to="0" * 64), is_quick=True),
    "another test tensor": Hostile("digest_mismatch", with_manifest("outputs", 0, "test_tensor", "sha256", to="a" * 64)),
    "a label twice": Hostile("labels", with_manifest(*CHANNELS, to=["a", "a", "b"])),
    "a label that moves the cursor": Hostile("labels", with_manifest(*CHANNELS, to=["a", "b", "\u202ec"])),
    "very many labels": Hostile("manifest_field", with_manifest(*CHANNELS, to=[f"{number}" for number in range(20_000)])),
    "no kind of output": Hostile("output_kind", with_manifest("outputs", 0, "postprocessing", to=[])),
    "probabilities that pass for logits": Hostile("output_kind", with_manifest("config", to=bioscope(output={"kind": "logits"}))),
    "a temperature of zero": Hostile("manifest_field", with_manifest("config", to=bioscope(temperature=0))),
    "an unknown rule": Hostile("manifest_field", with_manifest("config", to=bioscope(review_bellow=0.9)), is_quick=True),
    "an unknown label in a rule": Hostile("labels", with_manifest("config", to=bioscope(review_below_for={"delta": 0.9}))),
}

TENSORS = {
    "a pickle for a tensor": Hostile("tensor_file", with_test_output(pickle.dumps(["a"])), is_quick=True),
    "a tensor of objects": Hostile("tensor_file", with_test_output(making.npy(np.array([{}], object))), is_quick=True),
    "a tensor of texts": Hostile("tensor_file", with_test_output(making.npy(np.array(["a"])))),
    "a tensor of records": Hostile("tensor_file", with_test_output(making.npy(np.zeros(3, [("a", "f4")])))),
    "a tensor that says that it is larger": Hostile(
        "tensor_file", with_test_output(header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000000), }\n")), is_quick=True
    ),
    "a header that is a program": Hostile("tensor_file", with_test_output(header(b"__import__('os').system('true')\n"))),
    "a header of nested lists": Hostile("tensor_file", with_test_output(header(b"(" * 3000))),
    "a header of digits": Hostile(
        "tensor_file", with_test_output(header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1" * 3000 + b"), }\n"))
    ),
    "a header longer than the file": Hostile("tensor_file", with_test_output(header(b"{}", length=60_000))),
    "an archive of tensors": Hostile("tensor_file", with_test_output(archive(entry("a.npy")))),
    "a test output that is NaN": Hostile("tensor_file", with_test_output(making.npy(np.full((1, 3), np.nan, np.float32)))),
    "a test output of other labels": Hostile("tensor_mismatch", with_test_output(making.npy(np.zeros((1, 4), np.float32)))),
    "a test output of another type": Hostile("tensor_mismatch", with_test_output(making.npy(np.zeros((1, 3), np.int64)))),
    "a test output of nothing": Hostile("tensor_mismatch", with_test_output(making.npy(np.zeros((0, 3), np.float32)))),
}

KEY = external("w", location="keys/root.key", size=32)
SCORES = value("scores", onnx.FLOAT, ("N", 3))
MAPS = field(1, "scores") + field(2, field(4, field(1, field(5, field(1, onnx.INT64)))))

NETWORKS = {
    "weights in another file": Hostile("onnx_external_data", with_onnx(network(initializers=[KEY])), is_quick=True),
    "weights in another file, deep inside": Hostile("onnx_external_data", with_onnx(model(nested(graph(initializers=[KEY]), 3)))),
    "operators of its own": Hostile("onnx_functions", with_onnx(network() + field(25, field(1, "F")))),
    "operators of somebody": Hostile("onnx_operator", with_onnx(network(nodes=[node("Evil", domain="com.example")]))),
    "operators of the runtime": Hostile("onnx_operator", with_onnx(network(nodes=[node("Attention", domain="com.microsoft")]))),
    "an operator for maps": Hostile("onnx_operator", with_onnx(classifier_of_trees("CastMap"))),
    "an unknown operator of ai.onnx.ml": Hostile("onnx_operator", with_onnx(classifier_of_trees("RunPython")), is_quick=True),
    "graphs in each other": Hostile("onnx_too_complex", with_onnx(model(nested(graph(), 2000)))),
    "ten thousand nodes": Hostile("onnx_too_complex", with_onnx(network(nodes=[node("Identity", ["image"], ["x"])] * 10_001))),
    "a tensor of 2^60 numbers": Hostile("onnx_tensor", with_onnx(network(initializers=[tensor("w", dims=[2**30, 2**30], raw=bytes(4))]))),
    "a tensor of negative size": Hostile("onnx_tensor", with_onnx(network(initializers=[tensor("w", dims=[-1])]))),
    "a sparse tensor": Hostile("onnx_tensor", with_onnx(model(graph(more=field(15, b""))))),
    "weights that are NaN": Hostile(
        "onnx_not_a_number", with_onnx(network(initializers=[tensor("w", dims=[1], raw=struct.pack("<f", float("nan")))]))
    ),
    "steps of a training": Hostile("onnx_training", with_onnx(network() + field(20, b""))),
    "a graph twice": Hostile("onnx_malformed", with_onnx(network() + field(7, graph()))),
    "an unknown field": Hostile("onnx_malformed", with_onnx(network() + field(99, b""))),
    "the runtime's own format": Hostile("onnx_malformed", with_onnx(b"\0\0\0\0ORTM" + bytes(40))),
    "a program for a network": Hostile("onnx_malformed", with_onnx(b"import os; os.system('true')")),
    "a network of two inputs": Hostile("onnx_signature", with_onnx(network(more_inputs=[value("key", onnx.FLOAT, (1,))]))),
    "a network that takes texts": Hostile("onnx_signature", with_onnx(network(kind=onnx.STRING))),
    "a network of another size": Hostile("onnx_signature", with_onnx(network(dims=("N", 3, 224, 224)))),
    "a network of three dimensions": Hostile("onnx_signature", with_onnx(network(dims=("N", 3, 16)))),
    "a network of other labels": Hostile("onnx_signature", with_onnx(network(labels=4))),
    "a network that gives maps": Hostile("onnx_signature", with_onnx(network(outputs=[MAPS]))),
    "a network that gives texts": Hostile("onnx_signature", with_onnx(network(outputs=[value("scores", onnx.STRING, ("N", 3))]))),
    "a network that gives nothing": Hostile("onnx_signature", with_onnx(network(outputs=[]))),
}

STATIC = ARCHIVES | MANIFESTS | TENSORS | NETWORKS


class Running(NamedTuple):
    """What happens when it is run: it never ends, takes all memory, gives other numbers than it says, or numbers that are none."""

    happens: str
    make: Callable[[], bytes]


def growing(elements):
    """Scores through a constant of so many numbers, which the file does not hold."""
    shape = tensor("shape", dims=[1], kind=onnx.INT64, raw=elements.to_bytes(8, "little"))
    nodes = [
        node("ConstantOfShape", ["shape"], ["large"]),
        node("ReduceSum", ["large"], ["sum"], attributes=[field(1, "keepdims") + field(3, 0) + field(20, 2)]),
        node("GlobalAveragePool", ["image"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Add", ["flat", "sum"], ["scores"]),
    ]
    return model(
        graph(nodes, initializers=[shape], inputs=[value("image", onnx.FLOAT, ("N", 3, making.SIZE, making.SIZE))], outputs=[SCORES])
    )


def _flat_manifest():
    """Of a network that takes one row of numbers."""
    flat = changed(manifest(), "inputs", 0, "test_tensor", to=None)
    return flat | {"config": bioscope(input={"flatten": True}, output={"tensor": "scores"})}


def _trees():
    document = changed(changed(_flat_manifest(), "outputs", 0, "test_tensor", to=None), "weights", "onnx", "sha256", to=None)
    return zipped(files(document, model__onnx=making.cycle_of_trees()))


RUN = {
    "a loop of 2^62 rounds": Running("never ends", lambda: zipped(with_network(making.with_loop()))),
    "a tree that is its own child": Running("never ends, or is refused by the runtime", _trees),
    "a constant of 16 gigabytes": Running("takes all memory", lambda: zipped(with_network(growing(2**32)))),
    "a constant of 2^60 numbers": Running("takes all memory", lambda: zipped(with_network(growing(2**60)))),
    "scores that are NaN": Running("gives no numbers", lambda: zipped(with_network(making.divided_by_zero()))),
    "another test output": Running("gives other numbers", with_test_output(making.npy(np.full((1, 3), 1 / 3, np.float32)))),
    "an operator that does not exist": Running(
        "is refused by the runtime", lambda: zipped(with_network(network(nodes=[node("Nothing", ["image"], ["x"])])))
    ),
    "a graph without its inputs": Running(
        "is refused by the runtime", lambda: zipped(with_network(network(nodes=[node("Relu", ["missing"], ["x"])])))
    ),
    "a bomb in an archive in it": Running("stays closed", lambda: zipped(files(), entry("more.zip", bomb_in_bombs()))),
}


def write_all(folder: Path) -> None:
    """Each as a zip file, and index.json with its stage and how it is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {}
    for number, (name, hostile) in enumerate((STATIC | RUN).items()):
        file = f"{number:03}.zip"
        (folder / file).write_bytes(hostile.make())
        stage = {"stage": "static", "code": hostile.code} if isinstance(hostile, Hostile) else {"stage": "run", "happens": hostile.happens}
        index[file] = {"name": name} | stage
    (folder / "index.json").write_text(json.dumps(index, indent=1))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
