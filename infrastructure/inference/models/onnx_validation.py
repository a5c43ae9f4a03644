"""Validation of ONNX files on their bytes, before the runtime reads them.

The runtime would load external data, run custom operators, and allocate the size that an initializer declares. All three are refused or
limited here, including in subgraphs. Field numbers are those of onnx/onnx.proto; fields that are not listed are refused.
"""

from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Final

import msgspec

from domain.values import printable
from infrastructure.inference.models.protobuf_wire import Field, MalformedMessage, Wire, read_fields, read_varints

MAX_MODEL_BYTES: Final = 200 * 1024**2
MAX_INITIALIZER_BYTES: Final = 512 * 1024**2
MAX_NODES: Final = 10_000
MAX_GRAPH_DEPTH: Final = 8
MAX_FIELDS: Final = 1_000_000
MAX_DIMENSIONS: Final = 16
MAX_SHOWN_CHARACTERS: Final = 60
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})

RUNTIME_FORMAT_MARK: Final = b"ORTM"
"""Marks onnxruntime's own format, at byte 4. It is not ONNX."""
MAX_INT64: Final = 2**63 - 1
DATA_IN_THE_FILE: Final = 0

ELEMENT_BITS: Final = {
    **dict.fromkeys((2, 3, 8, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
}
"""Size in bits of an element of each TensorProto.DataType; a string has at least one byte."""


class ModelRefused(Exception):
    """The model must not be run, or does not match its manifest. The message is a sentence about "it"."""


class ModelLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a model. `initializer_bytes` counts all tensors in memory; `nodes` and `fields` include subgraphs.

    `graph_depth` limits nested graphs. `domains` are the operator domains that may be used.
    """

    file_bytes: int = MAX_MODEL_BYTES
    initializer_bytes: int = MAX_INITIALIZER_BYTES
    nodes: int = MAX_NODES
    fields: int = MAX_FIELDS
    graph_depth: int = MAX_GRAPH_DEPTH
    dimensions: int = MAX_DIMENSIONS
    domains: frozenset[str] = STANDARD_DOMAINS


DEFAULT_LIMITS: Final = ModelLimits()


def validate_model(data: bytes, limits: ModelLimits = DEFAULT_LIMITS) -> None:
    """Raises ModelRefused if the model breaks a rule or limit."""
    if len(data) > limits.file_bytes:
        raise ModelRefused(f"it has {len(data):,} bytes; at most {limits.file_bytes:,} are taken")
    if data[4:8] == RUNTIME_FORMAT_MARK:
        raise ModelRefused("it is in the format of onnxruntime: export it as ONNX")
    try:
        _Model(limits).check(memoryview(data))
    except MalformedMessage:
        raise ModelRefused("it is not an ONNX file") from None


NUMBER, TEXT, FLOAT = (Wire.VARINT,), (Wire.BYTES,), (Wire.FIXED32,)
NUMBERS, FLOATS, DOUBLES = (Wire.VARINT, Wire.BYTES), (Wire.FIXED32, Wire.BYTES), (Wire.FIXED64, Wire.BYTES)
"""Repeated numbers may be packed into bytes or not."""


class _Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a message with their allowed wire types, and the messages for refused fields."""

    once: dict[int, tuple[Wire, ...]]
    repeated: dict[int, tuple[Wire, ...]]
    refused: dict[int, str] = {}


FUNCTIONS: Final = "it defines operators of its own (functions): export it with standard ones"
EXTERNAL: Final = "it keeps weights in other files (external data): save it as one file"
SPARSE: Final = "it holds sparse tensors: export it with dense ones"

MODEL: Final = _Schema(
    once={1: NUMBER, 2: TEXT, 3: TEXT, 4: TEXT, 5: NUMBER, 6: TEXT, 7: TEXT},
    repeated={8: TEXT, 14: TEXT},
    refused={20: "it holds steps of a training: export it for inference", 25: FUNCTIONS},
)
OPERATOR_SET: Final = _Schema(once={1: TEXT, 2: NUMBER}, repeated={})
GRAPH: Final = _Schema(
    once={2: TEXT, 10: TEXT},
    repeated={1: TEXT, 5: TEXT, 11: TEXT, 12: TEXT, 13: TEXT, 14: TEXT, 16: TEXT},
    refused={15: SPARSE},
)
NODE: Final = _Schema(once={3: TEXT, 4: TEXT, 6: TEXT, 7: TEXT, 8: TEXT}, repeated={1: TEXT, 2: TEXT, 5: TEXT, 9: TEXT})
ATTRIBUTE: Final = _Schema(
    once={1: TEXT, 2: FLOAT, 3: NUMBER, 4: TEXT, 5: TEXT, 6: TEXT, 13: TEXT, 14: TEXT, 20: NUMBER, 21: TEXT},
    repeated={7: FLOATS, 8: NUMBERS, 9: TEXT, 10: TEXT, 11: TEXT, 15: TEXT},
    refused={22: SPARSE, 23: SPARSE},
)
TENSOR: Final = _Schema(
    once={2: NUMBER, 8: TEXT, 9: TEXT, 12: TEXT, 14: NUMBER},
    repeated={1: NUMBERS, 4: FLOATS, 5: NUMBERS, 6: TEXT, 7: NUMBERS, 10: DOUBLES, 11: NUMBERS, 16: TEXT},
    refused={3: "it holds tensors in parts", 13: EXTERNAL},
)


class _Model:
    """One pass over a model, which counts fields, nodes and bytes."""

    def __init__(self, limits: ModelLimits) -> None:
        self._limits = limits
        self._fields = self._nodes = self._initializer_bytes = 0

    def check(self, model: memoryview) -> None:
        present = set()
        for field in self._read(model, MODEL):
            present.add(field.key)
            if field.key == 7:
                self._check_graph(field.content, depth=1)
            elif field.key == 8:
                self._check_operator_set(field.content)
        if not present >= {1, 7, 8}:
            raise MalformedMessage("a model has a version, a graph and operators")

    def _check_operator_set(self, operator_set: memoryview) -> None:
        for field in self._read(operator_set, OPERATOR_SET):
            if field.key == 1:
                self._check_domain(field.content)

    def _check_graph(self, graph: memoryview, *, depth: int) -> None:
        if depth > self._limits.graph_depth:
            raise ModelRefused(f"its graphs lie more than {self._limits.graph_depth} deep in each other")
        for field in self._read(graph, GRAPH):
            if field.key == 1:
                self._check_node(field.content, depth=depth)
            elif field.key == 5:
                self._check_tensor(field.content)

    def _check_node(self, node: memoryview, *, depth: int) -> None:
        self._nodes += 1
        if self._nodes > self._limits.nodes:
            raise ModelRefused(f"it has more than {self._limits.nodes:,} nodes")
        for field in self._read(node, NODE):
            if field.key == 7:
                self._check_domain(field.content)
            elif field.key == 5:
                self._check_attribute(field.content, depth=depth)
            elif field.key == 8 and field.content:
                raise ModelRefused(FUNCTIONS)

    def _check_attribute(self, attribute: memoryview, *, depth: int) -> None:
        for field in self._read(attribute, ATTRIBUTE):
            if field.key in {5, 10}:
                self._check_tensor(field.content)
            elif field.key in {6, 11}:
                self._check_graph(field.content, depth=depth + 1)
            elif field.key == 21 and field.content:
                raise ModelRefused(FUNCTIONS)

    def _check_tensor(self, tensor: memoryview) -> None:
        sizes: list[int] = []
        kind, raw = 0, None
        for field in self._read(tensor, TENSOR):
            match field.key:
                case 1:
                    more = islice(read_varints(field.content), self._limits.dimensions + 1)
                    sizes += more if field.wire is Wire.BYTES else [field.number]
                case 2:
                    kind = field.number
                case 9:
                    raw = len(field.content)
                case 14 if field.number != DATA_IN_THE_FILE:
                    raise ModelRefused(EXTERNAL)
        self._check_size(sizes, kind, stored_bytes=len(tensor), raw=raw)

    def _check_size(self, sizes: list[int], kind: int, *, stored_bytes: int, raw: int | None) -> None:
        """`stored_bytes` is the size of the whole tensor in the file; `raw` that of its raw data, if it has some."""
        if len(sizes) > self._limits.dimensions or any(size > MAX_INT64 for size in sizes):
            raise ModelRefused(f"it holds a tensor of negative size, or of more than {self._limits.dimensions} dimensions")
        bits = ELEMENT_BITS.get(kind)
        if bits is None:
            raise ModelRefused(f"it holds a tensor of elements of an unknown type ({kind})")
        elements = prod(sizes)
        memory = -(-elements * bits // 8)
        if elements * min(bits, 8) > 8 * stored_bytes or (raw is not None and raw != memory):
            raise ModelRefused("it declares a tensor of another size than that of the data it holds")
        self._initializer_bytes += memory
        if self._initializer_bytes > self._limits.initializer_bytes:
            raise ModelRefused(f"its tensors take more than {self._limits.initializer_bytes:,} bytes")

    def _check_domain(self, domain: memoryview) -> None:
        name = bytes(domain).decode(errors="replace")
        if name not in self._limits.domains:
            raise ModelRefused(f"it needs operators of {printable(name)[:MAX_SHOWN_CHARACTERS]!r}: export it with standard ones")

    def _read(self, message: memoryview, schema: _Schema) -> Iterator[Field]:
        """The fields of a message. Raises ModelRefused for a refused or unknown field, a wrong wire type, or an ambiguous repetition."""
        keys_read = set()
        for field in read_fields(message):
            self._fields += 1
            if self._fields > self._limits.fields:
                raise ModelRefused(f"it has more than {self._limits.fields:,} fields")
            if field.key in schema.refused:
                raise ModelRefused(schema.refused[field.key])
            if field.wire not in (schema.once.get(field.key) or schema.repeated.get(field.key, ())):
                raise ModelRefused("it is not an ONNX file, or one with a part that this release does not know")
            if field.key in schema.once and field.key in keys_read:
                raise ModelRefused("it states something twice")
            keys_read.add(field.key)
            yield field
