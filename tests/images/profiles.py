"""ICC profiles to embed: sRGB, and a wide-gamut one whose conversion changes colours visibly."""

import struct
from functools import cache
from io import BytesIO
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.images.encodings import Profile

WHITE = (0.9642, 1.0, 0.8249)  # D50, the white of all profiles
WIDE_PRIMARIES = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7445))
"""XYZ of red, green and blue, adapted to D50; they add up to white. Close to those of Adobe RGB (1998)."""
GAMMA = 563  # 2 + 51 / 256 as u8Fixed8


@cache
def icc(profile: Profile) -> bytes:
    """Empty for "none"."""
    match profile:
        case "none":
            return b""
        case "sRGB":
            return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        case "wide":
            return matrix_profile()


def to_srgb(pixels: NDArray[np.uint8], profile: Profile) -> NDArray[np.uint8]:
    """(height, width, 3)."""
    converted = ImageCms.applyTransform(Image.fromarray(pixels), _transform(profile))
    assert converted is not None
    return np.asarray(converted)


@cache
def _transform(profile: Profile) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(BytesIO(icc(profile)))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", ImageCms.Intent.PERCEPTUAL)


def matrix_profile() -> bytes:
    """A display profile of version 2.1 with three primaries and one gamma (ICC.1:2001-04)."""
    curve = b"curv" + struct.pack(">IIH2x", 0, 1, GAMMA)
    description = b"Wide gamut\0"
    elements = {
        b"desc": b"desc" + struct.pack(">II", 0, len(description)) + description + bytes(78),
        b"cprt": b"text" + bytes(4) + b"No rights reserved\0",
        b"wtpt": _xyz(WHITE),
        **{name: _xyz(primary) for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), WIDE_PRIMARIES, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    padded = {name: body + bytes(-len(body) % 4) for name, body in elements.items()}
    first = 128 + 4 + 12 * len(elements)
    starts = accumulate((len(body) for body in padded.values()), initial=first)
    index = b"".join(name + struct.pack(">II", at, len(elements[name])) for name, at in zip(padded, starts, strict=False))
    body = struct.pack(">I", len(elements)) + index + b"".join(padded.values())
    return _header(128 + len(body)) + body


def _header(size: int) -> bytes:
    created = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    start = struct.pack(">I4sI", size, b"none", 0x02100000) + b"mntrRGB XYZ " + created + b"acsp"
    return start + bytes(68 - len(start)) + _fixed(WHITE) + bytes(48)


def _xyz(colour: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(colour)


def _fixed(numbers: tuple[float, ...]) -> bytes:
    """s15Fixed16."""
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))
