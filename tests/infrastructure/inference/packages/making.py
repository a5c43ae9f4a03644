"""Model packages of a few hundred bytes, and archives byte by byte."""

import copy
import io
import struct
import zlib
from hashlib import sha256

import numpy as np
import yaml

from infrastructure.inference.packages.input_fitting import fit, preprocessed
from tests.adversaries import onnx_files as onnx
from tests.adversaries.onnx_files import attribute, field, graph, model, node, tensor

LABELS = ("alpha", "beta", "gamma")
SIZE = 4


def value(name, kind=onnx.FLOAT, dims=()):
    """An input or output; a dimension given as text varies."""
    shape = field(1, [field(2, size) if isinstance(size, str) else field(1, size) for size in dims])
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def network(*, dims=("N", 3, SIZE, SIZE), labels=3, kind=onnx.FLOAT, more_inputs=(), outputs=None, nodes=(), initializers=()):
    """The means of the channels, as scores of as many labels: it runs when there are three of both."""
    return model(
        graph(
            [*nodes, node("GlobalAveragePool", ["image"], ["pooled"]), node("Flatten", ["pooled"], ["scores"])],
            initializers=initializers,
            inputs=[value("image", kind, dims), *more_inputs],
            outputs=[value("scores", onnx.FLOAT, ("N", labels))] if outputs is None else outputs,
        )
    )


def fed(image, tensor):
    """What the network gets of the planes of an image."""
    return preprocessed(fit(image, tensor), tensor)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_input():
    return np.random.default_rng(17).random((1, 3, SIZE, SIZE), np.float32)


test_input.__test__ = False


def manifest(**fields):
    """A manifest as Python values. `fields` replace those at the top."""
    return {
        "format_version": "0.5.14",
        "type": "model",
        "name": "Three letters",
        "version": "1.0.0",
        "description": "Means of three channels",
        "license": "MIT",
        "inputs": [
            {
                "id": "image",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["red", "green", "blue"]},
                    {"type": "space", "id": "y", "size": SIZE},
                    {"type": "space", "id": "x", "size": SIZE},
                ],
                "data": {"type": "float32"},
                "test_tensor": {"source": "test_input.npy"},
            }
        ],
        "outputs": [
            {
                "id": "scores",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list(LABELS)}],
                "postprocessing": [{"id": "softmax", "kwargs": {"axis": "channel"}}],
                "test_tensor": {"source": "test_output.npy"},
            }
        ],
        "weights": {"onnx": {"source": "model.onnx", "sha256": sha256(network()).hexdigest(), "opset_version": 17}},
    } | fields


def changed(document, *path, to):
    """A copy with another value at `path`; `to=None` removes it."""
    result = copy.deepcopy(document)
    place = result
    for part in path[:-1]:
        place = place[part]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return result


def softmax(values):
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def files(document=None, **others):
    """Of a good package by name; `others` replace them, with `__` for the dot of a name."""
    weights = network()
    expected = softmax(test_input().mean(axis=(2, 3)))
    return {
        "rdf.yaml": yaml.safe_dump(document or manifest(), sort_keys=False).encode(),
        "model.onnx": weights,
        "test_input.npy": npy(test_input()),
        "test_output.npy": npy(expected.astype(np.float32)),
    } | {name.replace("__", "."): data for name, data in others.items()}


def with_network(weights, **others):
    """A package whose manifest states the digest of these weights."""
    return files(changed(manifest(), "weights", "onnx", "sha256", to=sha256(weights).hexdigest()), model__onnx=weights, **others)


def classifier_of_trees(operator="TreeEnsembleClassifier", attributes=(), outputs=("label", "scores")):
    """A node of `ai.onnx.ml` over one row of numbers."""
    return model(
        graph(
            [node(operator, ["image"], outputs, attributes=list(attributes), domain="ai.onnx.ml")],
            inputs=[value("image", onnx.FLOAT, ("N", 3 * SIZE * SIZE))],
            outputs=[value("label", onnx.INT64, ("N",)), value("scores", onnx.FLOAT, ("N", 3))],
        ),
        domains=("", "ai.onnx.ml"),
    )


# ---- archives ----------------------------------------------------------------------------------------------------------------------
def entry(name, data=b"", **written):
    """What an archive says of a file. `written` replaces what follows from `data`: method, flags, crc, size, packed, mode, local (other
    values in its local header), inside (bytes put before the data), at (offset of its header)."""
    return {"name": name.encode() if isinstance(name, str) else name, "data": data, "flags": 0x800, "method": 0, "mode": 0o100644} | written


def archive(*entries, prefix=b"", suffix=b"", count=None, total=None, comment=b"", before_end=b"", disk=0):
    """A zip file of `entries`, as they are."""
    body, directory = bytearray(prefix), b""
    for one in entries:
        packed = one.get("stream", deflated(one["data"]) if one["method"] == 8 else one["data"])
        sizes = {"crc": zlib.crc32(one["data"]), "packed": len(packed), "size": len(one["data"])}
        header = {key: one.get(key, sizes.get(key)) for key in ("name", "flags", "method", "crc", "packed", "size")}
        at = one.get("at", len(body))
        body += struct.pack("<4sH", b"PK\3\4", 20) + _described(header | one.get("local", {})) + struct.pack("<H", 0)
        body += (header | one.get("local", {}))["name"] + packed
        directory += struct.pack("<4s2H", b"PK\1\2", 3 << 8 | 20, 20) + _described(header)
        directory += struct.pack("<4H2L", 0, 0, 0, 0, one["mode"] << 16, at) + header["name"]
    number = len(entries) if count is None else count
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", disk, disk, number, number if total is None else total, len(directory), len(body), len(comment)
    )
    return bytes(body) + directory + before_end + end + comment + suffix


def _described(header):
    """The part of a header that both copies of it share."""
    sizes = (header[key] for key in ("crc", "packed", "size"))
    return struct.pack("<4H3LH", header["flags"], header["method"], 0, 33, *sizes, len(header["name"]))


def deflated(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def zipped(contents, *more, **options):
    """An archive of a package and of `more` entries."""
    return archive(*(entry(name, data, method=8) for name, data in contents.items()), *more, **options)


def cycle_of_trees():
    """A tree whose root is its own child, in both branches."""
    numbers = {"nodes_treeids": [0], "nodes_nodeids": [0], "nodes_featureids": [0], "nodes_truenodeids": [0], "nodes_falsenodeids": [0]}
    weights = {"class_treeids": [0], "class_nodeids": [0], "class_ids": [0], "classlabels_int64s": [0, 1, 2]}
    attributes = [field(1, name) + field(8, values) + field(20, 7) for name, values in (numbers | weights).items()]
    attributes += [field(1, "nodes_modes") + field(9, ["BRANCH_LEQ"]) + field(20, 8)]
    attributes += [
        field(1, name) + onnx.varint(7 << 3 | 5) + struct.pack("<f", 0.5) + field(20, 6) for name in ("nodes_values", "class_weights")
    ]
    return classifier_of_trees(attributes=attributes)


def divided_by_zero():
    """Scores that are NaN."""
    zero = tensor("zero", dims=[1], raw=bytes(4))
    nodes = [
        node("GlobalAveragePool", ["image"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Mul", ["flat", "zero"], ["none"]),
    ]
    nodes.append(node("Div", ["none", "zero"], ["scores"]))
    dims = ("N", 3, SIZE, SIZE)
    return model(
        graph(nodes, initializers=[zero], inputs=[value("image", onnx.FLOAT, dims)], outputs=[value("scores", onnx.FLOAT, ("N", 3))])
    )


def with_loop():
    """The loop of `onnx_files.endless` beside the scores."""
    body = graph(
        [node("Identity", ["going"], ["goes"]), node("Identity", ["v"], ["w"])],
        inputs=[value("round", onnx.INT64), value("going", onnx.BOOL), value("v", onnx.FLOAT, [1])],
        outputs=[value("goes", onnx.BOOL), value("w", onnx.FLOAT, [1])],
    )
    start = [
        tensor("rounds", kind=onnx.INT64, raw=(2**62).to_bytes(8, "little")),
        tensor("going_in", kind=onnx.BOOL, raw=b"\1"),
        tensor("start", dims=[1], raw=bytes(4)),
    ]
    loop = node("Loop", ["rounds", "going_in", "start"], ["looped"], attributes=[attribute("body", graphs=[body])])
    nodes = [
        loop,
        node("GlobalAveragePool", ["image"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Add", ["flat", "looped"], ["scores"]),
    ]
    dims = ("N", 3, SIZE, SIZE)
    return model(
        graph(nodes, initializers=start, inputs=[value("image", onnx.FLOAT, dims)], outputs=[value("scores", onnx.FLOAT, ("N", 3))])
    )
