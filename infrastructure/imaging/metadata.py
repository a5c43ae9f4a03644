"""What a microscope or program has noted beside the pixels. What is too long, not finite or does not fit the pages is left out."""

import math
import re
from collections.abc import Sequence
from typing import BinaryIO, Final
from xml.parsers import expat

import msgspec
import tifffile
from PIL import Image

from domain.errors import DamagedImage
from infrastructure.imaging.decoding import FAILURES
from infrastructure.upload_gate.tiff_pages import Page

DESCRIPTION, MAKE, MODEL, X_RESOLUTION, RESOLUTION_UNIT, SOFTWARE = 270, 271, 272, 282, 296, 305
MICROMETRES: Final = {
    "pm": 1e-6,
    "nm": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}
ESCAPED_MICRO: Final = "\\u00B5m"
CENTIMETRE: Final = 3
COARSEST_PIXEL_UM: Final = 25.0
"""A resolution tag that says more is meant for paper: 72 dots per inch are 353 um."""
APERIO_PIXEL: Final = re.compile(r"\|\s*MPP\s*=\s*([0-9.]{1,12})")
APERIO_MAGNIFICATION: Final = re.compile(r"\|\s*AppMag\s*=\s*([0-9.]{1,12})")
IMAGEJ_UNIT: Final = re.compile(r"^unit=(\S{1,12})$", re.MULTILINE)
AXES: Final = re.compile("[A-Z]{2,8}")
LONGEST_NAME: Final = 100


class Told(msgspec.Struct, frozen=True, kw_only=True):
    axes: str
    pixel_size_um: float | None = None
    magnification: float | None = None
    acquired_with: str | None = None


def of_stack(file: BinaryIO, pages: Sequence[Page]) -> Told:
    """Raises DamagedImage (unsafe_metadata, metadata_too_large)."""
    first = pages[0]
    description = first.directory.text(DESCRIPTION)
    named = _name(first.directory.text(MAKE), first.directory.text(MODEL)) or _name(first.directory.text(SOFTWARE))
    if description.lstrip("\ufeff \r\n\t").startswith("<"):
        found = _Ome(description)
        return Told(
            axes=found.axes(pages) or _plain_axes(pages),
            pixel_size_um=found.pixel_size_um or _resolution(first),
            magnification=found.magnification,
            acquired_with=found.microscope or named,
        )
    return Told(
        axes=_axes_of_imagej(file, pages) or _plain_axes(pages),
        pixel_size_um=_positive(APERIO_PIXEL, description) or _imagej_pixel(first, description) or _resolution(first),
        magnification=_positive(APERIO_MAGNIFICATION, description),
        acquired_with=("Aperio" if description.startswith("Aperio") else None) or named,
    )


def camera(picture: Image.Image) -> str | None:
    """Maker and model, or else the program, from EXIF."""
    try:
        exif = picture.getexif()
        told = [str(exif.get(tag, "")) for tag in (MAKE, MODEL, SOFTWARE)]
    except FAILURES:  # spoilt EXIF data spoils no pixel
        return None
    return _name(*told[:2]) or _name(told[2])


class _Ome:
    """The first image of an OME-XML text. A text that is no XML tells nothing; one that declares a document type or entities is refused."""

    def __init__(self, text: str) -> None:
        self._first: dict[str, dict[str, str]] = {}
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._note
        parser.StartDoctypeDeclHandler = self._refuse
        try:
            parser.Parse(text.encode(), True)
        except expat.ExpatError:
            self._first = {}

    def _note(self, name: str, attributes: dict[str, str]) -> None:
        self._first.setdefault(name.rpartition(":")[2], attributes)

    @staticmethod
    def _refuse(*_: object) -> None:
        raise DamagedImage(
            "The metadata of the TIFF file declares XML entities, which are not taken. Export it again without them",
            reason="unsafe_metadata",
        )

    def axes(self, pages: Sequence[Page]) -> str | None:
        """None unless the planes that it tells of are just the pages."""
        pixels = self._first.get("Pixels", {})
        order = pixels.get("DimensionOrder", "")
        bands = pages[0].bands
        try:
            sizes = {axis: int(pixels[f"Size{axis}"]) for axis in "TZC"}
        except (KeyError, ValueError):
            return None
        sizes["C"] //= bands
        if sorted(order) != sorted("XYZCT") or math.prod(sizes.values()) != len(pages):
            return None
        slow = [axis for axis in reversed(order) if axis in sizes and sizes[axis] > 1]
        return "".join(slow) + _plane_axes(pages)

    @property
    def pixel_size_um(self) -> float | None:
        pixels = self._first.get("Pixels", {})
        return _scaled(pixels.get("PhysicalSizeX", ""), pixels.get("PhysicalSizeXUnit", "µm"))

    @property
    def magnification(self) -> float | None:
        return _scaled(self._first.get("Objective", {}).get("NominalMagnification", ""), "µm")

    @property
    def microscope(self) -> str | None:
        told = self._first.get("Microscope", {})
        return _name(told.get("Manufacturer", ""), told.get("Model", ""))


def _plane_axes(pages: Sequence[Page]) -> str:
    first = pages[0]
    if first.bands == 1:
        return "YX"
    return "SYX" if first.separate else "YXS"


def _plain_axes(pages: Sequence[Page]) -> str:
    """Pages that are all alike are one stack; else the first one stands for itself (a slide with its label)."""
    alike = len({(page.width, page.height, page.bands, page.dtype) for page in pages}) == 1
    return ("I" if alike and len(pages) > 1 else "") + _plane_axes(pages)


def _axes_of_imagej(file: BinaryIO, pages: Sequence[Page]) -> str | None:
    """As ImageJ and tifffile note them, if they tell of just these pages, in letters that name axes: the file may say anything there."""
    file.seek(0)
    try:
        with tifffile.TiffFile(file, _multifile=False) as tiff:
            if not (tiff.is_imagej or tiff.is_shaped) or len(tiff.series) != 1:
                return None
            series = tiff.series[0]
            claimed = math.prod(int(length) for length in series.shape)
            fits = claimed == len(pages) * pages[0].width * pages[0].height * pages[0].bands
            return str(series.axes) if fits and AXES.fullmatch(str(series.axes)) else None
    except FAILURES:
        return None


def _imagej_pixel(page: Page, description: str) -> float | None:
    found = IMAGEJ_UNIT.search(description)
    per_unit = page.directory.ratio(X_RESOLUTION)
    if not found or not per_unit:
        return None
    return _scaled(str(1 / per_unit), found[1].replace(ESCAPED_MICRO, "µm"))


def _resolution(page: Page) -> float | None:
    per_centimetre = page.directory.ratio(X_RESOLUTION)
    if not per_centimetre or page.directory.number(RESOLUTION_UNIT, 2) != CENTIMETRE:
        return None
    size = _scaled(str(1 / per_centimetre), "cm")
    return size if size is not None and size <= COARSEST_PIXEL_UM else None


def _positive(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return _scaled(found[1], "µm") if found else None


def _scaled(number: str, unit: str) -> float | None:
    try:
        size = float(number) * MICROMETRES[unit]
    except (ValueError, KeyError):
        return None
    return size if math.isfinite(size) and 0 < size < 1e9 else None


def _name(*parts: str) -> str | None:
    words = " ".join(parts).split()
    printable = "".join(letter for letter in " ".join(words) if letter.isprintable())
    return printable[:LONGEST_NAME] or None
