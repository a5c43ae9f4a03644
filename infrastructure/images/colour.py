"""Conversion of colours to RGB: CMYK, YCbCr, palettes, embedded profiles, transparency."""

import io
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from infrastructure.images.validation.ycbcr import YcbcrConversion

Rgb = NDArray[np.uint8]
"""RGB pixels: (height, width, 3), 8 bits."""

ROWS_AT_ONCE: Final = 256
MAX_PROFILE_BYTES: Final = 4 << 20
PROFILE_MODES: Final = {"RGB ": "RGB", "CMYK": "CMYK"}
WHITE: Final = 255
MAX_SRGB_DIFFERENCE: Final = 2


def from_cmyk(inks: NDArray[np.uint8]) -> Rgb:
    """Convert CMYK without a profile: (height, width, 4) with 255 as full ink. Each ink absorbs its share of the light."""
    rgb = np.empty((*inks.shape[:2], 3), np.uint8)
    for rows in _rows(len(inks)):
        light = 255 - inks[rows].astype(np.uint16)
        rgb[rows] = (light[:, :, :3] * light[:, :, 3:] + 127) // 255
    return rgb


def from_ycbcr(values: NDArray[np.uint8], conversion: YcbcrConversion) -> Rgb:
    """Convert YCbCr of shape (height, width, 3) as TIFF 6.0, section 21, defines it."""
    (red, green, blue), (black, white, no_blue, full_blue, no_red, full_red) = conversion.luma, conversion.reference
    rgb = np.empty(values.shape, np.uint8)
    for rows in _rows(len(values)):
        part = values[rows].astype(np.float32)
        luma = (part[:, :, 0] - black) * (255 / (white - black))
        more_blue = (part[:, :, 1] - no_blue) * (127 / (full_blue - no_blue)) * (2 - 2 * blue)
        more_red = (part[:, :, 2] - no_red) * (127 / (full_red - no_red)) * (2 - 2 * red)
        mixed = np.stack([luma + more_red, luma - (more_red * red + more_blue * blue) / green, luma + more_blue], axis=2)
        rgb[rows] = np.clip(np.rint(mixed), 0, 255)
    return rgb


def from_palette(indices: NDArray[np.uint8], colour_map: NDArray[np.uint16]) -> Rgb:
    """Look up palette indices. `colour_map` is (3, n) in 16 bits, or in 8 bits if all values are below 256, as many programs write it."""
    full = 255 if colour_map.max(initial=0) < 256 else 65535
    colours = ((colour_map.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8).T
    return np.ascontiguousarray(colours)[indices]


def on_white(rgb: Rgb, alpha: NDArray[Any], *, full: float, associated: bool, out: Rgb) -> Rgb:
    """Composite on white into `out`, which may be `rgb`.

    `alpha` is (height, width) from 0 to `full`; NaN is opaque. `associated`: the colours are premultiplied by alpha.
    """
    for rows in _rows(len(rgb)):
        if (alpha[rows] >= full).all():
            out[rows] = rgb[rows]
            continue
        opacity = np.clip(np.nan_to_num(alpha[rows].astype(np.float32) / full, nan=1.0), 0, 1)[:, :, None]
        colours = rgb[rows].astype(np.float32)
        mixed = (colours if associated else colours * opacity) + WHITE * (1 - opacity)
        out[rows] = np.clip(np.rint(mixed), 0, WHITE)
    return out


def profile_mode(profile: bytes) -> str | None:
    """The Pillow mode (RGB or CMYK) of an ICC profile; None for other colours and for unusable profiles."""
    opened = _opened(profile)
    try:
        return PROFILE_MODES.get(opened.profile.xcolor_space) if opened else None
    except UnicodeDecodeError:  # the name of the colour space is not a text
        return None


def to_srgb(pixels: NDArray[np.uint8], profile: bytes) -> Rgb | None:
    """Convert (height, width, 3 or 4) from the colours of `profile` to sRGB; None if the profile is unusable."""
    transform = _transform(profile)
    if transform is None:
        return None
    mode = "RGB" if pixels.shape[2] == 3 else "CMYK"
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in _rows(len(pixels)):
        rgb[rows] = np.asarray(ImageCms.applyTransform(Image.fromarray(pixels[rows], mode), transform))
    return rgb


def describes_srgb(profile: bytes) -> bool:
    """Whether the profile equals sRGB within 2 of 255 levels, so that no conversion is needed."""
    levels = np.array([0, 64, 128, 192, 255], np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    if profile_mode(profile) != "RGB":
        return False
    converted = to_srgb(cube, profile)
    return converted is not None and int(np.abs(converted.astype(int) - cube).max()) <= MAX_SRGB_DIFFERENCE


def _rows(height: int) -> list[slice]:
    """Slices of rows, because converting all rows at once would need many times the memory of the picture."""
    return [slice(top, top + ROWS_AT_ONCE) for top in range(0, height, ROWS_AT_ONCE)]


@lru_cache(8)
def _opened(profile: bytes) -> ImageCms.ImageCmsProfile | None:
    if not 128 <= len(profile) <= MAX_PROFILE_BYTES:
        return None
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, TypeError, ValueError):
        return None


@lru_cache(8)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    opened, mode = _opened(profile), profile_mode(profile)
    if opened is None or mode is None:
        return None
    try:
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
