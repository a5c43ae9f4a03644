"""The inspection of images: every pixel is decoded once, the facts are noted, and pictures that a browser shows are made.

Meant for a process whose memory is limited: 1 GiB of address space is enough for every image that the limits let through, but for those
that need a too large piece at once (`block_bytes`), which are refused with that reason.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from domain.errors import ImageTooLarge
from infrastructure.imaging import metadata, raster, stacks
from infrastructure.imaging.renditions import MEDIA_TYPE, PREVIEW_EDGE, THUMBNAIL_EDGE, encoded
from infrastructure.upload_gate import ImageLimits, Sniffed, UploadGate, examine

__all__ = ["MEDIA_TYPE", "PREVIEW_EDGE", "THUMBNAIL_EDGE", "Inspection", "inspect"]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What an image is, once all of it has been decoded.

    `width`, `height` in pixels as stored, `bands` per pixel (a palette gives 3) of the first page; `dtype` numpy's name of a band's
    numbers; `pages` those of the main chain; `axes` of the first picture, slowest first, as OME names them: T, Z, C, Y, X, S for bands,
    and I for pages of unknown meaning. `pixel_size_um` is the edge of a pixel in micrometres, `magnification` that of the objective,
    `acquired_with` the microscope, camera or program: each where the file tells it. `thumbnail` (edges <= 256) and `preview` (<= 2048)
    are of `MEDIA_TYPE`, upright, 8 bits, and show the first page; there is no preview when browsers show the original.
    """

    media_type: str
    width: int
    height: int
    bands: int
    dtype: str
    pages: int
    axes: str
    pixel_size_um: float | None = None
    magnification: float | None = None
    acquired_with: str | None = None
    thumbnail: bytes
    preview: bytes | None = None


def inspect(data: bytes | Path, *, limits: ImageLimits) -> Inspection:
    """Decode an image with all its pages. The levels of a pyramid are only checked in their structure, as they repeat a page.

    Raises, each with a `reason`: what the gate raises, and DamagedImage (decode_failed, incomplete, unsafe_metadata,
    metadata_too_large), ImageTooLarge (too_much_memory), UnsupportedImage (unsupported_layout).
    """
    try:
        with _opened(data) as file:
            sniffed, gate = examine(file, limits=limits)
            return _stack(file, sniffed, gate, limits) if gate.pages else _raster(file, sniffed, gate)
    except MemoryError as error:
        raise ImageTooLarge(
            "Decoding this image takes more memory than is given. Scale it down or crop it", reason="too_much_memory"
        ) from error


@contextmanager
def _opened(data: bytes | Path) -> Iterator[BinaryIO]:
    with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as file:
        yield file


def _raster(file: BinaryIO, sniffed: Sniffed, gate: UploadGate) -> Inspection:
    shown_by_browsers = sniffed.bits == 8
    picture = raster.decoded(file, sniffed, gate.scan_end, edge=THUMBNAIL_EDGE if shown_by_browsers else PREVIEW_EDGE)
    return Inspection(
        media_type=sniffed.media_type,
        width=sniffed.width,
        height=sniffed.height,
        bands=sniffed.bands,
        dtype=f"uint{sniffed.bits}",
        pages=1,
        axes="YXS" if sniffed.bands > 1 else "YX",
        acquired_with=metadata.camera(picture),
        thumbnail=encoded(picture, THUMBNAIL_EDGE),
        preview=None if shown_by_browsers else encoded(picture, PREVIEW_EDGE),
    )


def _stack(file: BinaryIO, sniffed: Sniffed, gate: UploadGate, limits: ImageLimits) -> Inspection:
    told = metadata.of_stack(file, gate.pages)
    picture = stacks.decoded(file, gate.pages, limits)
    return Inspection(
        media_type=sniffed.media_type,
        width=sniffed.width,
        height=sniffed.height,
        bands=sniffed.bands,
        dtype=gate.pages[0].dtype,
        pages=sniffed.pages,
        axes=told.axes,
        pixel_size_um=told.pixel_size_um,
        magnification=told.magnification,
        acquired_with=told.acquired_with,
        thumbnail=encoded(picture, THUMBNAIL_EDGE),
        preview=encoded(picture, PREVIEW_EDGE),
    )
