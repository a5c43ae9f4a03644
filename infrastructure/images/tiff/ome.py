"""The first image in the OME-XML description of an OME-TIFF file."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final
from xml.parsers import expat

from domain.errors import DamagedImage
from infrastructure.images.units import length_in_um, positive

MAX_TIFF_DATA: Final = 100_000
MAX_PLANES: Final = 10_000
DECLARED_ENCODING: Final = "utf-8"
"""The encoding in which the decoded text is passed to the parser, whatever its declaration says."""


class OmeImage:
    """Values of an OME-XML text. Invalid XML gives no values.

    Raises DamagedImage (unsafe_metadata) for a text that declares a document type or entities.
    """

    def __init__(self, text: str) -> None:
        self._first: dict[str, dict[str, str]] = {}
        self._tiff_data: list[dict[str, str]] = []
        self._images = 0
        parser = expat.ParserCreate(DECLARED_ENCODING)
        parser.StartElementHandler = self._note
        parser.StartDoctypeDeclHandler = self._refuse
        try:
            parser.Parse(text.encode("utf-8", "replace"), True)
        except expat.ExpatError:
            self._first, self._tiff_data = {}, []

    def size(self, axis: str) -> int:
        """The length of C, Z or T; 0 if the text does not contain it."""
        return _number(self._pixels.get(f"Size{axis}", ""))

    @property
    def order(self) -> str:
        """The axes from fastest to slowest, such as XYZCT; empty if the text does not contain them."""
        return self._pixels.get("DimensionOrder", "")

    def placed(self, sizes: Mapping[str, int]) -> Iterator[tuple[int, int]]:
        """(plane, page) for planes with an explicit page, at most MAX_PLANES. Planes are counted with the slowest axis of `order` first."""
        return islice(self._placed(sizes), MAX_PLANES)

    def _placed(self, sizes: Mapping[str, int]) -> Iterator[tuple[int, int]]:
        slowest_first = [axis for axis in reversed(self.order) if axis in sizes]
        for entry in self._tiff_data:
            if "IFD" not in entry:
                continue
            plane = 0
            for axis in slowest_first:
                plane = plane * sizes[axis] + _number(entry.get(f"First{axis}", "0"))
            for following in range(min(_number(entry.get("PlaneCount", "1")), MAX_PLANES)):
                yield plane + following, _number(entry["IFD"]) + following

    @property
    def pixel_size_um(self) -> float | None:
        return length_in_um(self._pixels.get("PhysicalSizeX", ""), self._pixels.get("PhysicalSizeXUnit", "µm"))

    @property
    def magnification(self) -> float | None:
        return positive(self._first.get("Objective", {}).get("NominalMagnification", ""))

    @property
    def microscope(self) -> tuple[str, str]:
        """The manufacturer and model of the microscope."""
        found = self._first.get("Microscope", {})
        return found.get("Manufacturer", ""), found.get("Model", "")

    @property
    def _pixels(self) -> dict[str, str]:
        return self._first.get("Pixels", {})

    def _note(self, name: str, attributes: dict[str, str]) -> None:
        kind = name.rpartition(":")[2]
        self._images += kind == "Image"
        self._first.setdefault(kind, attributes)
        if kind == "TiffData" and self._images == 1 and len(self._tiff_data) < MAX_TIFF_DATA:
            self._tiff_data.append(attributes)

    @staticmethod
    def _refuse(*_: object) -> None:
        raise DamagedImage(
            "The metadata of the TIFF file declares XML entities, which are not accepted. Export it again without them",
            reason="unsafe_metadata",
        )


def _number(text: str) -> int:
    """A small whole number; 0 for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
