"""The mapping of TIFF pages to planes: channels (C), focal planes (Z) and times (T), from OME-XML, ImageJ or tifffile."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from infrastructure.images.tiff.ome import OmeImage
from infrastructure.images.validation.layout import PageLayout

IMAGEJ_FIELD: Final = re.compile(r"^(images|channels|slices|frames)=(\d{1,9})\s*$", re.MULTILINE)
LETTERS: Final = re.compile("[A-Z]{1,8}")
STACKED: Final = "TZC"


class PlaneMap(msgspec.Struct, frozen=True, kw_only=True):
    """`axes`, slowest first, are T, Z, C and I (pages of unknown meaning), then the axes within a page.

    `sizes` are the lengths of T, Z, C and I. `pages` contains the page of each plane, in the order of `order` (slowest axis first).
    """

    axes: str
    sizes: Mapping[str, int]
    order: str
    pages: Sequence[int]

    def page_of(self, *, c: int = 0, z: int = 0, t: int = 0) -> int:
        """The index of a plane's page. `z` counts pages of unknown meaning. Raises IndexError if there is no such plane."""
        coordinates = {"C": c, "Z": z, "T": t, "I": z}
        index = 0
        for axis in self.order:
            if not 0 <= coordinates[axis] < self.sizes[axis]:
                raise IndexError(f"{axis}={coordinates[axis]} of {self.sizes[axis]}")
            index = index * self.sizes[axis] + coordinates[axis]
        return self.pages[index]


def plane_map(pages: Sequence[PageLayout], description: str, ome: OmeImage | None) -> PlaneMap:
    """The mapping in the metadata if it matches the pages. Otherwise equal pages form a stack; of different pages only the first counts."""
    found = (ome and _of_ome(pages, ome)) or _of_imagej(pages, description) or _of_tifffile(pages, description)
    if found:
        return found
    alike = len({(page.width, page.height, page.bands, page.dtype) for page in pages}) == 1
    return _map("I", {"I": len(pages) if alike else 1}, pages, range(len(pages) if alike else 1))


def _of_ome(pages: Sequence[PageLayout], ome: OmeImage) -> PlaneMap | None:
    sizes = {axis: ome.size(axis) for axis in STACKED}
    sizes["C"] //= max(1, pages[0].samples if sizes["C"] > 1 else 1)
    order = [axis for axis in reversed(ome.order) if axis in sizes]
    if sorted(ome.order) != sorted("XYZCT") or math.prod(sizes.values()) != len(pages):
        return None
    numbers = list(range(len(pages)))
    for plane, page in ome.placed(sizes):
        if not (0 <= plane < len(pages) and 0 <= page < len(pages)):
            return None
        numbers[plane] = page
    if len(set(numbers)) != len(pages):
        return None
    return _map("".join(order), sizes, pages, numbers)


def _of_imagej(pages: Sequence[PageLayout], description: str) -> PlaneMap | None:
    if not description.startswith("ImageJ="):
        return None
    named = {name: int(number) for name, number in IMAGEJ_FIELD.findall(description)}
    sizes = {"T": named.get("frames", 1), "Z": named.get("slices", 1), "C": named.get("channels", 1)}
    if len(pages) > 1 and set(named) == {"images"} and named["images"] == len(pages):
        sizes["I"] = len(pages)
        return _map("I", {"I": len(pages)}, pages, range(len(pages)))
    if math.prod(sizes.values()) != len(pages):
        return None
    return _map("TZC", sizes, pages, range(len(pages)))


def _of_tifffile(pages: Sequence[PageLayout], description: str) -> PlaneMap | None:
    """The mapping in tifffile's JSON, which contains a shape and possibly axes."""
    if not description.startswith('{"shape":'):
        return None
    try:
        metadata = json.loads(description)
        axes = str(metadata.get("axes", ""))
        shape = [int(length) for length in metadata["shape"]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    stacked = axes[: -len(_within(pages[0]))]
    lengths = shape[: len(stacked)]
    if (
        not LETTERS.fullmatch(axes)
        or len(axes) != len(shape)
        or min(shape) < 1
        or not set(stacked) <= set(STACKED)
        or len(set(stacked)) != len(stacked)
    ):
        return None
    return _map(stacked, dict(zip(stacked, lengths, strict=True)), pages, range(len(pages))) if math.prod(lengths) == len(pages) else None


def _map(order: str, sizes: Mapping[str, int], pages: Sequence[PageLayout], numbers: Sequence[int]) -> PlaneMap:
    axes = "".join(axis for axis in order if sizes[axis] > 1) + _within(pages[0])
    return PlaneMap(axes=axes, sizes={axis: sizes[axis] for axis in order}, order=order, pages=list(numbers))


def _within(page: PageLayout) -> str:
    if page.bands == 1:
        return "YX"
    return "SYX" if page.separate else "YXS"
