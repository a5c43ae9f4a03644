"""The inspection of images: decodes every pixel once, collects metadata, and makes renditions for browsers.

Runs in a process with limited memory: 1 GiB of address space is enough for every image within the limits.
"""

from pathlib import Path
from typing import Final

from domain.image import Inspection
from infrastructure.images.reader import ImageReader, open_image
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.images.rendering import render
from infrastructure.images.renditions import PREVIEW_EDGE, THUMBNAIL_EDGE, encode
from infrastructure.images.validation import ImageLimits

CMYK_BANDS_OF_JPEG: Final = {"image/jpeg": 4}


class InspectedImage(Inspection, frozen=True, kw_only=True):
    """The metadata and renditions of a completely decoded image.

    `width` and `height` are in pixels as stored; `bands` per pixel (3 for a palette) and `dtype` (NumPy name) are those of the first page.
    `pages` counts the main chain. `axes` are OME names, slowest first: T, Z, C, Y, X, S for bands, I for pages of unknown meaning.
    `pixel_size_um` is the edge length of a pixel in micrometres, `magnification` that of the objective, `acquired_with` the microscope,
    camera or program. Each is None if the file does not contain it. `reader` is the reader version. `warnings` lists parts of the file
    that were ignored, assumed or converted. `thumbnail` (edges up to 256) and `preview` (up to 2048) are upright JPEG files of the first
    plane; `preview` is None if browsers can display the original.
    """

    media_type: str
    magnification: float | None
    acquired_with: str | None
    thumbnail: bytes
    preview: bytes | None


def inspect(data: bytes | Path, *, limits: ImageLimits) -> InspectedImage:
    """Decode all pages of an image. Only the structure of pyramid levels is checked, since they repeat a page.

    Raises the validator's errors, DamagedImage (decode_failed, incomplete, unsafe_metadata, metadata_too_large, no_finite_values) and
    ImageTooLarge (too_much_memory), each with a `reason`.
    """
    with open_image(data, limits=limits) as image:
        image.check_complete()
        picture = render(image.plane())
        metadata = image.metadata
        return InspectedImage(
            reader=READER_VERSION,
            media_type=image.header.media_type,
            width=image.header.width,
            height=image.header.height,
            bands=image.header.bands,
            dtype=image.dtype,
            pages=image.header.pages,
            axes=image.axes,
            pixel_size_um=image.pixel_size_um,
            magnification=metadata.magnification if metadata else None,
            acquired_with=image.acquired_with,
            warnings=picture.warnings,
            thumbnail=encode(picture.rgb, THUMBNAIL_EDGE),
            preview=None if _is_shown_by_browsers(image) else encode(picture.rgb, PREVIEW_EDGE),
        )


def _is_shown_by_browsers(image: ImageReader) -> bool:
    """Whether browsers display the file itself: they support JPEG and PNG of 8 bits, but CMYK poorly."""
    return not image.pages and image.header.bits == 8 and image.header.bands != CMYK_BANDS_OF_JPEG.get(image.header.media_type)
