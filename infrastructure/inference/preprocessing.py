"""From the bytes of an image to the tensor that a network sees: the one path for training, evaluation and serving."""

import hashlib
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domain.values import ImageWarning
from infrastructure.images.reader import open_image
from infrastructure.images.rendering import Rendering, render
from infrastructure.images.validation import ImageLimits

CODE_VERSION: Final = 2
"""Raised with every change here and in the reader that can change a tensor; stands in each digest."""

FILTERS: Final = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}
DEFAULT_LIMITS: Final = ImageLimits()

Pixels = NDArray[np.uint8]
Tensor = NDArray[np.float32]


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides the tensor. `centre_crop`: the part of width and height that is kept; `mean` and `std`: of values in 0..1.
    `colour_profile`: whether colours are converted to sRGB by the profile that the file embeds, or count as stored."""

    size: int
    filter: Literal["box", "bilinear"] = "box"
    centre_crop: float = 1.0
    colour: Literal["rgb", "bgr"] = "rgb"
    colour_profile: Literal["srgb", "ignore"] = "ignore"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Prepared(NamedTuple):
    """`tensor`: float32, (3, size, size), C-contiguous. `warnings`: what of the file was not used, assumed or converted for it."""

    tensor: Tensor
    warnings: tuple[ImageWarning, ...]


def prepare(data: bytes, how: Preprocessing) -> Tensor:
    """The tensor of an encoded JPEG, PNG or TIFF, of its first plane as `infrastructure.images.rendering` shows it.

    Raises DamagedImage when any part of the picture cannot be decoded, UnsupportedImage, ImageTooLarge.
    """
    return prepare_with_warnings(data, how).tensor


def prepare_with_warnings(data: bytes, how: Preprocessing, *, limits: ImageLimits = DEFAULT_LIMITS) -> Prepared:
    """As `prepare`."""
    found = rendered(data, use_profile=how.colour_profile == "srgb", limits=limits)
    return Prepared(normalised(resized(Image.fromarray(found.rgb), how), how), found.warnings)


def digest(how: Preprocessing) -> str:
    """Hex sha256 over every field and the version of this code: equal digests mean equal tensors."""
    return hashlib.sha256(msgspec.json.encode({"code": CODE_VERSION, "how": how}, order="sorted")).hexdigest()


def rendered(data: bytes, *, use_profile: bool = False, limits: ImageLimits = DEFAULT_LIMITS) -> Rendering:
    """The first plane in 8-bit RGB, upright. Raises as `prepare`."""
    with open_image(data, limits=limits) as image:
        return render(image.plane(), use_profile=use_profile)


def decoded(data: bytes) -> Image.Image:
    """The first plane as an 8-bit RGB picture, upright, its colours as stored. Raises as `prepare`."""
    return Image.fromarray(rendered(data).rgb)


def resized(picture: Image.Image, how: Preprocessing) -> Pixels:
    """(size, size, 3) of an RGB picture. Shrinking uses the record's filter, enlarging always bilinear: a box would show squares."""
    width, height = picture.size
    left, top = width * (1 - how.centre_crop) / 2, height * (1 - how.centre_crop) / 2
    enlarges = min(width - 2 * left, height - 2 * top) < how.size
    chosen = Image.Resampling.BILINEAR if enlarges else FILTERS[how.filter]
    return np.asarray(picture.resize((how.size, how.size), chosen, box=(left, top, width - left, height - top)))


def normalised(pixels: Pixels, how: Preprocessing) -> Tensor:
    """(size, size, 3) in 0..255 to (3, size, size) with mean and std applied."""
    ordered = pixels if how.colour == "rgb" else pixels[:, :, ::-1]
    scale, offset = _affine(how)
    return np.ascontiguousarray((ordered * scale - offset).transpose(2, 0, 1))


def colours(tensor: Tensor, how: Preprocessing) -> Tensor:
    """The way back: (size, size, 3) RGB in 0..255 of a tensor, as the gates look at it."""
    scale, offset = _affine(how)
    ordered = (tensor.transpose(1, 2, 0) + offset) / scale
    return ordered if how.colour == "rgb" else ordered[:, :, ::-1]


def _affine(how: Preprocessing) -> tuple[Tensor, Tensor]:
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    return np.float32(1) / (255 * std), mean / std
