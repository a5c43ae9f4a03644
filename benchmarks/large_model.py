"""A model package of any size: a network of matrices with random weights, in the simple form."""

import io
import zipfile

import numpy as np

SIZE = 64
WIDTH = 4096
FLOAT, OPERATOR_SET = 1, 17
MANIFEST = f"""
model: large
input_tensor: {{axes: bcyx, channels: [red, green, blue], size: {SIZE}}}
input: {{resize: stretch, values: unit}}
output: {{kind: logits}}
"""


def large_package(megabytes: int) -> bytes:
    """A zip archive that is not much smaller than its weights, since random numbers cannot be compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("model.onnx", large_network(megabytes))
        archive.writestr("bioscope.yaml", MANIFEST)
        archive.writestr("labels.txt", "one\ntwo\nthree\n")
    return file.getvalue()


def large_network(megabytes: int) -> bytes:
    """The means of three channels, through two layers whose weights have that many megabytes, as ONNX."""
    inner = megabytes * 2**20 // 4 // WIDTH
    random = np.random.default_rng(0)
    shapes = {"first": (3, WIDTH), "second": (WIDTH, inner), "third": (inner, 3)}
    weights = {name: random.standard_normal(shape, np.float32) / shape[0] for name, shape in shapes.items()}
    nodes = [
        _node("GlobalAveragePool", "image", "pooled"),
        _node("Flatten", "pooled", "means"),
        _node("MatMul", "means", "wide", "first"),
        _node("MatMul", "wide", "narrow", "second"),
        _node("MatMul", "narrow", "scores", "third"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"large")
    graph += b"".join(_field(5, _tensor(name, values)) for name, values in weights.items())
    graph += _field(11, _value("image", (1, 3, SIZE, SIZE))) + _field(12, _value("scores", (1, 3)))
    return _number(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, OPERATOR_SET))


def _node(operator: str, given: str, result: str, weights: str | None = None) -> bytes:
    inputs = [given, *([weights] if weights else [])]
    return b"".join(_field(1, name.encode()) for name in inputs) + _field(2, result.encode()) + _field(4, operator.encode())


def _tensor(name: str, values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> bytes:
    sizes = b"".join(_number(1, size) for size in values.shape)
    return sizes + _number(2, FLOAT) + _field(8, name.encode()) + _field(9, values.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_field(1, _number(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, FLOAT) + _field(2, sizes)))


def _field(key: int, content: bytes) -> bytes:
    return _varint(key << 3 | 2) + _varint(len(content)) + content


def _number(key: int, number: int) -> bytes:
    return _varint(key << 3) + _varint(number)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)
