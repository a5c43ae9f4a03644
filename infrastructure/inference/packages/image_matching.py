"""In what an image that was inspected does not fit a manifest, in the words of a microscopist.

The metadata of an image leave some things open, such as the orientation of its picture. What may fit is no mismatch here.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from application.ports import Mismatch
from domain.classification import PlaneSelection, Projection
from domain.image import Image, Inspection
from infrastructure.inference.models.refusals import PackageRefused
from infrastructure.inference.packages.input_fitting import PICTURE, ImageFacts, InputMismatch, mismatches
from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.packages.package_manifest import InputTensor

IMAGE: Final = ("image_id",)
COMPLETE_METADATA: Final = 2  # reader version since which warnings say which samples are colours
COLOURS: Final = frozenset({3, 4})  # RGB and CMYK
AXES: Final = {
    "channel": "channels",
    "x": "pixels in width",
    "y": "pixels in height",
    "z": "focal planes",
    "time": "points in time",
    "dtype": "numbers of the type",
    "bit depth": "bits in each number",
    "pixel size": "a pixel size of",
}
MEASURES: Final = {"dtype", "pixel size"}  # named before the number
STACKS: Final = (("z", "ZI"), ("time", "T"))
"""Axes of a manifest, and the letters of an image for each. Pages of unknown meaning count as focal planes."""


class Size(NamedTuple):
    """The size of a stack. The metadata state only the product where an image has several stacks; then `most` is an upper limit."""

    most: int
    is_exact: bool

    @property
    def words(self) -> str:
        return str(self.most) if self.is_exact else f"at most {self.most}"


def mismatches_of(record: str, image: Image | None, planes: PlaneSelection) -> list[Mismatch]:
    """Implements `application.ports.InputCheck` for a package with the manifest `record`, which is JSON text.

    Empty for a manifest that this release cannot read.
    """
    try:
        tensor = parse_manifest(msgspec.json.decode(record)).input
    except (PackageRefused, msgspec.DecodeError):
        return []
    if tensor is None:
        return []
    if image is None or image.inspection is None:
        return _wrong_number_of_channels(tensor, planes)
    absent = _absent_planes(image, planes)
    return absent or [*_stack_mismatches(image.inspection, tensor, planes), *_plane_mismatches(image, tensor, planes)]


# ---- the choice of planes ----------------------------------------------------------------------------------------------------------
def _wrong_number_of_channels(tensor: InputTensor, planes: PlaneSelection) -> list[Mismatch]:
    if planes.c is None or _accepts(tensor, len(planes.c)):
        return []
    return [_mismatch("channel", _channels(tensor), str(len(planes.c)), field=("planes", "c"), verb="the choice has")]


def _absent_planes(image: Image, planes: PlaneSelection) -> list[Mismatch]:
    assert image.inspection is not None
    found = []
    if planes.c is not None and max(planes.c) >= (most := max(_possible_channels(image, image.inspection))):
        found.append(_absent("c", "channel", max(planes.c), Size(most, is_exact=True)))
    for name, axis, plane in (("z", "z", planes.z), ("t", "time", planes.t)):
        size = _stack_size(image.inspection, axis)
        if plane is not None and not isinstance(plane, Projection) and plane >= size.most:
            found.append(_absent(name, axis, plane, size))
    return found


def _absent(name: str, axis: str, plane: int, size: Size) -> Mismatch:
    message = f"The image has no {name}={plane}: it has {size.words} {_counted(axis, size.most)}, counted from 0"
    return Mismatch(field=("planes", name), axis=axis, expected=f"{name}={plane}", found=size.words, message=message)


# ---- the image ---------------------------------------------------------------------------------------------------------------------
def _stack_mismatches(inspection: Inspection, tensor: InputTensor, planes: PlaneSelection) -> Iterable[Mismatch]:
    """A stack that the model takes as a whole has a size that its axis permits."""
    chosen = {"z": planes.z, "time": planes.t}
    for axis in tensor.axes:
        if axis.id not in chosen or axis.reference is not None:
            continue
        size = _stack_size(inspection, axis.id) if chosen[axis.id] is None else Size(1, is_exact=True)
        if size.is_exact and not axis.permits(size.most):
            expected = str(axis.minimum) if axis.step == 0 else f"{axis.minimum} and any number of times {axis.step} more"
            yield _mismatch(axis.id, expected, size.words)


def _plane_mismatches(image: Image, tensor: InputTensor, planes: PlaneSelection) -> list[Mismatch]:
    """Of the reading of the metadata that fits best: a picture may be stored turned, and some samples may be colours or not."""
    assert image.inspection is not None
    inspection = image.inspection
    if not _is_number_type(inspection.dtype):
        return []
    possible = {len(planes.c)} if planes.c is not None else _possible_channels(image, inspection)
    channels = next((number for number in sorted(possible) if _accepts(tensor, number)), max(possible))
    facts = ImageFacts(
        width=inspection.width,
        height=inspection.height,
        channels=channels,
        dtype=inspection.dtype,
        bits=_bits(inspection.dtype, tensor),
        pixel_size_um=inspection.pixel_size_um,
    )
    turned = msgspec.structs.replace(facts, width=facts.height, height=facts.width)
    fits_turned = not any(one.axis in PICTURE for one in mismatches(turned, tensor))
    found = [one for one in mismatches(facts, tensor) if not (fits_turned and one.axis in PICTURE)]
    return [_in_words(one, tensor, planes, most=max(possible)) for one in found]


def _in_words(one: InputMismatch, tensor: InputTensor, planes: PlaneSelection, *, most: int) -> Mismatch:
    if one.axis == "channel" and planes.c is not None:
        return _mismatch("channel", _channels(tensor), one.found, field=("planes", "c"), verb="the choice has")
    if one.axis == "channel":
        wanted = _channel_count(tensor)
        hint = f". Choose {wanted} of them with planes, such as c={','.join(map(str, range(wanted)))}" if most > wanted else ""
        return _mismatch("channel", _channels(tensor), one.found, hint=hint)
    if one.axis in PICTURE and tensor.rules.crop < 1:
        return _mismatch(one.axis, one.expected, one.found, hint=" within the part that the model looks at")
    return _mismatch(one.axis, one.expected, one.found)


def _mismatch(
    axis: str, expected: str, found: str, *, field: tuple[str, ...] = IMAGE, verb: str = "the image has", hint: str = ""
) -> Mismatch:
    name = AXES.get(axis, axis)
    pair = (f"{name} {expected}", found) if axis in MEASURES else (f"{expected} {name}", found)
    return Mismatch(
        field=field, axis=axis, expected=expected, found=found, message=f"The model takes {pair[0]}, and {verb} {pair[1]}{hint}"
    )


def _counted(axis: str, number: int) -> str:
    return AXES[axis] if number != 1 else {"channel": "channel", "z": "focal plane", "time": "point in time"}[axis]


# ---- channels ----------------------------------------------------------------------------------------------------------------------
def _channel_count(tensor: InputTensor) -> int:
    return len(tensor.channels) or 1


def _accepts(tensor: InputTensor, channels: int) -> bool:
    return channels == _channel_count(tensor) or (channels == 1 and tensor.rules.repeat_grey)


def _channels(tensor: InputTensor) -> str:
    wanted = str(_channel_count(tensor))
    return f"{wanted} ({', '.join(tensor.channels)})" if tensor.channels else wanted


def _possible_channels(image: Image, inspection: Inspection) -> set[int]:
    """How many channels a file may have: in the samples of its pixels, and in pages of its own. Alpha is no channel."""
    samples, pages = _possible_samples(image, inspection), _possible_sizes(inspection, "C")
    both = {one * other for one in samples for other in pages}
    return both if {1} in (samples, pages) else both | pages | samples


def _possible_samples(image: Image, inspection: Inspection) -> set[int]:
    """How many samples of a pixel are colours or channels."""
    bands = inspection.bands
    if "S" not in inspection.axes:
        return {1}
    if inspection.reader < COMPLETE_METADATA:
        return set(range(1, bands + 1))
    if image.media_type == "image/png":
        return {bands - 1} if bands in {2, 4} else {bands}
    if image.media_type == "image/jpeg":
        return {3, bands}
    warnings = {warning.code for warning in inspection.warnings}
    greys = set(range(2, bands + 1)) if "first_channel_only" in warnings else {1}
    others = range(1, bands) if "extra_samples_ignored" in warnings else range(2)
    found = {colours for colours in greys | COLOURS if bands - colours in others}
    return found | {3} if 4 in found else found


# ---- stacks ------------------------------------------------------------------------------------------------------------------------
def _stack_size(inspection: Inspection, axis: str) -> Size:
    letters = dict(STACKS)[axis]
    sizes = [_possible_sizes(inspection, letter) for letter in letters]
    return Size(max(max(one) for one in sizes), is_exact=all(len(one) == 1 for one in sizes))


def _possible_sizes(inspection: Inspection, letter: str) -> set[int]:
    """Each stack that `axes` names has two planes or more, and all stacks together have as many as the file has pages."""
    stacks = [one for one in inspection.axes if one in "TZCI"]
    if letter not in stacks:
        return {1}
    others: int = 2 ** (len(stacks) - 1)
    if others == 1:
        return {inspection.pages}
    found = {size for size in range(2, inspection.pages // others + 1) if inspection.pages % size == 0}
    return found or set(range(1, inspection.pages + 1))


# ---- numbers -----------------------------------------------------------------------------------------------------------------------
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
