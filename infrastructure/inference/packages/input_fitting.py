"""From an image to the input tensor that a manifest describes: channels, sizes, numbers and the order of axes."""

from math import prod
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infrastructure.inference.packages.operators import Array, DataType, NamedArray, apply, cast
from infrastructure.inference.packages.package_manifest import Axis, InputRules, InputTensor
from infrastructure.inference.plane_counts import NAMES

FILTERS: Final = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}
MAX_INPUT_ELEMENTS: Final = 64 * 1024**2
NOISE_SEED: Final = 0
MAX_NOISE: Final = 255
PICTURE: Final = ("y", "x")

AXIS_WORDS: Final = {
    **{axis: plural for axis, (_, plural) in NAMES.items()},
    "index": "pages",
    "x": "pixels in width",
    "y": "pixels in height",
    "dtype": "numbers of the type",
    "bit depth": "bits in each number",
    "pixel size": "a pixel size of",
}
NAMED_BEFORE_THE_NUMBER: Final = {"dtype", "pixel size"}


def mismatch_sentence(axis: str, expected: str, found: str, *, of: str = "the image") -> str:
    """In the words of a microscopist."""
    words = AXIS_WORDS.get(axis, axis)
    wanted = f"{words} {expected}" if axis in NAMED_BEFORE_THE_NUMBER else f"{expected} {words}"
    return f"The model takes {wanted}, and {of} has {found}"


class InputMismatch(ValueError):
    """An image does not fit the input of a model: along which `axis` (or `dtype`), what is `expected`, and what was `found`."""

    def __init__(self, axis: str, *, expected: str, found: str, message: str | None = None) -> None:
        super().__init__(message or mismatch_sentence(axis, expected, found))
        self.axis, self.expected, self.found = axis, expected, found


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the metadata of an image say. `dtype` is numpy's name of the stored numbers, `bits` how many of them are used."""

    width: int
    height: int
    channels: int
    dtype: str
    bits: int
    pixel_size_um: float | None = None


class _Box(NamedTuple):
    """A part of a picture, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def size(self) -> tuple[float, float]:
        """(height, width)"""
        return self.bottom - self.top, self.right - self.left

    def is_whole(self, size: tuple[float, float]) -> bool:
        """Whether it is `size` pixels, none of them cut."""
        return self.size == size and all(edge == int(edge) for edge in self)

    def centred(self, height: float, width: float) -> "_Box":
        own_height, own_width = self.size
        top, left = self.top + (own_height - height) / 2, self.left + (own_width - width) / 2
        return _Box(left, top, left + width, top + height)


def mismatches(image: ImageFacts, tensor: InputTensor) -> tuple[InputMismatch, ...]:
    """In what an image does not fit, before it is decoded. An image that does not state the size of its pixels may have any."""
    found = []
    for check in (_check_channels, _check_bit_depth, _check_dtype, _check_picture_size, _check_pixel_size):
        try:
            check(image, tensor)
        except InputMismatch as mismatch:
            found.append(mismatch)
    return tuple(found)


def preprocessed(fitted: NamedArray, tensor: InputTensor) -> Array:
    """What the network is fed with, of an image that was fitted: one row of numbers where the manifest asks for that.

    Raises OperatorFailed.
    """
    values = np.ascontiguousarray(apply(tensor.preprocessing, fitted, {tensor.id: fitted}).values)
    return values.reshape(1, -1) if tensor.rules.flatten else values


def fit_picture(picture: Array, tensor: InputTensor, size: tuple[int, int]) -> Array:
    """(height, width, colours) with the height and width `size`, cropped and resized as for the network."""
    return _resized(NamedArray(picture, ("y", "x", "channel")), tensor.rules, size).values


def noise_image(tensor: InputTensor) -> NamedArray:
    """An image of a size that the manifest permits, as `fit` would give it. Of noise, since constants become NaN in some networks.

    Raises InputMismatch if it would have too many numbers.
    """
    chosen = dict(zip(PICTURE, tensor.rules.size or (0, 0), strict=True))
    sizes = _with_references({axis.id: chosen.get(axis.id) or axis.minimum for axis in tensor.axes if axis.reference is None}, tensor)
    scale = 1 if tensor.dtype.startswith("float") else MAX_NOISE
    noise = np.random.default_rng(NOISE_SEED).random([sizes[axis] for axis in tensor.axis_ids], np.float32)
    return NamedArray(cast(noise * np.float32(scale), tensor.dtype), tensor.axis_ids)


def fit(image: NamedArray, tensor: InputTensor) -> NamedArray:
    """`image` with the axes, sizes and type of `tensor`; its own axes are y and x, and any of channel and the stacks of the tensor.

    A resized picture of whole numbers is rounded to the nearest. Raises InputMismatch.
    """
    _check_axes(image, tensor)
    image = _with_channels(image, tensor)
    target = _target_sizes(image, tensor)
    image = _resized(image, tensor.rules, (target["y"], target["x"]))
    arranged = _arranged(image, tensor.axes, target)
    return NamedArray(_converted(arranged, tensor.dtype, tensor.rules), tensor.axis_ids)


# ---- checks ------------------------------------------------------------------------------------------------------------------------
def _check_channels(image: ImageFacts, tensor: InputTensor) -> None:
    _check_channel_count(image.channels, tensor)


def _check_channel_count(found: int, tensor: InputTensor) -> None:
    wanted = _channel_count(tensor)
    if found != wanted and not (tensor.rules.repeat_grey and found == 1):
        names = f" ({', '.join(tensor.channels)})" if tensor.channels else ""
        raise InputMismatch("channel", expected=f"{wanted}{names}", found=str(found))


def _channel_count(tensor: InputTensor) -> int:
    return next((axis.minimum for axis in tensor.axes if axis.type == "channel"), 1)


def _check_bit_depth(image: ImageFacts, tensor: InputTensor) -> None:
    depths = tensor.rules.bit_depths
    if depths and image.bits not in depths:
        raise InputMismatch("bit depth", expected=" or ".join(map(str, depths)), found=str(image.bits))


def _check_dtype(image: ImageFacts, tensor: InputTensor) -> None:
    stored = np.dtype(image.dtype)
    if not _is_scaled(stored, tensor.dtype, tensor.rules):
        _check_cast(stored, tensor.dtype)


def _check_cast(stored: np.dtype[Any], dtype: DataType) -> None:
    """Whether every stored number is one of the tensor's type; each is a floating-point number."""
    if np.dtype(dtype).kind != "f" and not np.can_cast(stored, dtype):
        raise InputMismatch("dtype", expected=dtype, found=stored.name)


def _is_scaled(stored: np.dtype[Any], dtype: DataType, rules: InputRules) -> bool:
    return stored.kind in "iu" and (rules.values == "unit" or (rules.values == "full_range" and np.dtype(dtype).kind in "iu"))


def _check_picture_size(image: ImageFacts, tensor: InputTensor) -> None:
    """Where nothing is interpolated, a picture must have the pixels. A size that follows another is looked at when the image is fitted."""
    for axis, found in ((axis, {"y": image.height, "x": image.width}.get(axis.id)) for axis in tensor.axes):
        if found is not None and axis.reference is None and tensor.rules.resize == "none":
            _check_pixels(axis.id, found, _target_size(axis, found, tensor.rules), tensor.rules)


def _check_pixels(axis: str, found: int, wanted: int, rules: InputRules) -> None:
    cropped = _cropped_size(found, rules.crop)
    if cropped < wanted:
        raise InputMismatch(axis, expected=f"at least {wanted}", found=str(cropped))


def _check_pixel_size(image: ImageFacts, tensor: InputTensor) -> None:
    expected, found = tensor.rules.pixel_size_um, image.pixel_size_um
    if expected is not None and found is not None and abs(found - expected) > tensor.rules.pixel_size_tolerance * expected:
        accepted = f"{expected:g} um within {tensor.rules.pixel_size_tolerance:.0%}"
        raise InputMismatch("pixel size", expected=accepted, found=f"{found:g} um")


# ---- axes --------------------------------------------------------------------------------------------------------------------------
def _check_axes(image: NamedArray, tensor: InputTensor) -> None:
    if not set(PICTURE) <= set(image.axes):
        raise InputMismatch("axes", expected="y and x", found=", ".join(image.axes))
    for axis, size in zip(image.axes, image.values.shape, strict=True):
        if axis not in {*tensor.axis_ids, "channel"}:
            raise InputMismatch(axis, expected="none", found=str(size))


def _with_channels(image: NamedArray, tensor: InputTensor) -> NamedArray:
    """With as many channels as the manifest has, last axis; one where it has no such axis."""
    values = np.moveaxis(image.values, image.axes.index("channel"), -1) if "channel" in image.axes else image.values[..., None]
    axes = (*(axis for axis in image.axes if axis != "channel"), "channel")
    _check_channel_count(values.shape[-1], tensor)
    if values.shape[-1] == 1:
        values = np.repeat(values, _channel_count(tensor), axis=-1)
    return NamedArray(values, axes)


def _target_sizes(image: NamedArray, tensor: InputTensor) -> dict[str, int]:
    """The size of each axis of the tensor."""
    present = dict(zip(image.axes, image.values.shape, strict=True))
    targets = {
        axis.id: _target_size(axis, present.get(axis.id, 1), tensor.rules)
        for axis in tensor.axes
        if axis.reference is None and axis.type != "channel"
    }
    targets |= {axis.id: axis.minimum for axis in tensor.axes if axis.type == "channel"}
    return _with_references(targets, tensor)


def _with_references(sizes: dict[str, int], tensor: InputTensor) -> dict[str, int]:
    """With the sizes that follow others. Raises InputMismatch for an input without numbers, or with more than the limit."""
    targets = dict(sizes)
    for axis in tensor.axes:
        if axis.reference is not None:
            other = next(one for one in tensor.axes if one.id == axis.reference.axis_id)
            targets[axis.id] = axis.following(other, targets[other.id])
    if not 0 < prod(targets.values()) <= MAX_INPUT_ELEMENTS or min(targets.values()) < 1:
        raise InputMismatch("size", expected=f"at most {MAX_INPUT_ELEMENTS:,} numbers", found=" x ".join(map(str, targets.values())))
    return targets


def _target_size(axis: Axis, found: int, rules: InputRules) -> int:
    if axis.id not in PICTURE:
        if not axis.permits(found):
            raise InputMismatch(axis.id, expected=_permitted(axis), found=str(found))
        return found
    if axis.step == 0:
        return axis.minimum
    if rules.size is not None:
        return rules.size[PICTURE.index(axis.id)]
    largest = axis.largest_below(_cropped_size(found, rules.crop))
    return axis.minimum if largest is None else largest


def _permitted(axis: Axis) -> str:
    return str(axis.minimum) if axis.step == 0 else f"{axis.minimum} + n * {axis.step}"


def _arranged(image: NamedArray, axes: tuple[Axis, ...], target: dict[str, int]) -> Array:
    """In the order of the manifest, with an axis of one for what an image does not have."""
    kept = tuple(axis.id for axis in axes if axis.id in image.axes or axis.type == "channel")
    names = image.axes
    if not any(axis.type == "channel" for axis in axes):
        image = NamedArray(image.values[..., 0], names[:-1])
    channel = next((axis.id for axis in axes if axis.type == "channel"), "channel")
    own = tuple(channel if name == "channel" else name for name in image.axes)
    ordered = image.values.transpose([own.index(name) for name in kept])
    return ordered.reshape([target[axis.id] for axis in axes])


# ---- sizes -------------------------------------------------------------------------------------------------------------------------
def _cropped_size(size: int, crop: float) -> int:
    return max(1, round(size * crop))


def _resized(image: NamedArray, rules: InputRules, target: tuple[int, int]) -> NamedArray:
    """With the height and width of `target`."""
    others = tuple(axis for axis in image.axes if axis not in PICTURE)
    stack = image.values.transpose([image.axes.index(axis) for axis in (*others, *PICTURE)])
    if rules.resize == "none":
        return _channel_last(NamedArray(_cut(stack, rules, target), (*others, *PICTURE)))
    resized = np.stack([_resampled(stack[index], rules, target) for index in np.ndindex(stack.shape[:-2])])
    return _channel_last(NamedArray(resized.reshape(*stack.shape[:-2], *target), (*others, *PICTURE)))


def _channel_last(image: NamedArray) -> NamedArray:
    axes = (*(axis for axis in image.axes if axis != "channel"), "channel")
    return NamedArray(np.moveaxis(image.values, image.axes.index("channel"), -1), axes)


def _cut(stack: Array, rules: InputRules, target: tuple[int, int]) -> Array:
    """The centre, without interpolation."""
    starts = []
    for axis, found, wanted in zip(PICTURE, stack.shape[-2:], target, strict=True):
        _check_pixels(axis, found, wanted, rules)
        starts.append((found - wanted) // 2)
    top, left = starts
    return stack[..., top : top + target[0], left : left + target[1]]


def _resampled(picture: Array, rules: InputRules, target: tuple[int, int]) -> Array:
    """One plane: (height, width) of its type."""
    height, width = picture.shape
    box = _Box(0, 0, width, height).centred(height * rules.crop, width * rules.crop)
    if rules.resize == "cover":
        box = box.centred(*_inscribed(target, box.size))
    inner = target if rules.resize != "contain" else _whole(_inscribed(box.size, target), target)
    if box.is_whole(inner):
        exact = picture[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    else:
        enlarges = min(box.size[0] - inner[0], box.size[1] - inner[1]) < 0
        chosen = Image.Resampling.BILINEAR if enlarges else FILTERS[rules.filter]
        plane = Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))
        exact = _rounded(np.asarray(plane.resize((inner[1], inner[0]), chosen, box=box)), picture.dtype)
    return _padded(exact, target)


def _inscribed(shape: tuple[float, float], frame: tuple[float, float]) -> tuple[float, float]:
    """The largest (height, width) with the proportions of `shape` within `frame`."""
    scale = min(frame[0] / shape[0], frame[1] / shape[1])
    return shape[0] * scale, shape[1] * scale


def _whole(size: tuple[float, float], most: tuple[int, int]) -> tuple[int, int]:
    return min(max(1, round(size[0])), most[0]), min(max(1, round(size[1])), most[1])


def _padded(picture: Array, target: tuple[int, int]) -> Array:
    """Centred, its edges repeated."""
    missing = [wanted - found for wanted, found in zip(target, picture.shape, strict=True)]
    return np.pad(picture, [(size // 2, size - size // 2) for size in missing], mode="edge") if any(missing) else picture


def _rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    return np.rint(values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype, copy=False)


# ---- numbers -----------------------------------------------------------------------------------------------------------------------
def _converted(values: Array, dtype: DataType, rules: InputRules) -> Array:
    """Stored numbers as the type of the tensor, by `rules.values`."""
    stored, target = values.dtype, np.dtype(dtype)
    if _is_scaled(stored, dtype, rules):
        return (values.astype(np.float64) / np.iinfo(stored).max).astype(target) if rules.values == "unit" else _stretched(values, target)
    _check_cast(stored, dtype)
    return cast(values, dtype)


def _stretched(values: Array, target: np.dtype[Any]) -> Array:
    """From the whole range of one integer type to that of another."""
    own, other = np.iinfo(values.dtype), np.iinfo(target)
    scale = (float(other.max) - float(other.min)) / (float(own.max) - float(own.min))
    numbers: NDArray[np.float64] = np.rint((values.astype(np.float64) - float(own.min)) * scale + float(other.min))
    return cast(numbers, target.name)  # type: ignore[arg-type]
