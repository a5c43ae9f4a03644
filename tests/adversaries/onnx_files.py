"""ONNX files, built byte by byte, that no exporter writes. Field numbers are those of onnx/onnx.proto."""

from collections.abc import Iterable

FLOAT, INT8, INT64, BOOL, STRING = 1, 3, 7, 9, 8
TENSOR_KIND, GRAPH_KIND, INT_KIND, TENSORS_KIND, GRAPHS_KIND = 4, 5, 2, 9, 10
EXTERNAL = 1


def varint(number):
    out = bytearray()
    number &= 2**64 - 1
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def field(key, value):
    """A number, text or bytes; of a list each, one after the other."""
    match value:
        case int():
            return varint(key << 3) + varint(value)
        case str():
            return field(key, value.encode())
        case bytes():
            return varint(key << 3 | 2) + varint(len(value)) + value
        case Iterable():
            return b"".join(field(key, one) for one in value)
    raise TypeError(value)


def tensor(name="", *, dims=(), kind=FLOAT, raw=b"", more=b""):
    return field(1, dims) + field(2, kind) + field(8, name) + (field(9, raw) if raw else b"") + more


def external(name, *, location, size, kind=INT8):
    entries = [field(1, key) + field(2, value) for key, value in (("location", location), ("offset", "0"), ("length", str(size)))]
    return tensor(name, dims=[size], kind=kind, more=field(13, entries) + field(14, EXTERNAL))


def value(name, kind, dims=()):
    shape = field(1, [field(1, size) for size in dims])
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def attribute(name, *, tensors=(), graphs=(), kind=None):
    """One tensor or graph stands alone, several as a list."""
    content = b""
    if tensors:
        kind, content = (TENSOR_KIND, field(5, tensors[0])) if len(tensors) == 1 else (TENSORS_KIND, field(10, tensors))
    if graphs:
        kind, content = (GRAPH_KIND, field(6, graphs[0])) if len(graphs) == 1 else (GRAPHS_KIND, field(11, graphs))
    return field(1, name) + content + field(20, kind)


def node(operator, inputs=(), outputs=(), *, attributes=(), domain=None, more=b""):
    named = field(1, inputs) + field(2, outputs) + field(4, operator) + field(5, attributes)
    return named + (field(7, domain) if domain is not None else b"") + more


def graph(nodes=(), *, initializers=(), inputs=(), outputs=(), more=b""):
    return field(1, nodes) + field(2, "graph") + field(5, initializers) + field(11, inputs) + field(12, outputs) + more


def model(graph_bytes, *, domains=("",), more=b""):
    operators = [field(1, domain) + field(2, 17) for domain in domains]
    return field(1, 8) + field(7, graph_bytes) + field(8, operators) + more


def identity(initializer, kind=INT8, size=1):
    """A model that gives its only initializer, named `w`."""
    return model(graph([node("Identity", ["w"], ["y"])], initializers=[initializer], outputs=[value("y", kind, [size])]))


def nested(innermost, depth):
    """A graph that lies `depth` deep in others, each the branch of an If."""
    for _ in range(depth - 1):
        branch = attribute("then_branch", graphs=[innermost])
        innermost = graph([node("If", ["c"], ["y"], attributes=[branch])])
    return innermost


def endless():
    """A Loop of 2^62 rounds."""
    body = graph(
        [node("Identity", ["going"], ["goes"]), node("Identity", ["v"], ["w"])],
        inputs=[value("round", INT64), value("going", BOOL), value("v", FLOAT, [1])],
        outputs=[value("goes", BOOL), value("w", FLOAT, [1])],
    )
    rounds = tensor("rounds", kind=INT64, raw=(2**62).to_bytes(8, "little"))
    start = [rounds, tensor("going_in", kind=BOOL, raw=b"\1"), tensor("start", dims=[1], raw=bytes(4))]
    loop = node("Loop", ["rounds", "going_in", "start"], ["y"], attributes=[attribute("body", graphs=[body])])
    return model(graph([loop], initializers=start, outputs=[value("y", FLOAT, [1])]))


def growing(elements):
    """A ConstantOfShape of so many numbers."""
    shape = tensor("shape", dims=[1], kind=INT64, raw=elements.to_bytes(8, "little"))
    return model(graph([node("ConstantOfShape", ["shape"], ["y"])], initializers=[shape], outputs=[value("y", FLOAT, [elements])]))
