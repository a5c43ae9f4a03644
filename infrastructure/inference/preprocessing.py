"""Preprocessing: from the bytes of a file to the tensor of a network. Training, evaluation and inference all use it."""

import hashlib
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domain.values import ImageWarning
from infrastructure.images.reader import open_image
from infrastructure.images.rendering import Plane, Rendering, render
from infrastructure.images.validation import ImageLimits

CODE_VERSION: Final = 2
"""Increased by every change here, in the reader, or in the fitting and operators of packages that can change a tensor.

It is part of each digest.
"""

FILTERS: Final = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}
DEFAULT_LIMITS: Final = ImageLimits()

Pixels = NDArray[np.uint8]
Tensor = NDArray[np.float32]


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All parameters of the tensor. `size` is its width and height in pixels.

    `centre_crop` is the fraction of width and height that is kept. `mean` and `std` apply to values from 0 to 1. `colour_profile`: convert
    colours to sRGB with the embedded profile, or ignore it.
    """

    size: int
    filter: Literal["box", "bilinear"] = "box"
    centre_crop: float = 1.0
    colour: Literal["rgb", "bgr"] = "rgb"
    colour_profile: Literal["srgb", "ignore"] = "ignore"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Prepared(NamedTuple):
    """`tensor` is float32 of shape (3, size, size), C-contiguous. `warnings` lists parts of the file that were ignored or converted."""

    tensor: Tensor
    warnings: tuple[ImageWarning, ...]


def prepare(data: bytes, how: Preprocessing) -> Tensor:
    """The tensor of a JPEG, PNG or TIFF file: of its first plane, as `infrastructure.images.rendering` renders it.

    Raises DamagedImage if any part of the plane cannot be decoded, UnsupportedImage, ImageTooLarge.
    """
    return prepare_with_warnings(data, how).tensor


def prepare_with_warnings(data: bytes, how: Preprocessing, *, limits: ImageLimits = DEFAULT_LIMITS) -> Prepared:
    """The tensor of a file with warnings. Raises as `prepare` does."""
    with open_image(data, limits=limits) as image:
        return prepare_plane(image.plane(), how)


def prepare_plane(plane: Plane, how: Preprocessing) -> Prepared:
    """The tensor of a decoded plane. Raises DamagedImage (no_finite_values)."""
    found = render(plane, use_profile=how.colour_profile == "srgb")
    return Prepared(normalised(resized(Image.fromarray(found.rgb), how), how), found.warnings)


def digest(how: Preprocessing) -> str:
    """SHA-256 in hexadecimal of all fields and the code version. Equal digests mean equal tensors."""
    return hashlib.sha256(msgspec.json.encode({"code": CODE_VERSION, "how": how}, order="sorted")).hexdigest()


def rendered(data: bytes, *, use_profile: bool = False, limits: ImageLimits = DEFAULT_LIMITS) -> Rendering:
    """The first plane as 8-bit RGB, upright. Raises as `prepare` does."""
    with open_image(data, limits=limits) as image:
        return render(image.plane(), use_profile=use_profile)


def decoded(data: bytes) -> Image.Image:
    """The first plane as an 8-bit RGB picture, upright, with colours as stored. Raises as `prepare` does."""
    return Image.fromarray(rendered(data).rgb)


def resized(picture: Image.Image, how: Preprocessing) -> Pixels:
    """The cropped and resized picture, uint8 of shape (size, size, 3). Enlarging always uses the bilinear filter to avoid blocks."""
    width, height = picture.size
    left, top = width * (1 - how.centre_crop) / 2, height * (1 - how.centre_crop) / 2
    enlarges = min(width - 2 * left, height - 2 * top) < how.size
    chosen = Image.Resampling.BILINEAR if enlarges else FILTERS[how.filter]
    return np.asarray(picture.resize((how.size, how.size), chosen, box=(left, top, width - left, height - top)))


def normalised(pixels: Pixels, how: Preprocessing) -> Tensor:
    """The tensor of `pixels`: from (size, size, 3) and 0 to 255, to (3, size, size) with mean and std applied."""
    ordered = pixels if how.colour == "rgb" else pixels[:, :, ::-1]
    scale, offset = _affine(how)
    return np.ascontiguousarray((ordered * scale - offset).transpose(2, 0, 1))


def colours(tensor: Tensor, how: Preprocessing) -> Tensor:
    """The inverse of `normalised`: RGB values from 0 to 255 of shape (size, size, 3), which the gates measure."""
    scale, offset = _affine(how)
    ordered = (tensor.transpose(1, 2, 0) + offset) / scale
    return ordered if how.colour == "rgb" else ordered[:, :, ::-1]


def _affine(how: Preprocessing) -> tuple[Tensor, Tensor]:
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    return np.float32(1) / (255 * std), mean / std
