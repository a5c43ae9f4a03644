"""In what an image that was inspected does not fit a manifest, in the words of a microscopist.

The metadata of an image leave some things open, such as the orientation of its picture. What may fit is no mismatch here.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from application.ports import Mismatch
from domain.classification import PlaneSelection
from domain.image import Inspection
from infrastructure.inference.models.refusals import PackageRefused
from infrastructure.inference.packages.input_fitting import PICTURE, ImageFacts, InputMismatch, mismatch_sentence, mismatches
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.packages.package_manifest import InputTensor
from infrastructure.inference.plane_counts import COLOURS, PlaneCounts, Size

IMAGE: Final = ("image_id",)
NUMBERS: Final = ("dtype", "bit depth")


def mismatches_of(record: str, image: Inspection | None, counts: PlaneCounts | None, planes: PlaneSelection) -> list[Mismatch]:
    """In what an image does not fit a package with the manifest `record`, which is JSON text.

    Without `image` and `counts`, which go together, only `planes` are compared. Empty for a manifest that this release cannot read.
    """
    try:
        tensor = parse_record(record).input
    except PackageRefused:
        return []
    if tensor is None:
        return []
    if image is None or counts is None:
        return _wrong_number_of_channels(tensor, planes)
    return [*_stack_mismatches(counts, tensor, planes), *_plane_mismatches(image, counts, tensor, planes)]


def _wrong_number_of_channels(tensor: InputTensor, planes: PlaneSelection) -> list[Mismatch]:
    if planes.c is None or _accepts(tensor, len(planes.c)):
        return []
    return [_mismatch("channel", _channels(tensor), str(len(planes.c)), field=("planes", "c"), of="the choice")]


def _stack_mismatches(counts: PlaneCounts, tensor: InputTensor, planes: PlaneSelection) -> Iterable[Mismatch]:
    """A stack that the model takes as a whole has a size that its axis permits."""
    stacks = {"z": (planes.z, counts.z), "index": (planes.z, counts.z), "time": (planes.t, counts.time)}
    for axis in tensor.axes:
        if axis.id not in stacks or axis.reference is not None:
            continue
        chosen, size = stacks[axis.id]
        if chosen is not None:
            size = Size(1, is_exact=True)
        if size.is_exact and not axis.permits(size.most):
            expected = str(axis.minimum) if axis.step == 0 else f"{axis.minimum} and any number of times {axis.step} more"
            yield _mismatch(axis.id, expected, size.words)


def _plane_mismatches(image: Inspection, counts: PlaneCounts, tensor: InputTensor, planes: PlaneSelection) -> list[Mismatch]:
    """Of the reading of the metadata that fits best: a picture may be stored turned, and CMYK becomes RGB in 8 bits."""
    if not _is_number_type(image.dtype):
        return []
    possible = counts.channels if planes.c is None else {len(planes.c)}
    channels = next((number for number in sorted(possible) if _accepts(tensor, number)), max(possible))
    facts = ImageFacts(
        width=image.width,
        height=image.height,
        channels=channels,
        dtype=image.dtype,
        bits=_bits(image.dtype, tensor),
        pixel_size_um=image.pixel_size_um,
    )
    readings = [(PICTURE, msgspec.structs.replace(facts, width=facts.height, height=facts.width))]
    if image.bands > COLOURS:
        readings.append((NUMBERS, msgspec.structs.replace(facts, dtype="uint8", bits=8)))
    found = mismatches(facts, tensor)
    for axes, reading in readings:
        if not any(one.axis in axes for one in mismatches(reading, tensor)):
            found = tuple(one for one in found if one.axis not in axes)
    return [_in_words(one, tensor, planes, most=max(possible)) for one in found]


def _in_words(one: InputMismatch, tensor: InputTensor, planes: PlaneSelection, *, most: int) -> Mismatch:
    if one.axis == "channel" and planes.c is not None:
        return _mismatch("channel", _channels(tensor), one.found, field=("planes", "c"), of="the choice")
    if one.axis == "channel":
        wanted = _channel_count(tensor)
        hint = f". Choose {wanted} of them with planes, such as c={','.join(map(str, range(wanted)))}" if most > wanted else ""
        return _mismatch("channel", _channels(tensor), one.found, hint=hint)
    if one.axis in PICTURE and tensor.rules.crop < 1:
        return _mismatch(one.axis, one.expected, one.found, hint=" within the part that the model looks at")
    return _mismatch(one.axis, one.expected, one.found)


def _mismatch(axis: str, expected: str, found: str, *, field: tuple[str, ...] = IMAGE, of: str = "the image", hint: str = "") -> Mismatch:
    message = mismatch_sentence(axis, expected, found, of=of) + hint
    return Mismatch(field=field, axis=axis, expected=expected, found=found, message=message)


def _channel_count(tensor: InputTensor) -> int:
    return len(tensor.channels) or 1


def _accepts(tensor: InputTensor, channels: int) -> bool:
    return channels == _channel_count(tensor) or (channels == 1 and tensor.rules.repeat_grey)


def _channels(tensor: InputTensor) -> str:
    wanted = str(_channel_count(tensor))
    return f"{wanted} ({', '.join(tensor.channels)})" if tensor.channels else wanted


def _is_number_type(name: str) -> bool:
    try:
        return np.dtype(name).kind in "iufb"
    except TypeError:
        return False


def _bits(name: str, tensor: InputTensor) -> int:
    """All bits of the type, unless the model takes fewer that may be the ones in use: cameras of 12 bits store 16."""
    stored: np.dtype[Any] = np.dtype(name)
    full = 8 * stored.itemsize
    fewest = full if stored.kind == "f" else 1 if full == 8 else full // 2 + 1
    accepted: Sequence[int] = tensor.rules.bit_depths
    return next((depth for depth in accepted if fewest <= depth <= full), full)
