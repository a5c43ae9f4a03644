"""Rendering of a plane as 8-bit RGB, the same for people and models.

Grey of up to 8 bits and colours of 8 bits are not changed. Colours with more bits are scaled by the bit depth that they use, which keeps
their balance. All other values are stretched between two percentiles.
"""

from enum import Enum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.errors import DamagedImage
from domain.values import ImageWarning
from infrastructure.images.colour import ROWS_AT_ONCE, Rgb, describes_srgb, from_cmyk, on_white, profile_mode, to_srgb

STRETCH_PERCENTILES: Final = (1.0, 99.8)
MAX_SAMPLE: Final = 1 << 16
"""Number of values for the estimate of percentiles: all values up to 256 x 256, a random sample of larger planes."""
SAMPLE_SEED: Final = 0
BIT_DEPTHS: Final = (8, 10, 12, 14, 16)
FLOAT_SCALES: Final = (1.0, *(2.0**bits - 1 for bits in BIT_DEPTHS))
SMALLEST_RANGE: Final = 1e-12
GREY_PROFILE_IGNORED: Final = (
    ImageWarning("colour_profile_ignored", "The embedded profile of a grey image is not used: its values count as stored"),
)


class Colours(Enum):
    GREY = "grey"
    RGB = "RGB"
    CMYK = "CMYK"


class Plane(NamedTuple):
    """One plane of an image: upright, with black as zero.

    `pixels` is (height, width, 1, 3 or 4) in the stored type and native byte order; `bits` is the maximum number of bits per value.
    `alpha` is (height, width), opaque at the maximum of its type; `associated`: colours are premultiplied. `profile` is the embedded ICC
    profile, or empty. `warnings` lists parts of the file that were ignored or assumed.
    """

    pixels: NDArray[Any]
    colours: Colours
    bits: int
    alpha: NDArray[Any] | None = None
    associated: bool = False
    profile: bytes = b""
    warnings: tuple[ImageWarning, ...] = ()


class Rendering(NamedTuple):
    """A rendered plane: (height, width, 3) in 8 bits, with warnings about anything ignored, assumed or converted."""

    rgb: Rgb
    warnings: tuple[ImageWarning, ...]


def render(plane: Plane, *, use_profile: bool = True) -> Rendering:
    """Render a plane as 8-bit RGB. Colours are converted to sRGB with the embedded profile unless `use_profile` is False.

    Raises DamagedImage (no_finite_values).
    """
    eight_bit, scaled = _in_8_bits(plane)
    rgb, converted = _as_rgb(eight_bit, plane, use_profile=use_profile)
    transparent: tuple[ImageWarning, ...] = ()
    if plane.alpha is not None and (plane.alpha < (full := _full_alpha(plane.alpha))).any():
        out = np.empty_like(rgb) if np.may_share_memory(rgb, plane.pixels) else rgb  # avoids another copy of a large picture
        rgb = on_white(rgb, plane.alpha, full=full, associated=plane.associated, out=out)
        transparent = (ImageWarning("transparency_on_white", "Transparent pixels are shown and classified on white"),)
    return Rendering(np.ascontiguousarray(rgb), (*plane.warnings, *scaled, *converted, *transparent))


def _full_alpha(alpha: NDArray[Any]) -> float:
    return 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)


def _in_8_bits(plane: Plane) -> tuple[NDArray[np.uint8], tuple[ImageWarning, ...]]:
    pixels = plane.pixels
    if pixels.dtype == np.uint8:
        full = 2**plane.bits - 1
        return (pixels if full == 255 else pixels * np.uint8(255 // full)), ()
    sample = _sample(pixels)
    finite = sample[np.isfinite(sample)]
    low, high, what = _range(plane, finite)
    if finite.size < sample.size:
        share = 1 - finite.size / sample.size
        what += (ImageWarning("non_finite_values", f"{share:.1%} of the numbers are not finite and are shown black or white"),)
    return _scaled(pixels, low, high), what


def _scaled(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale values to 8 bits: `low` becomes 0, `high` 255, NaN 0."""
    eight_bit = np.empty(pixels.shape, np.uint8)
    unsigned = np.dtype(f"uint{8 * pixels.dtype.itemsize}")
    table = None
    if pixels.dtype.kind in "iu":
        table = _scaled_floats(np.arange(2 ** (8 * pixels.dtype.itemsize)).astype(unsigned).view(pixels.dtype), low, high)
    for top in range(0, len(pixels), ROWS_AT_ONCE):  # all rows at once would need many times the memory of the plane
        rows = pixels[top : top + ROWS_AT_ONCE]
        eight_bit[top : top + ROWS_AT_ONCE] = _scaled_floats(rows, low, high) if table is None else table[rows.view(unsigned)]
    return eight_bit


def _scaled_floats(numbers: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (numbers.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, SMALLEST_RANGE))
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    eight_bit: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return eight_bit


def _range(plane: Plane, sample: NDArray[np.float32]) -> tuple[float, float, tuple[ImageWarning, ...]]:
    """The values that become black and white, with a warning."""
    if not sample.size:
        raise DamagedImage("The image contains no finite number, so nothing can be displayed. Export it again", reason="no_finite_values")
    low, high = (float(it) for it in np.percentile(sample, STRETCH_PERCENTILES))
    if plane.colours is not Colours.GREY and (full := _full_scale(plane.pixels.dtype, low, high)):
        if full == 65535 and plane.pixels.dtype == np.uint16:
            return 0.0, full, ()
        detail = f"Colours are scaled from 0 to {full:g} to 8 bits"
        return 0.0, full, (ImageWarning("values_scaled", detail),)
    detail = (
        f"Values of type {plane.pixels.dtype} are stretched from {low:.6g} (1st percentile) to {high:.6g} (99.8th percentile) to 8 bits"
    )
    return low, high, (ImageWarning("values_scaled", detail),)


def _full_scale(dtype: np.dtype[Any], low: float, high: float) -> float | None:
    """The value of full brightness: that of the smallest bit depth that contains nearly all values; None if there is none."""
    if dtype.kind == "u":
        return next(2.0**bits - 1 for bits in BIT_DEPTHS if high < 2**bits)
    if dtype.kind == "f" and low >= 0:
        return next((full for full in FLOAT_SCALES if high <= float(dtype.type(full))), None)  # 4095 is rounded to 4096 in float16
    return None


def _sample(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """At most MAX_SAMPLE values, chosen uniformly at random, so that no row or column is preferred."""
    if pixels.size > MAX_SAMPLE:
        random = np.random.default_rng(SAMPLE_SEED)
        pixels = pixels[tuple(random.integers(0, length, MAX_SAMPLE) for length in pixels.shape)]
    return pixels.astype(np.float32).reshape(-1)


def _as_rgb(pixels: NDArray[np.uint8], plane: Plane, *, use_profile: bool) -> tuple[Rgb, tuple[ImageWarning, ...]]:
    if plane.colours is Colours.GREY:
        return np.repeat(pixels, 3, axis=2), (GREY_PROFILE_IGNORED if plane.profile else ())
    plain = pixels if plane.colours is Colours.RGB else None
    if not plane.profile or describes_srgb(plane.profile):
        return (from_cmyk(pixels) if plain is None else plain), ()
    fits = profile_mode(plane.profile) == plane.colours.value
    converted = to_srgb(pixels, plane.profile) if use_profile and fits else None
    if converted is not None:
        return converted, (ImageWarning("colour_profile_converted", "Colours are converted to sRGB by the embedded profile"),)
    why = "the model asks for colours as stored" if use_profile is False else "it does not fit the image or cannot be read"
    ignored = ImageWarning("colour_profile_ignored", f"The embedded colour profile is not used: {why}")
    return (from_cmyk(pixels) if plain is None else plain), (ignored,)
