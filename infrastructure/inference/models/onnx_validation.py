"""Validation of ONNX files on their bytes, before the runtime reads them.

The runtime would load external data, run custom operators, and allocate the size that an initializer declares. All three are refused or
limited here, including in subgraphs. Field numbers are those of onnx/onnx.proto; fields that are not listed are refused.

All operators of `ai.onnx` may be used, and of `ai.onnx.ml` those of `ML_OPERATORS`. The summary names inputs and outputs that are
sequences or maps, so that the caller can refuse them: no image becomes one, and no result is read from one.
"""

from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Any, Final

import msgspec
import numpy as np

from domain.values import printable
from infrastructure.inference.models.protobuf_wire import EMPTY, Field, MalformedMessage, Wire, read_fields, read_varints
from infrastructure.inference.models.refusals import ModelRefused, RefusalCode

MAX_MODEL_BYTES: Final = 200 * 1024**2
MAX_INITIALIZER_BYTES: Final = 512 * 1024**2
MAX_NODES: Final = 10_000
MAX_GRAPH_DEPTH: Final = 8
MAX_FIELDS: Final = 1_000_000
MAX_DIMENSIONS: Final = 16
MAX_SHOWN_CHARACTERS: Final = 60
ML_DOMAIN: Final = "ai.onnx.ml"
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})
ML_OPERATORS: Final = frozenset(
    {
        "ArrayFeatureExtractor",
        "Binarizer",
        "FeatureVectorizer",
        "Imputer",
        "LabelEncoder",
        "LinearClassifier",
        "LinearRegressor",
        "Normalizer",
        "OneHotEncoder",
        "SVMClassifier",
        "SVMRegressor",
        "Scaler",
        "TreeEnsemble",
        "TreeEnsembleClassifier",
        "TreeEnsembleRegressor",
        "ZipMap",
    }
)
"""What scikit-learn exports. CastMap and DictVectorizer take maps, which no image is; CategoryMapper was replaced by LabelEncoder."""

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


FLOATS_WITH_NAN: Final[dict[int, np.dtype[Any]]] = {1: np.dtype("<f4"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}
"""Of TensorProto.DataType; bfloat16 and eight-bit floats are not looked into."""
VALUE_KINDS: Final = {1: "tensor", 4: "sequence", 5: "map", 7: "opaque", 8: "sparse tensor", 9: "optional"}


class ValueSignature(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of a network. `kind`: `tensor`, or what else it is. `element_type` is a TensorProto.DataType; `shape` is None
    where the network does not state it, and so is each size that varies."""

    name: str
    kind: str = ""
    element_type: int = 0
    shape: tuple[int | None, ...] | None = None


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`inputs` are those without a default. `operators` are named as `domain:type`, without the domain for `ai.onnx`.

    `nodes` counts those of subgraphs too; `opset` is the version of `ai.onnx`, 0 where the network states none.
    """

    inputs: tuple[ValueSignature, ...]
    outputs: tuple[ValueSignature, ...]
    operators: frozenset[str]
    nodes: int
    opset: int


class ModelLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a model. `initializer_bytes` counts all tensors in memory; `nodes` and `fields` include subgraphs.

    `graph_depth` limits nested graphs. `domains` are the operator domains that may be used, `ml_operators` the operators of `ai.onnx.ml`.
    `finite` refuses tensors that contain NaN.
    """

    file_bytes: int = MAX_MODEL_BYTES
    initializer_bytes: int = MAX_INITIALIZER_BYTES
    nodes: int = MAX_NODES
    fields: int = MAX_FIELDS
    graph_depth: int = MAX_GRAPH_DEPTH
    dimensions: int = MAX_DIMENSIONS
    domains: frozenset[str] = STANDARD_DOMAINS
    ml_operators: frozenset[str] = ML_OPERATORS
    finite: bool = False


DEFAULT_LIMITS: Final = ModelLimits()
PACKAGE_LIMITS: Final = ModelLimits(domains=STANDARD_DOMAINS | {ML_DOMAIN}, finite=True)
"""Limits of a network in a package. Its caller checks the summary too."""


def validate_model(data: bytes, limits: ModelLimits = DEFAULT_LIMITS) -> None:
    """Raises ModelRefused if the model breaks a rule or limit."""
    _validated(data, limits)


def summarize_model(data: bytes, limits: ModelLimits = PACKAGE_LIMITS) -> ModelSummary:
    """Validate the model, and return what its network takes and gives. Raises ModelRefused."""
    try:
        return _validated(data, limits).summary()
    except MalformedMessage:
        raise ModelRefused("it is not an ONNX file", RefusalCode.ONNX_MALFORMED) from None


def _validated(data: bytes, limits: ModelLimits) -> "_Model":
    if len(data) > limits.file_bytes:
        raise ModelRefused(f"it has {len(data):,} bytes; at most {limits.file_bytes:,} are taken", RefusalCode.ONNX_TOO_LARGE)
    if data[4:8] == RUNTIME_FORMAT_MARK:
        raise ModelRefused("it is in the format of onnxruntime: export it as ONNX", RefusalCode.ONNX_MALFORMED)
    model = _Model(limits)
    try:
        model.check(memoryview(data))
    except MalformedMessage:
        raise ModelRefused("it is not an ONNX file", RefusalCode.ONNX_MALFORMED) from None
    return model


NUMBER, TEXT, FLOAT = (Wire.VARINT,), (Wire.BYTES,), (Wire.FIXED32,)
NUMBERS, FLOATS, DOUBLES = (Wire.VARINT, Wire.BYTES), (Wire.FIXED32, Wire.BYTES), (Wire.FIXED64, Wire.BYTES)
"""Repeated numbers may be packed into bytes or not."""


class _Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a message with their allowed wire types, and the messages for refused fields."""

    once: dict[int, tuple[Wire, ...]]
    repeated: dict[int, tuple[Wire, ...]]
    refused: dict[int, tuple[RefusalCode, str]] = {}


FUNCTIONS: Final = (RefusalCode.ONNX_FUNCTIONS, "it defines operators of its own (functions): export it with standard ones")
EXTERNAL: Final = (RefusalCode.ONNX_EXTERNAL_DATA, "it keeps weights in other files (external data): save it as one file")
SPARSE: Final = (RefusalCode.ONNX_TENSOR, "it holds sparse tensors: export it with dense ones")
TRAINING: Final = (RefusalCode.ONNX_TRAINING, "it holds steps of a training: export it for inference")
SEGMENTS: Final = (RefusalCode.ONNX_TENSOR, "it holds tensors in parts")

MODEL: Final = _Schema(
    once={1: NUMBER, 2: TEXT, 3: TEXT, 4: TEXT, 5: NUMBER, 6: TEXT, 7: TEXT},
    repeated={8: TEXT, 14: TEXT},
    refused={20: TRAINING, 25: FUNCTIONS},
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
    refused={3: SEGMENTS, 13: EXTERNAL},
)
VALUE: Final = _Schema(once={1: TEXT, 2: TEXT, 3: TEXT}, repeated={4: TEXT})
VALUE_TYPE: Final = _Schema(once={**dict.fromkeys(VALUE_KINDS, TEXT), 6: TEXT}, repeated={})
TENSOR_TYPE: Final = _Schema(once={1: NUMBER, 2: TEXT}, repeated={})
SHAPE: Final = _Schema(once={}, repeated={1: TEXT})
DIMENSION: Final = _Schema(once={1: NUMBER, 2: TEXT, 3: TEXT}, repeated={})


class _Model:
    """A pass over a model, which counts fields, nodes and bytes; and, if the caller needs it, another one for the summary."""

    def __init__(self, limits: ModelLimits) -> None:
        self._limits = limits
        self._fields = self._nodes = self._initializer_bytes = self._opset = 0
        self._operators: set[str] = set()
        self._graph = EMPTY

    def check(self, model: memoryview) -> None:
        present = set()
        for field in self._read(model, MODEL):
            present.add(field.key)
            if field.key == 7:
                self._graph = field.content
                self._check_graph(self._graph, depth=1)
            elif field.key == 8:
                self._check_operator_set(field.content)
        if not present >= {1, 7, 8}:
            raise MalformedMessage("a model has a version, a graph and operators")

    def _check_operator_set(self, operator_set: memoryview) -> None:
        domain, version = "", 0
        for field in self._read(operator_set, OPERATOR_SET):
            if field.key == 1:
                domain = _text(field)
                self._check_domain(domain)
            else:
                version = field.number
        if domain in STANDARD_DOMAINS:
            self._opset = version

    def _check_graph(self, graph: memoryview, *, depth: int) -> None:
        if depth > self._limits.graph_depth:
            raise ModelRefused(f"its graphs lie more than {self._limits.graph_depth} deep in each other", RefusalCode.ONNX_TOO_COMPLEX)
        for field in self._read(graph, GRAPH):
            if field.key == 1:
                self._check_node(field.content, depth=depth)
            elif field.key == 5:
                self._check_tensor(field.content)

    def _check_node(self, node: memoryview, *, depth: int) -> None:
        self._nodes += 1
        if self._nodes > self._limits.nodes:
            raise ModelRefused(f"it has more than {self._limits.nodes:,} nodes", RefusalCode.ONNX_TOO_COMPLEX)
        domain = operator = ""
        for field in self._read(node, NODE):
            match field.key:
                case 4:
                    operator = _text(field)
                case 5:
                    self._check_attribute(field.content, depth=depth)
                case 7:
                    domain = _text(field)
                case 8 if field.content:
                    raise _refusal(FUNCTIONS)
        self._check_operator(domain, operator)

    def _check_operator(self, domain: str, operator: str) -> None:
        self._check_domain(domain)
        if domain == ML_DOMAIN and operator not in self._limits.ml_operators:
            raise ModelRefused(
                f"it needs the operator {_shown(operator)} of {ML_DOMAIN}: export it without; docs/models/format.md lists those that run",
                RefusalCode.ONNX_OPERATOR,
            )
        self._operators.add(f"{domain}:{operator}" if domain == ML_DOMAIN else operator)

    def _check_attribute(self, attribute: memoryview, *, depth: int) -> None:
        for field in self._read(attribute, ATTRIBUTE):
            if field.key in {5, 10}:
                self._check_tensor(field.content)
            elif field.key in {6, 11}:
                self._check_graph(field.content, depth=depth + 1)
            elif field.key == 21 and field.content:
                raise _refusal(FUNCTIONS)

    def _check_tensor(self, tensor: memoryview) -> None:
        sizes: list[int] = []
        kind, raw = 0, None
        numbers: list[memoryview] = []
        for field in self._read(tensor, TENSOR):
            match field.key:
                case 1:
                    more = islice(read_varints(field.content), self._limits.dimensions + 1)
                    sizes += more if field.wire is Wire.BYTES else [field.number]
                case 2:
                    kind = field.number
                case 4 | 10:
                    numbers.append(field.content)
                case 9:
                    raw = field.content
                case 14 if field.number != DATA_IN_THE_FILE:
                    raise _refusal(EXTERNAL)
        self._check_size(sizes, kind, stored_bytes=len(tensor), raw=None if raw is None else len(raw))
        if self._limits.finite:
            _check_numbers(kind, [*numbers, raw or EMPTY])

    def _check_size(self, sizes: list[int], kind: int, *, stored_bytes: int, raw: int | None) -> None:
        """`stored_bytes` is the size of the whole tensor in the file; `raw` that of its raw data, if it has some."""
        if len(sizes) > self._limits.dimensions or any(size > MAX_INT64 for size in sizes):
            raise _wrong_tensor(f"it holds a tensor of negative size, or of more than {self._limits.dimensions} dimensions")
        bits = ELEMENT_BITS.get(kind)
        if bits is None:
            raise _wrong_tensor(f"it holds a tensor of elements of an unknown type ({kind})")
        elements = prod(sizes)
        memory = -(-elements * bits // 8)
        if elements * min(bits, 8) > 8 * stored_bytes or (raw is not None and raw != memory):
            raise _wrong_tensor("it declares a tensor of another size than that of the data it holds")
        self._initializer_bytes += memory
        if self._initializer_bytes > self._limits.initializer_bytes:
            raise ModelRefused(f"its tensors take more than {self._limits.initializer_bytes:,} bytes", RefusalCode.ONNX_TOO_LARGE)

    def _check_domain(self, domain: str) -> None:
        if domain not in self._limits.domains:
            raise ModelRefused(f"it needs operators of {_shown(domain)}: export it with standard ones", RefusalCode.ONNX_OPERATOR)

    def summary(self) -> ModelSummary:
        """Of the model that was checked."""
        self._fields = 0  # read again
        initialized, values = set(), []
        for field in self._read(self._graph, GRAPH):
            if field.key == 5:
                initialized |= {_text(part) for part in self._read(field.content, TENSOR) if part.key == 8}
            elif field.key in {11, 12}:
                values.append((field.key, self._value(field.content)))
        return ModelSummary(
            inputs=tuple(value for key, value in values if key == 11 and value.name not in initialized),
            outputs=tuple(value for key, value in values if key == 12),
            operators=frozenset(self._operators),
            nodes=self._nodes,
            opset=self._opset,
        )

    def _value(self, value: memoryview) -> ValueSignature:
        found = ValueSignature(name="")
        for field in self._read(value, VALUE):
            if field.key == 1:
                found = msgspec.structs.replace(found, name=_text(field))
            elif field.key == 2:
                for part in self._read(field.content, VALUE_TYPE):
                    found = self._typed(found, part)
        return found

    def _typed(self, value: ValueSignature, part: Field) -> ValueSignature:
        value = msgspec.structs.replace(value, kind=VALUE_KINDS.get(part.key, value.kind))
        for field in self._read(part.content, TENSOR_TYPE) if part.key == 1 else ():
            if field.key == 1:
                value = msgspec.structs.replace(value, element_type=field.number)
            else:
                value = msgspec.structs.replace(value, shape=self._shape(field.content))
        return value

    def _shape(self, shape: memoryview) -> tuple[int | None, ...]:
        sizes: list[int | None] = []
        for dimension in self._read(shape, SHAPE):
            numbers = [field.number for field in self._read(dimension.content, DIMENSION) if field.key == 1]
            sizes.append(numbers[0] if numbers and 0 < numbers[0] <= MAX_INT64 else None)
            if len(sizes) > self._limits.dimensions:
                raise _wrong_tensor(f"it has an input or output of more than {self._limits.dimensions} dimensions")
        return tuple(sizes)

    def _read(self, message: memoryview, schema: _Schema) -> Iterator[Field]:
        """The fields of a message. Raises ModelRefused for a refused or unknown field, a wrong wire type, or an ambiguous repetition."""
        keys_read = set()
        for field in read_fields(message):
            self._fields += 1
            if self._fields > self._limits.fields:
                raise ModelRefused(f"it has more than {self._limits.fields:,} fields", RefusalCode.ONNX_TOO_COMPLEX)
            if field.key in schema.refused:
                raise _refusal(schema.refused[field.key])
            if field.wire not in (schema.once.get(field.key) or schema.repeated.get(field.key, ())):
                raise ModelRefused("it is not an ONNX file, or one with a part that this release does not know", RefusalCode.ONNX_MALFORMED)
            if field.key in schema.once and field.key in keys_read:
                raise ModelRefused("it states something twice", RefusalCode.ONNX_MALFORMED)
            keys_read.add(field.key)
            yield field


def _check_numbers(kind: int, parts: list[memoryview]) -> None:
    """Weights that are NaN make every result NaN."""
    dtype = FLOATS_WITH_NAN.get(kind)
    if dtype is None:
        return
    for part in parts:
        if np.isnan(np.frombuffer(part[: len(part) - len(part) % dtype.itemsize], dtype)).any():
            raise ModelRefused("it holds weights that are no number (NaN): train or export it again", RefusalCode.ONNX_NOT_A_NUMBER)


def _refusal(reason: tuple[RefusalCode, str]) -> ModelRefused:
    code, detail = reason
    return ModelRefused(detail, code)


def _wrong_tensor(detail: str) -> ModelRefused:
    return ModelRefused(detail, RefusalCode.ONNX_TENSOR)


def _text(field: Field) -> str:
    return bytes(field.content).decode(errors="replace")


def _shown(name: str) -> str:
    return repr(printable(name)[:MAX_SHOWN_CHARACTERS])
