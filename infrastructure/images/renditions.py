"""The small pictures of an image that browsers show."""

import io
from typing import Final

from PIL import Image

from infrastructure.images.colour import Rgb

MEDIA_TYPE: Final = "image/jpeg"
THUMBNAIL_EDGE: Final = 256
PREVIEW_EDGE: Final = 2048
JPEG_QUALITY: Final = 95
FULL_CHROMA: Final = 0


def encode(rgb: Rgb, edge: int) -> bytes:
    """A JPEG whose longer edge is at most `edge` pixels. Never enlarged. Shrinking averages over all pixels."""
    picture = Image.fromarray(rgb)
    factor = max(picture.size) // (2 * edge)
    small = picture.reduce(factor) if factor > 1 else picture
    small.thumbnail((edge, edge), Image.Resampling.BOX)
    buffer = io.BytesIO()
    shown = small.getchannel(0) if _is_grey(small) else small
    shown.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=FULL_CHROMA)
    return buffer.getvalue()


def _is_grey(picture: Image.Image) -> bool:
    red, green, blue = (channel.tobytes() for channel in picture.split())
    return red == green == blue
