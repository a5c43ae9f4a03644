"""From decoded pixels of any kind to 8-bit pictures that a browser shows."""

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MEDIA_TYPE: Final = "image/jpeg"
THUMBNAIL_EDGE: Final = 256
PREVIEW_EDGE: Final = 2048
QUALITY: Final = 85
STRETCH: Final = (1.0, 99.8)
STRETCH_SAMPLES: Final = 65_536
WORKING_EDGE: Final = 2 * PREVIEW_EDGE


def step(width: int, height: int) -> int:
    """Every how many pixels one is needed for a preview."""
    return max(1, -(-max(width, height) // WORKING_EDGE))


def encoded(picture: Image.Image, edge: int) -> bytes:
    """A JPEG whose longer edge is at most `edge`, of an L or RGB picture. Never enlarged."""
    small = picture.copy()
    small.thumbnail((edge, edge), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def shown(picture: Image.Image, *, signed: bool = False) -> Image.Image:
    """L or RGB with 8 bits, of a picture in any of Pillow's modes; transparent pixels lie on white. `signed`: 8-bit values are int8."""
    small = _thinned(picture)
    if small.mode.startswith(("I", "F")):
        return stretched(np.asarray(small))
    if small.mode == "L":
        return stretched(np.asarray(small).view(np.int8)) if signed else small
    if small.has_transparency_data:
        layered = small.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return small if small.mode == "RGB" else small.convert("RGB")


def stretched(values: NDArray[Any]) -> Image.Image:
    """(height, width) or (height, width, 3) of any number type, from its 1st to its 99.8th percentile; all black without a finite value."""
    numbers = values.astype(np.float32)
    sample = numbers.ravel()[:: max(1, numbers.size // STRETCH_SAMPLES)]
    finite = sample[np.isfinite(sample)]
    low, high = np.percentile(finite, STRETCH) if finite.size else (0.0, 1.0)
    numbers -= np.float32(low)
    numbers *= np.float32(255 / max(high - low, 1e-12))
    np.nan_to_num(numbers, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return Image.fromarray(np.clip(np.rint(numbers, out=numbers), 0, 255, out=numbers).astype(np.uint8))


def _thinned(picture: Image.Image) -> Image.Image:
    every = step(*picture.size)
    if every == 1:
        return picture
    if picture.mode.startswith("I;"):
        return Image.fromarray(np.asarray(picture)[::every, ::every].astype(np.int32))
    if picture.mode in {"P", "1", "PA", "La", "LA"}:
        return picture.resize((-(-picture.width // every), -(-picture.height // every)), Image.Resampling.NEAREST)
    return picture.reduce(every)
