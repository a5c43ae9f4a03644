"""The messages of the Open Inference Protocol (KServe v2), and the parts of a request that this server gives a meaning to."""

import re
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from domain.classification import PlaneSelection, Projection
from domain.errors import Invalid
from domain.model import OutputKind, Version
from domain.values import quoted

INPUT: Final = "image"
BYTES, FP32, FP64 = "BYTES", "FP32", "FP64"
BINARY_DATA, BINARY_SIZE, ALL_BINARY = "binary_data", "binary_data_size", "binary_data_output"
OF_REQUEST: Final = frozenset({"z", "c", "t", "threshold", ALL_BINARY})
CHANNELS: Final = re.compile(r"\d{1,4}(,\d{1,4})*")

Parameter = bool | int | float | str
Dimension = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class InputTensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images: each element is the file of one. In JSON they are base64."""

    name: str
    datatype: str
    shape: Annotated[list[Dimension], Meta(min_length=1, max_length=2)]
    parameters: dict[str, Parameter] = {}
    data: list[bytes | list[bytes]] | None = None


class RequestedOutput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An output that the answer contains."""

    name: str
    parameters: dict[str, Parameter] = {}


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images, and what to answer about them."""

    inputs: list[InputTensor]
    id: Annotated[str, Meta(max_length=255)] | None = None
    parameters: dict[str, Parameter] = {}
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One value for each image; of `scores`, one for each label, in the order of the images."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Parameter] = {}
    data: list[float | str] | UnsetType = UNSET


class InferenceResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of the images."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | UnsetType = UNSET


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The inference server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(msgspec.Struct, frozen=True, kw_only=True):
    """The process runs."""

    live: bool


class ServerReady(msgspec.Struct, frozen=True, kw_only=True):
    """Whether predictions are answered."""

    ready: bool


class ModelReady(msgspec.Struct, frozen=True, kw_only=True):
    """Whether predictions of the model are answered."""

    name: str
    ready: bool


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of a model. A size of -1 is the number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model, and the numbers of all versions that are no external classifier."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What the parameters of a request choose. None for `threshold`: that of the version."""

    planes: PlaneSelection
    threshold: float | None
    is_binary: bool


def choices_of(parameters: dict[str, Parameter]) -> Choices:
    """Raises Invalid, also for an unknown parameter."""
    if unknown := sorted(set(parameters) - OF_REQUEST):
        raise Invalid(f"Unknown {quoted('parameter', unknown[0])}. Parameters of a request: {', '.join(sorted(OF_REQUEST))}")
    is_binary = parameters.get(ALL_BINARY, False)
    if not isinstance(is_binary, bool):
        raise Invalid(f"The parameter {ALL_BINARY} must be true or false")
    planes = PlaneSelection(z=_focal_plane(parameters.get("z")), c=_channels(parameters.get("c")), t=_plane("t", parameters.get("t")))
    return Choices(planes=planes, threshold=_threshold(parameters.get("threshold")), is_binary=is_binary)


def outputs_of(version: Version) -> dict[str, TensorMetadata]:
    """The outputs of a version, by name, in the order in which an answer contains them."""
    tensors = [
        TensorMetadata(name="label", datatype=BYTES, shape=[-1]),
        TensorMetadata(name="confidence", datatype=FP32, shape=[-1]),
        TensorMetadata(name="verdict", datatype=BYTES, shape=[-1]),
        TensorMetadata(name="scores", datatype=FP32, shape=[-1, len(version.labels)]),
        TensorMetadata(name="warnings", datatype=BYTES, shape=[-1]),
    ]
    if version.kind is OutputKind.REGRESSION:
        tensors.append(TensorMetadata(name="value", datatype=FP64, shape=[-1]))
    return {tensor.name: tensor for tensor in tensors}


def _threshold(value: Parameter | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool | str) or not 0 <= value <= 1:
        raise Invalid("The parameter threshold must be a number from 0 to 1")
    return float(value)


def _focal_plane(value: Parameter | None) -> int | Projection | None:
    if isinstance(value, str) and value in set(Projection):
        return Projection(value)
    return _plane("z", value, otherwise=f", or {' or '.join(Projection)}")


def _plane(axis: str, value: Parameter | None, *, otherwise: str = "") -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(f"The parameter {axis} must be the number of a plane, counted from 0{otherwise}")
    return value


def _channels(value: Parameter | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, bool) or not CHANNELS.fullmatch(str(value)):
        raise Invalid('The parameter c must be channels, counted from 0, separated by commas such as "2,0"')
    return tuple(map(int, str(value).split(",")))
