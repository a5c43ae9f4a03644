"""The inspection of images: every pixel is decoded once, the facts are noted, and pictures that a browser shows are made.

Meant for a process whose memory is limited: 1 GiB of address space is enough for every image that the limits let through.
"""

from pathlib import Path
from typing import Final

from domain.image import Inspection
from infrastructure.images.reader import READER_VERSION, ImageReader, open_image
from infrastructure.images.rendering import render
from infrastructure.images.renditions import PREVIEW_EDGE, THUMBNAIL_EDGE, encode
from infrastructure.images.validation import ImageLimits

CMYK_BANDS_OF_JPEG: Final = {"image/jpeg": 4}


class InspectedImage(Inspection, frozen=True, kw_only=True):
    """What an image is, once all of it has been decoded.

    `width`, `height` in pixels as stored, `bands` per pixel (a palette gives 3) of the first page; `dtype` numpy's name of a band's
    numbers; `pages` those of the main chain; `axes` slowest first, as OME names them: T, Z, C, Y, X, S for bands, and I for pages of
    unknown meaning. `pixel_size_um` is the edge of a pixel in micrometres, `magnification` that of the objective, `acquired_with` the
    microscope, camera or program: each where the file says it. `reader` is the version of the reader, `warnings` what of the file was
    not used, assumed or converted for the pictures. `thumbnail` (edges <= 256) and `preview` (<= 2048) are JPEGs, upright, and show
    the first plane; there is no preview where browsers show the original.
    """

    media_type: str
    magnification: float | None
    acquired_with: str | None
    thumbnail: bytes
    preview: bytes | None


def inspect(data: bytes | Path, *, limits: ImageLimits) -> InspectedImage:
    """Decode an image with all its pages. The levels of a pyramid are only checked in their structure, as they repeat a page.

    Raises, each with a `reason`: what the validator raises, and DamagedImage (decode_failed, incomplete, unsafe_metadata,
    metadata_too_large, no_finite_values), ImageTooLarge (too_much_memory).
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
    """Browsers draw JPEG and PNG of 8 bits themselves, upright and in the colours of the profile; of inks they know little."""
    return not image.pages and image.header.bits == 8 and image.header.bands != CMYK_BANDS_OF_JPEG.get(image.header.media_type)
