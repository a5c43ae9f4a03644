"""Metadata of microscopes and programs. Values that are too long, not finite or inconsistent with the pages are ignored."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from domain.errors import DamagedImage
from infrastructure.images.decoding import FAILURES
from infrastructure.images.tiff.axes import PlaneMap, plane_map
from infrastructure.images.tiff.ome import OmeImage
from infrastructure.images.units import length_in_um, positive
from infrastructure.images.validation.layout import PageLayout

DESCRIPTION, MAKE, MODEL, X_RESOLUTION, RESOLUTION_UNIT, SOFTWARE = 270, 271, 272, 282, 296, 305
RESOLUTION_UNITS: Final = {2: "inch", 3: "cm"}
COARSEST_PIXEL_UM: Final = 25.0
"""A larger pixel size is a print resolution: 72 dots per inch are 353 um."""
APERIO_PIXEL: Final = re.compile(r"\|\s*MPP\s*=\s*([0-9.]{1,12})")
APERIO_MAGNIFICATION: Final = re.compile(r"\|\s*AppMag\s*=\s*([0-9.]{1,12})")
IMAGEJ_UNIT: Final = re.compile(r"^unit=(\S{1,12})\s*$", re.MULTILINE)
MAX_NAME_LENGTH: Final = 100
MAX_NAME_BYTES: Final = 1024


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """`planes` maps planes to pages. `pixel_size_um` is the edge length of a pixel, `magnification` that of the objective."""

    planes: PlaneMap
    pixel_size_um: float | None = None
    magnification: float | None = None
    acquired_with: str | None = None


def read_metadata(pages: Sequence[PageLayout]) -> Metadata:
    """The metadata of a TIFF. Raises DamagedImage (unsafe_metadata, metadata_too_large)."""
    first = pages[0]
    description = first.directory.text(DESCRIPTION)
    make, model, software = (first.directory.text(tag, maximum=MAX_NAME_BYTES) for tag in (MAKE, MODEL, SOFTWARE))
    named = _name(make, model) or _name(software)
    if description.lstrip("\ufeff \r\n\t").startswith("<"):
        ome = OmeImage(description.lstrip("\ufeff \r\n\t"))
        return Metadata(
            planes=plane_map(pages, description, ome),
            pixel_size_um=ome.pixel_size_um or _resolution(first),
            magnification=ome.magnification,
            acquired_with=_name(*ome.microscope) or named,
        )
    return Metadata(
        planes=plane_map(pages, description, None),
        pixel_size_um=_matched(APERIO_PIXEL, description) or _imagej_pixel(first, description) or _resolution(first),
        magnification=_matched(APERIO_MAGNIFICATION, description),
        acquired_with=("Aperio" if description.startswith("Aperio") else None) or named,
    )


def camera(exif: Any) -> str | None:
    """Maker and model, or the program, from Pillow's EXIF data."""
    try:
        make, model, software = (str(exif.get(tag, "")) for tag in (MAKE, MODEL, SOFTWARE))
    except FAILURES:  # damaged EXIF data affects no pixel
        return None
    return _name(make, model) or _name(software)


def pixel_size(dots_per_inch: Any) -> float | None:
    """The pixel size of a JPEG or PNG in micrometres, from Pillow's horizontal and vertical resolution; None for a print resolution."""
    across = dots_per_inch[0] if isinstance(dots_per_inch, tuple) and dots_per_inch else None
    return _fine(length_in_um(str(1 / float(across)), "inch")) if across else None


def _fine(size: float | None) -> float | None:
    return size if size is not None and size <= COARSEST_PIXEL_UM else None


def _imagej_pixel(page: PageLayout, description: str) -> float | None:
    found = IMAGEJ_UNIT.search(description)
    per_unit = page.directory.ratio(X_RESOLUTION)
    return length_in_um(str(1 / per_unit), found[1]) if found and per_unit else None


def _resolution(page: PageLayout) -> float | None:
    per_unit = page.directory.ratio(X_RESOLUTION)
    unit = RESOLUTION_UNITS.get(_resolution_unit(page))
    return _fine(length_in_um(str(1 / per_unit), unit)) if per_unit and unit else None


def _resolution_unit(page: PageLayout) -> int:
    """The unit tag; 0 if it is not an integer."""
    try:
        return page.directory.number(RESOLUTION_UNIT, 2)
    except DamagedImage:
        return 0


def _matched(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return positive(found[1]) if found else None


def _name(*parts: str) -> str | None:
    words = " ".join(" ".join(parts).split())
    return "".join(letter for letter in words if letter.isprintable())[:MAX_NAME_LENGTH] or None
