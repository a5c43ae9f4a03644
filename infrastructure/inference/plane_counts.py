"""How many channels, focal planes and points in time an image has, as far as its metadata say. Imports no NumPy.

The metadata leave some things open, such as the size of each of several stacks.
"""

from typing import Final, NamedTuple

from application.ports import Mismatch
from domain.classification import PlaneSelection, Projection
from domain.image import Image, Inspection

COMPLETE_METADATA: Final = 2  # reader version since which warnings say which samples are channels
COLOURS: Final = 3  # of a picture, also where it is stored as CMYK
NAMES: Final = {"channel": ("channel", "channels"), "z": ("focal plane", "focal planes"), "time": ("point in time", "points in time")}
CHOSEN: Final = {"c": "channel", "z": "z", "t": "time"}
"""The axis of each field of a choice."""


class Size(NamedTuple):
    """The size of a stack, or an upper limit: of several stacks the metadata state only the product of their sizes."""

    most: int
    is_exact: bool

    @property
    def words(self) -> str:
        return str(self.most) if self.is_exact else f"at most {self.most}"


class PlaneCounts(NamedTuple):
    """`channels` are all numbers of channels that are possible. Alpha is no channel. Pages of unknown meaning are focal planes (`z`)."""

    channels: frozenset[int]
    z: Size
    time: Size


def plane_counts(image: Image, inspection: Inspection) -> PlaneCounts:
    samples, pages = _possible_samples(image, inspection), _possible_sizes(inspection, "C")
    return PlaneCounts(
        channels=frozenset(one * other for one in samples for other in pages),
        z=_size(inspection, "I" if "I" in inspection.axes else "Z"),
        time=_size(inspection, "T"),
    )


def absent_planes(counts: PlaneCounts, planes: PlaneSelection) -> list[Mismatch]:
    """The planes of a choice that the image certainly does not have."""
    channel = max(planes.c) if planes.c is not None else None
    channels = Size(max(counts.channels), len(counts.channels) == 1)
    chosen = [("c", "channel", channel, channels), ("z", "z", planes.z, counts.z), ("t", "time", planes.t, counts.time)]
    return [
        _absent(name, axis, plane, size)
        for name, axis, plane, size in chosen
        if plane is not None and not isinstance(plane, Projection) and plane >= size.most
    ]


def absent_plane(name: str, plane: int, count: int, *, words: str = "") -> str:
    """The sentence for a chosen plane that an image does not have. `name` is z, c or t; `words` is the count where it is not exact."""
    noun = NAMES[CHOSEN[name]][count != 1]
    return f"The image has no {name}={plane}: it has {words or count} {noun}, counted from 0"


def wrong_picture(channels: int) -> str:
    """The sentence for a choice of channels that makes no picture."""
    return f"The model takes pictures of 1 or 3 channels, and the choice has {channels}"


def _absent(name: str, axis: str, plane: int, size: Size) -> Mismatch:
    message = absent_plane(name, plane, size.most, words=size.words)
    return Mismatch(field=("planes", name), axis=axis, expected=f"{name}={plane}", found=size.words, message=message)


def _possible_samples(image: Image, inspection: Inspection) -> set[int]:
    """How many samples of a pixel may be colours or channels."""
    bands = inspection.bands
    if "S" not in inspection.axes:
        return {1}
    if inspection.reader < COMPLETE_METADATA:
        return set(range(1, bands + 1))
    if image.media_type != "image/tiff":
        return {COLOURS if bands >= COLOURS else 1}
    warnings = {warning.code for warning in inspection.warnings}
    has_channels, is_stack = "first_channel_only" in warnings, "C" in inspection.axes
    others = range(1, bands) if "extra_samples_ignored" in warnings else range(2)  # samples that are neither colours nor channels
    greys = {1} if not has_channels else range(1 if is_stack else 2, bands + 1)
    found = {grey for grey in greys if bands - grey in others}
    is_possible_in_colour = (not has_channels or is_stack) and any(bands - stored in others for stored in (COLOURS, COLOURS + 1))
    return found | {COLOURS} if is_possible_in_colour else found


def _size(inspection: Inspection, letter: str) -> Size:
    possible = _possible_sizes(inspection, letter)
    return Size(max(possible), is_exact=len(possible) == 1)


def _possible_sizes(inspection: Inspection, letter: str) -> set[int]:
    """Each stack that `axes` names has two planes or more, and all stacks together have as many as the file has pages."""
    stacks = [one for one in inspection.axes if one in "TZCI"]
    if letter not in stacks:
        return {1}
    if len(stacks) == 1:
        return {inspection.pages}
    most = inspection.pages >> (len(stacks) - 1)
    found = {size for size in range(2, most + 1) if inspection.pages % size == 0}
    return found or set(range(1, inspection.pages + 1))
