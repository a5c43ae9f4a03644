"""Requests and answers of the Open Inference Protocol as bytes: JSON, and with the binary data extension raw tensors after it."""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from api.field_messages import missing_field, plain, unknown_field
from api.kserve.messages import (
    BINARY_DATA,
    BINARY_SIZE,
    BYTES,
    FP32,
    FP64,
    INPUT,
    InferenceRequest,
    InferenceResponse,
    InputTensor,
    OutputTensor,
    RequestedOutput,
    TensorMetadata,
)
from api.middleware.body_limits import unstorable
from api.middleware.unstorable_text import CONTROL
from api.problems import Malformed
from application.ports import Prediction
from domain.errors import Invalid
from domain.values import quoted

LENGTH: Final = struct.Struct("<I")  # before each element of a raw BYTES tensor
NUMBERS: Final = {FP32: "f", FP64: "d"}
MAX_SEPARATORS: Final = 10_000
"""Of the JSON of a request. Base64 has none, and each value takes far more memory than its bytes."""
OF_INPUT: Final = frozenset({BINARY_SIZE, "content_type"})
DECODER: Final = msgspec.json.Decoder(InferenceRequest)
VALUES: Final[Mapping[str, Callable[[Prediction], Any]]] = {
    "label": lambda one: [one.label],
    "confidence": lambda one: [one.confidence],
    "verdict": lambda one: [one.verdict.value],
    "scores": lambda one: one.scores,
    "warnings": lambda one: [msgspec.json.encode(one.warnings).decode()],
    "value": lambda one: [one.value],
}


class EncodedResponse(NamedTuple):
    """`json_bytes` is the length of the JSON at the beginning of `body`, if raw tensors follow it."""

    body: bytes
    json_bytes: int | None


def decode(body: bytes, json_bytes: int | None) -> InferenceRequest:
    """The request in a body, of which the first `json_bytes` are JSON and the others raw tensors; None: all of it is JSON.

    Raises Malformed, Invalid.
    """
    if json_bytes is not None and not 0 < json_bytes <= len(body):
        raise Malformed("Inference-Header-Content-Length must be the length of the JSON at the beginning of the body")
    text = body if json_bytes is None else body[:json_bytes]
    if text.count(b",") + text.count(b"[") > MAX_SEPARATORS:
        raise Malformed("The JSON has too many values: send fewer images, as base64")
    try:
        request = DECODER.decode(text)
    except msgspec.ValidationError as error:
        raise Invalid(_sentence(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise unstorable(text, "The body is not valid JSON in UTF-8") from None
    if request.id is not None and CONTROL.search(request.id):
        raise Invalid("The id must not contain control characters")
    return request


def _sentence(refusal: str) -> str:
    """The message of msgspec with the place, `Expected `int`, got `str` - at `$.inputs[0]``, in plain words."""
    message, _, place = refusal.partition(" - at `$")
    if (unknown := unknown_field(message)) is not None:
        return f"The request has {f'the field {unknown.name}, which' if unknown.name else 'a field that'} is not known"
    path = ".".join(filter(None, [place.strip(".`"), missing_field(message)]))
    return f"{path or 'The body'} {plain(message)}"


def images_of(request: InferenceRequest, raw: bytes, *, maximum: int) -> list[bytes]:
    """The file of each image. `raw` are the bytes after the JSON. Raises Invalid for more than `maximum`."""
    if len(request.inputs) != 1:
        raise Invalid(f"A request has one input, {INPUT!r}; this one has {len(request.inputs)}")
    (tensor,) = request.inputs
    count = _count(tensor, maximum)
    images = _raw_elements(tensor, raw) if tensor.data is None else _given_elements(tensor, raw)
    if len(images) != count:
        raise Invalid(f"The shape of the input says {count} images, its data has {len(images)}")
    return images


def encode(
    response: InferenceResponse, answers: Sequence[Prediction], outputs: Sequence[TensorMetadata], binary: Sequence[bool]
) -> EncodedResponse:
    """The response with its outputs, each as raw bytes where `binary` says so, otherwise in JSON."""
    tensors, parts = [], list[bytes]()
    for output, is_binary in zip(outputs, binary, strict=True):
        values = list(chain.from_iterable(VALUES[output.name](answer) for answer in answers))
        shape = [len(answers), *output.shape[1:]]
        about = {"name": output.name, "datatype": output.datatype, "shape": shape}
        if is_binary:
            parts.append(_raw(values, output.datatype))
            tensors.append(OutputTensor(**about, parameters={BINARY_SIZE: len(parts[-1])}))  # type: ignore[arg-type] # of these names
        else:
            tensors.append(OutputTensor(**about, data=values))  # type: ignore[arg-type] # of these names
    text = msgspec.json.encode(msgspec.structs.replace(response, outputs=tensors))
    return EncodedResponse(b"".join([text, *parts]), len(text) if any(binary) else None)


def selected_outputs(
    wanted: Sequence[RequestedOutput] | None, known: Mapping[str, TensorMetadata], *, is_binary: bool
) -> tuple[list[TensorMetadata], list[bool]]:
    """The outputs that a request names, by default all, and which of them it wants as raw bytes. Raises Invalid."""
    if wanted is None:
        return list(known.values()), [is_binary] * len(known)
    names = [one.name for one in wanted]
    for one in wanted:
        if one.name not in known or names.count(one.name) > 1:
            problem = "is named twice" if one.name in known else "does not exist"
            raise Invalid(f"The {quoted('output', one.name)} {problem}. Outputs: {', '.join(known)}")
        if set(one.parameters) - {BINARY_DATA} or not isinstance(one.parameters.get(BINARY_DATA, True), bool):
            raise Invalid(f"The parameters of an output are {BINARY_DATA}: true or false")
    return [known[name] for name in names], [bool(one.parameters.get(BINARY_DATA, is_binary)) for one in wanted]


def _count(tensor: InputTensor, maximum: int) -> int:
    """The number of images that the shape states."""
    if tensor.name != INPUT:
        raise Invalid(f"The input must be named {INPUT!r}")
    if tensor.datatype != BYTES:
        raise Invalid(f"The datatype of the input must be {BYTES}: each element is the file of an image")
    if tensor.shape[1:] not in ([], [1]):
        raise Invalid("The shape of the input must be [images] or [images, 1]")
    if set(tensor.parameters) - OF_INPUT or tensor.parameters.get("content_type", "base64") != "base64":
        raise Invalid(f"An input may have the parameters {BINARY_SIZE} (bytes) and content_type (base64)")
    if tensor.shape[0] > maximum:
        raise Invalid(f"A request has at most {maximum} images; this one has {tensor.shape[0]}")
    return tensor.shape[0]


def _given_elements(tensor: InputTensor, raw: bytes) -> list[bytes]:
    assert tensor.data is not None
    if raw or BINARY_SIZE in tensor.parameters:
        raise Invalid(f"The input has data in the JSON and {BINARY_SIZE}, or bytes after the JSON: send one of them")
    return list(chain.from_iterable([one] if isinstance(one, bytes) else one for one in tensor.data))


def _raw_elements(tensor: InputTensor, raw: bytes) -> list[bytes]:
    if tensor.parameters.get(BINARY_SIZE) != len(raw) or not raw:
        raise Invalid(f"The input needs data in the JSON, or {BINARY_SIZE} with that many bytes after the JSON; there are {len(raw)}")
    return list(_elements(raw))


def _elements(raw: bytes) -> Iterator[bytes]:
    """The elements of a raw BYTES tensor, each after its length."""
    start = 0
    while start < len(raw):
        begin = start + LENGTH.size
        end = begin + LENGTH.unpack_from(raw, start)[0] if begin <= len(raw) else begin
        if end > len(raw):
            raise Invalid("The raw input is cut off: each image follows its length in four bytes, the lowest first")
        yield raw[begin:end]
        start = end


def _raw(values: Sequence[Any], datatype: str) -> bytes:
    if (code := NUMBERS.get(datatype)) is not None:
        return struct.pack(f"<{len(values)}{code}", *values)
    texts = [str(value).encode() for value in values]
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)
