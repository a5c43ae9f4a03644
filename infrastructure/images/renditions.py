"""Encoding of thumbnails and previews."""

import io
from typing import Final

import numpy as np
from PIL import Image

from infrastructure.images.colour import Rgb

THUMBNAIL_EDGE: Final = 256
PREVIEW_EDGE: Final = 2048
JPEG_QUALITY: Final = 95
FULL_CHROMA: Final = 0
SMALL_ROWS_AT_ONCE: Final = 64


def encode(rgb: Rgb, edge: int) -> bytes:
    """A JPEG whose longer edge is at most `edge` pixels. Small pictures are not enlarged; shrinking averages over all pixels."""
    small = _reduced(rgb, max(rgb.shape[:2]) // (2 * edge))
    small.thumbnail((edge, edge), Image.Resampling.BOX)
    buffer = io.BytesIO()
    shown = small.getchannel(0) if _is_grey(small) else small
    shown.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=FULL_CHROMA)
    return buffer.getvalue()


def _reduced(rgb: Rgb, factor: int) -> Image.Image:
    """Shrink by averaging factor x factor pixels, in parts, since doing it at once would need another copy of the picture."""
    if factor < 2:
        return Image.fromarray(rgb)
    rows = factor * SMALL_ROWS_AT_ONCE
    parts = [np.asarray(Image.fromarray(rgb[top : top + rows]).reduce(factor)) for top in range(0, len(rgb), rows)]
    return Image.fromarray(np.concatenate(parts))


def _is_grey(picture: Image.Image) -> bool:
    red, green, blue = (channel.tobytes() for channel in picture.split())
    return red == green == blue
