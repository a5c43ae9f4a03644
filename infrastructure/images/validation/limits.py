"""The header of an image before decoding, and the size limits."""

from typing import Final

import msgspec

from domain.errors import DamagedImage, ImageTooLarge

RGB_BANDS: Final = 3


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The maximum sizes and numbers of one image.

    `pixels` and `bands` apply to each page. `directories` counts TIFF pages and pyramid levels. `parts` counts the segments of a JPEG (of
    all JPEGs in a TIFF) or the chunks of a PNG. `tags` and `blocks` (strips, tiles) are totals of a TIFF. `scans` are the passes of one
    JPEG. `unpacked_bytes` is the decoded size of all pages, `decoding_bytes` the memory for decoding one plane. `padding` is the maximum
    after the end of a picture, `metadata_bytes` the longest text that is read.
    """

    pixels: int = 100_000_000
    bands: int = 32
    pages: int = 256
    directories: int = 1024
    parts: int = 100_000
    tags: int = 65_536
    blocks: int = 1_048_576
    scans: int = 64
    unpacked_bytes: int = 1 << 30
    decoding_bytes: int = 880 << 20
    padding: int = 65_536
    metadata_bytes: int = 4 << 20


class ImageHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file's header. `bands` per decoded pixel (3 for a palette), `bits` per band, `pages` >= 1."""

    media_type: str
    width: int
    height: int
    bands: int
    bits: int
    pages: int = 1


def check_size(width: int, height: int, bands: int, limits: ImageLimits) -> None:
    """Raises DamagedImage (zero_size) or ImageTooLarge (too_many_pixels, too_many_bands)."""
    if width < 1 or height < 1 or bands < 1:
        raise DamagedImage(
            f"The image has a size of {width} x {height} pixels, so it contains no picture. Export it again", reason="zero_size"
        )
    if width * height > limits.pixels:
        raise ImageTooLarge(
            f"The image has {width} x {height} pixels; at most {limits.pixels:,} are allowed. Crop it or scale it down",
            reason="too_many_pixels",
        )
    if bands > limits.bands:
        raise ImageTooLarge(
            f"The image has {bands} bands; at most {limits.bands} are allowed. Save the channels as separate pages", reason="too_many_bands"
        )


def check_unpacked(size: int, limits: ImageLimits) -> None:
    """Check the decoded size of all pages in bytes. Raises ImageTooLarge (too_many_pixels)."""
    if size > limits.unpacked_bytes:
        raise ImageTooLarge(
            f"The image decodes to {size >> 20:,} MiB; at most {limits.unpacked_bytes >> 20:,} MiB are allowed. Send fewer pages",
            reason="too_many_pixels",
        )


def check_memory(pixels: int, bands: int, bits: int, limits: ImageLimits, *, block: int = 0) -> None:
    """Check that one plane with `bands` bands can be decoded and rendered within the memory of a decoder.

    `block` is the size in bytes of the largest block, which is in memory twice while its predictor is undone. Raises ImageTooLarge
    (too_much_memory).
    """
    depth = max(8, bits) // 8
    in_8_bits = bands if depth > 1 else 0
    needed = pixels * bands * depth + max(2 * block, pixels * (in_8_bits + RGB_BANDS))
    if needed > limits.decoding_bytes:
        raise ImageTooLarge(
            f"Decoding this image needs {needed >> 20:,} MiB; at most {limits.decoding_bytes >> 20:,} MiB are available."
            " Save it in smaller tiles or strips (TIFF), not progressive (JPEG), with fewer bits, or smaller",
            reason="too_much_memory",
        )


def too_many_parts() -> ImageTooLarge:
    return ImageTooLarge("The image file has too many small parts. Export it again with default settings", reason="too_many_parts")


def incomplete(kind: str) -> DamagedImage:
    return DamagedImage(f"The {kind} file is damaged: a part of its picture is missing. Save or export it again", reason="incomplete")


def cut_off(kind: str) -> DamagedImage:
    return DamagedImage(f"The {kind} file ends before its picture does: it is incomplete. Send it again", reason="truncated")
