"""The small pictures of an image that browsers show."""

import io
from typing import Final

import numpy as np
from PIL import Image

from infrastructure.images.colour import Rgb

MEDIA_TYPE: Final = "image/jpeg"
THUMBNAIL_EDGE: Final = 256
PREVIEW_EDGE: Final = 2048
JPEG_QUALITY: Final = 90
FULL_CHROMA: Final = 0
GREY_BANDS_ALIKE: Final = 1


def encode(rgb: Rgb, edge: int) -> bytes:
    """A JPEG whose longer edge is at most `edge` pixels. Never enlarged. Shrinking averages over all pixels."""
    height, width = rgb.shape[:2]
    factor = max(1, max(width, height) // (2 * edge))
    small = Image.fromarray(_averaged(rgb, factor))
    small.thumbnail((edge, edge), Image.Resampling.BOX)
    if _is_grey(small):
        small = small.getchannel(0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=FULL_CHROMA)
    return buffer.getvalue()


def _averaged(rgb: Rgb, factor: int) -> Rgb:
    """Each pixel the mean of factor x factor pixels; those at the right and lower edge that fill no whole square are left out."""
    if factor == 1:
        return rgb
    height, width = (max(1, length // factor) for length in rgb.shape[:2])
    across, down = min(factor, rgb.shape[1]), min(factor, rgb.shape[0])
    small = np.empty((height, width, 3), np.uint8)
    for row in range(height):  # in one piece it would take many times the memory of the picture
        square = rgb[row * down : (row + 1) * down, : width * across].reshape(down, width, across, 3)
        small[row] = (square.sum(axis=(0, 2), dtype=np.uint32) + down * across // 2) // (down * across)
    return small


def _is_grey(picture: Image.Image) -> bool:
    red, green, blue = (channel.tobytes() for channel in picture.split())
    return red == green == blue
