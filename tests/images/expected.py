"""The pixels that a file means: the specification of the product's reader, implemented independently of it.

 1. A picture is shown upright after its orientation, as RGB with 8 bits (height, width, 3). Grey is repeated into three equal bands.
 2. Grey with unsigned 1 to 8 bits: value * 255 / (2**bits - 1), rounded.
 3. Grey with more bits, signed or float: stretched between the 1st and the 99.8th percentile of its finite values, over all pixels of
    the plane (`numpy.percentile`): rint((value - low) * 255 / (high - low)), clipped to 0..255. NaN and -inf become 0, +inf 255.
    White-is-zero is resolved before: unsigned full - value, signed -1 - value, float -value.
 4. RGB and CMYK, unsigned with more than 8 bits: linear. Full scale is 2**bits - 1 of the fewest bits of 8, 10, 12, 14, 16 that hold the
    99.8th percentile of all colour samples of the plane, without alpha. Values above are clipped. An sBIT chunk changes nothing.
 5. Float RGB: full scale is the smallest of 1, 255, 1023, 4095, 16383, 65535 that holds the 99.8th percentile of the finite values, if
    the 1st percentile is not negative; values outside are clipped. Else, and for signed integers, all bands are stretched together as
    in rule 3.
 6. Palette: the map's values / 65535; a map whose values are all below 256 holds 8-bit values. PNG palettes have 8 bits.
 7. CMYK without a profile: R = (1 - C) * (1 - K), and so on.
 8. YCbCr: ITU-R BT.601 as in JFIF (the defaults of YCbCrCoefficients and ReferenceBlackWhite in TIFF 6.0); chroma is repeated.
 9. Alpha: composited over white. Associated alpha has been multiplied already: colour + (1 - alpha) * 255, clipped. Alpha's full scale
    is that of its number type, 2**bits - 1, whatever the colours use of it.
10. An RGB profile is converted to sRGB, perceptual intent, after rules 4 and 6 and before rule 9.
11. Of several planes the first (C = 0, Z = 0, T = 0) is shown.

Warnings: `values_scaled` (rules 3 and 5, and rule 4 with less than 16 bits), `transparency_on_white` (rule 9), `colour_profile_converted`
(rule 10; a profile of sRGB itself changes nothing, and gives no warning).
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.images.encodings import Colour, Profile
from tests.images.profiles import to_srgb

UNSIGNED_BITS = (8, 10, 12, 14, 16)
FLOAT_SCALES = (1, 255, 1023, 4095, 16383, 65535)
LOW, HIGH = 1.0, 99.8  # percentiles


class Alpha(msgspec.Struct, frozen=True):
    """`values` (height, width), unsigned; `full` means opaque."""

    values: NDArray
    full: int
    associated: bool = False


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What a file states of one plane. `samples` (height, width, colours) in their number type, for a palette the indices; `bits` of
    each; `palette` (entries, 3) as in the file, `palette_full` is its white."""

    colour: Colour
    samples: NDArray
    bits: int
    white_is_zero: bool = False
    palette: NDArray | None = None
    palette_full: int = 255
    alpha: Alpha | None = None
    profile: Profile = "none"


class Rendering(msgspec.Struct, frozen=True):
    """`pixels` (height, width, 3), uint8."""

    pixels: NDArray[np.uint8]
    warnings: frozenset[str]


def rendered(picture: Picture) -> Rendering:
    """The plane as it is stored, before its orientation is applied."""
    colours, warnings = _colours(picture)
    if picture.profile != "none":
        colours = to_srgb(colours, picture.profile)
        warnings |= {"colour_profile_converted"} if picture.profile == "wide" else set()
    if picture.alpha is not None:
        colours = _on_white(colours, picture.alpha)
        warnings |= {"transparency_on_white"}
    return Rendering(colours, frozenset(warnings))


def _colours(picture: Picture) -> tuple[NDArray[np.uint8], set[str]]:
    match picture.colour:
        case "grey":
            values, warnings = _grey(picture)
            return values.repeat(3, axis=2), warnings
        case "palette":
            assert picture.palette is not None
            return _rounded(picture.palette * (255 / picture.palette_full))[picture.samples[..., 0]], set()
        case "ycbcr":
            return from_ycbcr(picture.samples), set()
        case _:
            values, warnings = _scaled(picture)
            return (from_cmyk(values) if picture.colour == "cmyk" else _rounded(values * 255)), warnings


def _grey(picture: Picture) -> tuple[NDArray[np.uint8], set[str]]:
    values = _black_is_zero(picture) if picture.white_is_zero else picture.samples
    if values.dtype.kind == "u" and picture.bits <= 8:
        return _rounded(values * (255 / (2**picture.bits - 1))), set()
    return _rounded(_stretched(values) * 255), {"values_scaled"}


def _black_is_zero(picture: Picture) -> NDArray:
    match picture.samples.dtype.kind:
        case "u":
            return (2**picture.bits - 1) - picture.samples
        case "i":
            return -1 - picture.samples
        case _:
            return -picture.samples


def _scaled(picture: Picture) -> tuple[NDArray[np.float64], set[str]]:
    """0 to 1."""
    samples = picture.samples
    if picture.bits == 8 and samples.dtype.kind == "u":
        return samples / 255, set()
    if samples.dtype.kind == "i":
        return _stretched(samples), {"values_scaled"}
    low, high = np.percentile(samples[np.isfinite(samples)].astype(np.float64), (LOW, HIGH))
    if samples.dtype.kind == "u":
        bits = next(bits for bits in UNSIGNED_BITS if high <= 2**bits - 1)
        return np.clip(samples / (2**bits - 1), 0, 1), {"values_scaled"} if bits < 16 else set()
    if low < 0:
        return _stretched(samples), {"values_scaled"}
    return np.clip(samples / np.float64(next(full for full in FLOAT_SCALES if high <= full)), 0, 1), {"values_scaled"}


def _stretched(samples: NDArray) -> NDArray[np.float64]:
    """0 to 1."""
    values = samples.astype(np.float64)
    low, high = np.percentile(values[np.isfinite(values)], (LOW, HIGH))
    return np.nan_to_num(np.clip((values - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1), nan=0.0)


def from_cmyk(ink: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`ink` (height, width, 4), 0 to 1."""
    return _rounded((1 - ink[..., :3]) * (1 - ink[..., 3:]) * 255)


def from_ycbcr(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(height, width, 3), full range."""
    luma, blue, red = np.moveaxis(samples.astype(np.float64), 2, 0)
    blue, red = blue - 128, red - 128
    green = luma - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    return _rounded(np.stack((luma + 1.402 * red, green, luma + 1.772 * blue), axis=2))


def _on_white(colours: NDArray[np.uint8], alpha: Alpha) -> NDArray[np.uint8]:
    opacity = (alpha.values / alpha.full)[..., np.newaxis]
    return _rounded((colours if alpha.associated else colours * opacity) + (1 - opacity) * 255)


def _rounded(values: NDArray) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
