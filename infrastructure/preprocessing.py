"""From the bytes of an image to the tensor that a network sees: the one path for training, evaluation and serving."""

import hashlib
import io
import logging
import warnings
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from domain.errors import DamagedImage, ImageTooLarge, UnsupportedImage
from infrastructure.imaging.decoding import FAILURES
from infrastructure.imaging.raster import check_whole, upright

CODE_VERSION: Final = 1
"""Raised with every change here that can change a tensor; stands in each digest."""

MAX_PIXELS: Final = 100_000_000
STRETCH: Final = (1.0, 99.8)
STRETCH_SAMPLES: Final = 65_536
FILTERS: Final = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}
SAMPLE_FORMAT: Final = 339
BITS_PER_SAMPLE: Final = 258
PLANAR: Final = 284
SEPARATE: Final = 2
SIGNED: Final = 2
ROWS_AT_ONCE: Final = 256
JPEG_FILL: Final = frozenset({127, 128})
"""What decoders paint where the data of a JPEG ended too early; 127 where the bands are inverted (CMYK)."""

Image.MAX_IMAGE_PIXELS = None  # Pillow would only warn; `_refuse_bomb` asks before anything is unpacked
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong, we raise

Pixels = NDArray[np.uint8]
Tensor = NDArray[np.float32]


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides the tensor. `centre_crop`: the part of width and height that is kept; `mean` and `std`: of values in 0..1."""

    size: int
    filter: Literal["box", "bilinear"] = "box"
    centre_crop: float = 1.0
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


def prepare(data: bytes, how: Preprocessing) -> Tensor:
    """The tensor of an encoded JPEG, PNG or TIFF: float32, (3, size, size), C-contiguous.

    The first page or plane counts. Gray and multi-bit images become RGB; 16-bit, float and signed values are stretched between
    their 1st and 99.8th percentile; transparent pixels lie on white; EXIF orientation is honoured.
    Raises DamagedImage when any part of the picture cannot be decoded, UnsupportedImage, ImageTooLarge.
    """
    return normalised(resized(decoded(data), how), how)


def digest(how: Preprocessing) -> str:
    """Hex sha256 over every field and the version of this code: equal digests mean equal tensors."""
    return hashlib.sha256(msgspec.json.encode({"code": CODE_VERSION, "how": how}, order="sorted")).hexdigest()


def decoded(data: bytes) -> Image.Image:
    """The first page as an 8-bit RGB picture, upright. Raises as `prepare`."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            picture = _upright_rgb(data)
        except FAILURES as error:
            raise _complaint(data) from error
    if any("Truncated" in str(warning.message) for warning in heard):
        raise DamagedImage("The image file points past its own end: it was cut off. Send it again")
    return picture


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


def _upright_rgb(data: bytes) -> Image.Image:
    if not data:
        raise DamagedImage("The image file is empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "TIFF"))
    except UnidentifiedImageError as error:
        if _is_tiff(data):
            return Image.fromarray(_stretched(_plane_by_tifffile(data)))
        raise _unknown(data) from error
    _refuse_bomb(*image.size)
    if _is_beyond_pillow(image):
        return Image.fromarray(_stretched(_plane_by_tifffile(data)))
    if "progressive" in image.info or image.info.get("interlace"):
        check_whole(data)  # without its last part it would just be coarser
    image.load()
    if _looks_unfinished(image):
        check_whole(data)
    return upright(image, _rgb(image))


def _looks_unfinished(image: Image.Image) -> bool:
    """Decoders do not say when a picture's data ends early: what is missing comes out mid-gray (JPEG) or black (PNG)."""
    last = image.getpixel((image.width - 1, image.height - 1))
    bands = set(last) if isinstance(last, tuple) else {last}
    return (image.format in {"JPEG", "MPO"} and bands <= JPEG_FILL) or (image.format == "PNG" and bands == {0})


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_stretched(np.asarray(image)))
    if image.mode == "L" and _sample_format(image) == SIGNED:
        return Image.fromarray(_stretched(np.asarray(image).view(np.int8)))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def _stretched(values: NDArray[Any]) -> Pixels:
    """(height, width) or (height, width, 3) of any number type to RGB 0..255 between two percentiles of a regular sample."""
    sample = values.ravel()[:: max(1, values.size // STRETCH_SAMPLES)].astype(np.float32)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        raise DamagedImage("The image holds no finite pixel value")
    low, high = np.percentile(sample, STRETCH)
    eight_bit = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), ROWS_AT_ONCE):  # in one piece it would take many times the memory of the picture
        numbers = values[top : top + ROWS_AT_ONCE].astype(np.float32)
        scaled = np.nan_to_num((numbers - low) * (255 / max(high - low, 1e-12)), nan=0.0, posinf=255.0, neginf=0.0)
        eight_bit[top : top + ROWS_AT_ONCE] = np.clip(np.rint(scaled), 0, 255)
    return eight_bit if eight_bit.ndim == 3 else np.repeat(eight_bit[:, :, None], 3, axis=2)


def _plane_by_tifffile(data: bytes) -> NDArray[Any]:
    """What Pillow cannot: half and double floats, 32-bit and 16-bit colour. (height, width) or (height, width, 3)."""
    import tifffile  # noqa: PLC0415 - rarely needed, and slow to import

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        _refuse_bomb(page.imagewidth, page.imagelength)
        plane: NDArray[Any] = page.asarray()
        while plane.ndim > 2 and page.axes[0] != "Y" and page.axes[0] != "S":
            plane = plane[0]
        if page.axes.startswith("S"):
            plane = np.moveaxis(plane, 0, -1)
    if plane.ndim == 3:
        plane = plane[:, :, :3] if plane.shape[2] >= 3 else plane[:, :, 0]
    return plane


def _is_beyond_pillow(image: Image.Image) -> bool:
    """Colours of more than 8 bits, which it would cut to 8, and bands of more than 8 bits that are stored apart."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    deep, how = max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))) > 8, image.info.get("compression")
    apart = image.tag_v2.get(PLANAR) == SEPARATE and how == "raw"
    return deep and (apart or (image.mode in {"RGB", "RGBA"} and how in {"raw", "tiff_adobe_deflate", "packbits"}))


def _sample_format(image: Image.Image) -> int:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1
    return int(image.tag_v2.get(SAMPLE_FORMAT, (1,))[0])


def _is_tiff(data: bytes) -> bool:
    return data[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def _unknown(data: bytes) -> DamagedImage | UnsupportedImage:
    if data.startswith((b"\xff\xd8", b"\x89PNG\r\n\x1a\n")):
        return _complaint(data)
    return UnsupportedImage("The file is no JPEG, PNG or TIFF image. These types are taken; a file's name does not change its type")


def _refuse_bomb(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(f"The image claims {width} x {height} pixels; at most {MAX_PIXELS:,} are taken. Crop or shrink it")


def _complaint(data: bytes) -> DamagedImage:
    """What is wrong with bytes that no decoder accepts, in our words."""
    if data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-64:]:
        return DamagedImage("The JPEG file ends before its picture does: it was cut off. Send it again")
    if data.startswith(b"\x89PNG") and b"IEND" not in data[-64:]:
        return DamagedImage("The PNG file ends before its picture does: it was cut off. Send it again")
    return DamagedImage("The image file is damaged: its pixels cannot be decoded. Save or export it again")
