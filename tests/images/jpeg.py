"""JPEG files from a cell and a `JpegEncoding`, and the loss of compression."""

import struct
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.images.colours import ink, luma, ycbcr
from tests.images.encodings import JpegEncoding
from tests.images.exif import exif
from tests.images.expected import Picture
from tests.images.jpeg_segments import ADOBE, changed, inserted, without
from tests.images.profiles import icc

QUALITY = 95
APP1, APP2 = 0xE1, 0xE2
PILLOW_SUBSAMPLINGS = {(1, 1): 0, (2, 1): 1, (2, 2): 2}
YCCK = 2  # transform code in the Adobe segment


def jpeg_file(held: NDArray[np.uint8], encoding: JpegEncoding) -> tuple[bytes, Picture]:
    """The file, and what it states. `held` (height, width, 3): the cell as the file holds it, turned."""
    data = _compressed(held, encoding)
    match encoding.colour:
        case "cmyk":
            data = without(data, frozenset({ADOBE}))
        case "ycck":
            data = changed(data, ADOBE, lambda segment: segment[:-1] + bytes([YCCK]))
    if encoding.profile != "none":
        data = inserted(data, APP2, b"ICC_PROFILE\0\x01\x01" + icc(encoding.profile))
    if encoding.orientation != 1:
        data = inserted(data, APP1, b"Exif\0\0" + exif(encoding.orientation, encoding.exif_order))
    return data + (phone_trailer() if encoding.trailer else b""), _picture(held, encoding)


def _picture(held: NDArray[np.uint8], encoding: JpegEncoding) -> Picture:
    if encoding.colour == "grey":
        return Picture(colour="grey", samples=_grey(held), bits=8)
    return Picture(colour="rgb", samples=held, bits=8, profile=encoding.profile)


def _grey(held: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(luma(held) * 255).astype(np.uint8)


def loss(held: NDArray[np.uint8], mode: str, subsampling: tuple[int, int]) -> float:
    """The mean absolute error, of 255, of `held` (height, width, 3) after compression. `mode`: L, RGB (kept so) or YCbCr."""
    pixels = Image.fromarray(held).convert("L" if mode == "L" else "RGB")
    file = _saved(pixels, subsampling=PILLOW_SUBSAMPLINGS[subsampling], keep_rgb=mode == "RGB")
    with Image.open(BytesIO(file)) as coded:
        return float(np.abs(np.asarray(coded, np.int16) - np.asarray(pixels, np.int16)).mean())


def _compressed(held: NDArray[np.uint8], encoding: JpegEncoding) -> bytes:
    """With an Adobe segment where there are four components."""
    return _saved(
        Image.fromarray(*_components(held, encoding)),
        subsampling=PILLOW_SUBSAMPLINGS[encoding.subsampling],
        keep_rgb=encoding.colour == "rgb",
        progressive=encoding.progressive,
        restart_marker_blocks=encoding.restart,
    )


def _saved(picture: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, **options)
    return file.getvalue()


def _components(held: NDArray[np.uint8], encoding: JpegEncoding) -> tuple[NDArray[np.uint8], str]:
    """As Pillow takes them, and their mode. Of four components it stores 255 minus each."""
    match encoding.colour:
        case "grey":
            return _grey(held)[..., 0], "L"
        case "ycbcr" | "rgb":
            return np.ascontiguousarray(held), "RGB"
    inks = np.rint(ink(held) * 255).astype(np.uint8)
    match encoding.colour:
        case "adobe cmyk":
            return inks, "CMYK"
        case "cmyk":
            return 255 - inks, "CMYK"
        case _:
            colours = np.rint(ycbcr(inks[..., :3])).astype(np.uint8)
            return np.concatenate((255 - colours, inks[..., 3:]), axis=2), "CMYK"


def phone_trailer() -> bytes:
    """What a Samsung phone appends: one field (the time), then an index of the fields that ends with its own length."""
    name, value = b"Image_UTC_Data", b"1668000000000"
    field = struct.pack("<HHI", 0, 0x0A01, len(name)) + name + value
    index = b"SEFH" + struct.pack("<IIHHII", 106, 1, 0, 0x0A01, len(field), len(field))
    return field + index + struct.pack("<I", len(index)) + b"SEFT"
