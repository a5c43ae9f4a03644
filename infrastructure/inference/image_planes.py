"""The part of an image that a model is given: channels, focal planes and times, as stored.

Channels count the colours of a plane one by one: a picture in colour has three, also where it is stored as CMYK. Alpha is no channel;
pictures in 8 bits lie on white where they are transparent.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.classification import PlaneSelection, Projection
from domain.errors import ImageTooLarge
from domain.values import ImageWarning
from infrastructure.images.reader import COLOURS, ImageReader
from infrastructure.images.rendering import Colours, Plane, render
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.packages.input_fitting import ImageFacts, InputMismatch, mismatches
from infrastructure.inference.packages.operators import NamedArray
from infrastructure.inference.packages.package_manifest import InputTensor
from infrastructure.inference.plane_counts import CHOSEN, absent_plane, wrong_picture

EVERYTHING: Final = PlaneSelection()
COLOURS_OF_A_PICTURE: Final = 3
REPLACED_WARNINGS: Final = frozenset({"first_plane_only", "first_channel_only"})
"""Of the reader, which shows the first plane and channel."""
STACK_AXES: Final = ("time", "z")
COPIES_IN_MEMORY: Final = 3
"""Of the planes in memory while they are stacked and fitted."""


class SelectedPlanes(NamedTuple):
    """`values` have the axes channel, y and x, and before them time and z where the model takes stacks. `picture` shows the first plane."""

    values: NamedArray
    picture: Plane
    warnings: tuple[ImageWarning, ...]


def select_planes(image: ImageReader, tensor: InputTensor, chosen: PlaneSelection, *, limits: ImageLimits) -> SelectedPlanes:
    """What the input `tensor` needs of an image. `chosen` goes before the manifest.

    Raises InputMismatch for a choice that does not exist and for an image that does not fit, DamagedImage, ImageTooLarge.
    """
    planes = _Planes(image, use_profile=tensor.rules.colour_profile == "srgb")
    takes_times, takes_stack = "time" in tensor.axis_ids, bool({"z", "index"} & set(tensor.axis_ids))
    times = range(planes.times) if takes_times and chosen.t is None else [_existing("t", chosen.t or 0, planes.times)]
    projection = chosen.z if isinstance(chosen.z, Projection) else None
    if chosen.z is None and not takes_stack and tensor.rules.projection != "first":
        projection = Projection(tensor.rules.projection)
    every_depth = projection is not None or (takes_stack and chosen.z is None)
    depths = range(planes.depth) if every_depth else [_existing("z", int(chosen.z or 0), planes.depth)]
    channels = planes.chosen_channels(chosen.c)
    first = planes.read(c=channels[0] if channels else 0, z=depths[0], t=times[0])
    _check(first, len(channels), image, tensor)
    _check_memory(first, len(channels) * len(times) * (1 if projection else len(depths)), limits)
    values = _stack(
        [
            _stack(
                [planes.projected(channels, depths, time, projection)]
                if projection
                else [planes.stacked(channels, depth, time) for depth in depths]
            )
            for time in times
        ]
    )
    return SelectedPlanes(
        _named(values, tensor, takes_times=takes_times, takes_stack=takes_stack),
        _as_picture(values[0, 0], first),
        planes.warnings + planes.unused(chosen, depths=len(depths), times=len(times)),
    )


def select_picture(image: ImageReader, chosen: PlaneSelection, *, use_profile: bool) -> Plane:
    """One plane as a picture, in grey or in colour, for models that take pictures.

    The embedded profile is applied here only if channels or a projection are chosen; otherwise the plane keeps it. Raises InputMismatch
    for a choice that does not exist, DamagedImage.
    """
    if chosen == EVERYTHING:
        return image.plane()
    is_made = chosen.c is not None or isinstance(chosen.z, Projection)
    planes = _Planes(image, use_profile=use_profile if is_made else None)
    time = _existing("t", chosen.t or 0, planes.times)
    channels = planes.chosen_channels(chosen.c) if chosen.c is not None else list(range(planes.colours))
    if len(channels) not in {1, COLOURS_OF_A_PICTURE}:
        raise InputMismatch("channel", expected="1 or 3", found=str(len(channels)), message=wrong_picture(len(channels)))
    depth = 0 if isinstance(chosen.z, Projection) else _existing("z", chosen.z or 0, planes.depth)
    first = planes.read(c=channels[0], z=depth, t=time)
    replaced = {"first_plane_only": chosen.z is not None or chosen.t is not None, "first_channel_only": chosen.c is not None}
    warnings = tuple(one for one in first.warnings if not replaced.get(one.code))
    if not is_made:
        return first._replace(warnings=warnings)
    if isinstance(chosen.z, Projection):
        values = planes.projected(channels, range(planes.depth), time, chosen.z)
    else:
        values = planes.stacked(channels, depth, time)
    return _as_picture(values, first)._replace(warnings=warnings)


class _Planes:
    """The planes of an open image. The last one that was decoded is kept, since several channels can lie in it."""

    def __init__(self, image: ImageReader, *, use_profile: bool | None) -> None:
        """`use_profile`: whether an embedded colour profile is applied; None leaves planes as they are."""
        self._image, self._use_profile = image, use_profile
        sizes = image.metadata.planes.sizes if image.metadata else {}
        self.times, self.depth = sizes.get("T", 1), sizes.get("I", sizes.get("Z", 1))
        self._cached: tuple[tuple[int, int, int], Plane] | None = None
        self.warnings: tuple[ImageWarning, ...] = ()
        if image.metadata is None:
            self.colours = _colours_of_a_picture(self._decoded(0, 0, 0).colours)
            self.channels = self.colours
        else:
            page = image.pages[0]
            self.colours = _colours_of_a_picture(COLOURS.get(page.photometric, Colours.RGB))
            self.channels = sizes.get("C", 1) * page.channels * self.colours

    def chosen_channels(self, chosen: tuple[int, ...] | None) -> list[int]:
        return list(range(self.channels)) if chosen is None else [_existing("c", channel, self.channels) for channel in chosen]

    def read(self, *, c: int, z: int, t: int) -> Plane:
        """The plane that channel `c` lies in."""
        return self._decoded(c // self.colours, z, t)

    def stacked(self, channels: Sequence[int], z: int, t: int) -> NDArray[Any]:
        """(channels, height, width)"""
        numbers, inside = np.divmod(channels, self.colours)
        if len(set(numbers.tolist())) == 1 and inside.tolist() == list(range(self.colours)):
            return np.moveaxis(self._decoded(int(numbers[0]), z, t).pixels, -1, 0)
        return _stack([self._decoded(number, z, t).pixels[:, :, sample] for number, sample in zip(numbers, inside, strict=True)])

    def projected(self, channels: Sequence[int], depths: Sequence[int], t: int, how: Projection) -> NDArray[Any]:
        """One plane of all focal planes. A mean of whole numbers is rounded to the nearest."""
        result: NDArray[Any] | None = None
        for depth in depths:
            values = self.stacked(channels, depth, t)
            dtype = values.dtype
            if how is Projection.MEAN:
                values = values.astype(np.float64)
            if result is None:
                result = np.array(values)
            else:
                _require_alike([result, values])
                (np.add if how is Projection.MEAN else np.maximum)(result, values, out=result)
        assert result is not None
        if how is Projection.MAX:
            return result
        mean = result / len(depths)
        return np.rint(mean).astype(dtype) if dtype.kind in "iu" else mean.astype(dtype)

    def unused(self, chosen: PlaneSelection, *, depths: int, times: int) -> tuple[ImageWarning, ...]:
        """A warning about planes that nobody chose to leave out."""
        left_out = {"Z": self.depth} if chosen.z is None and depths < self.depth else {}
        left_out |= {"T": self.times} if chosen.t is None and times < self.times else {}
        if not left_out:
            return ()
        listed = ", ".join(f"{axis}: {size}" for axis, size in left_out.items())
        return (ImageWarning("first_plane_only", f"Only the first plane is classified ({listed})"),)

    def _decoded(self, c: int, z: int, t: int) -> Plane:
        if self._cached is None or self._cached[0] != (c, z, t):
            plane = self._as_stored(self._image.plane(c=c, z=z, t=t))
            self.warnings += tuple(one for one in plane.warnings if one not in self.warnings and one.code not in REPLACED_WARNINGS)
            self._cached = (c, z, t), plane
        return self._cached[1]

    def _as_stored(self, plane: Plane) -> Plane:
        """With the colours of a picture: of CMYK, on white, and with the profile of the file where it applies."""
        if self._use_profile is None or (plane.colours is not Colours.CMYK and plane.alpha is None and not plane.profile):
            return plane
        is_eight_bit = plane.pixels.dtype == np.uint8 and plane.bits == 8
        if plane.colours is not Colours.CMYK and not is_eight_bit:
            return plane._replace(alpha=None, profile=b"", warnings=plane.warnings + _not_used(plane))
        rendering = render(plane, use_profile=self._use_profile)
        pixels = rendering.rgb[:, :, :1] if plane.colours is Colours.GREY else rendering.rgb
        colours = Colours.GREY if plane.colours is Colours.GREY else Colours.RGB
        return Plane(pixels=pixels, colours=colours, bits=8, warnings=rendering.warnings)


def _stack(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Along a new first axis. A single part is not copied."""
    _require_alike(parts)
    return parts[0][None] if len(parts) == 1 else np.stack(parts)


def _require_alike(parts: Sequence[NDArray[Any]]) -> None:
    if len({(one.shape, one.dtype) for one in parts}) > 1:
        raise InputMismatch("planes", expected="one size and type", found="several")


def _colours_of_a_picture(stored: Colours) -> int:
    return 1 if stored is Colours.GREY else COLOURS_OF_A_PICTURE


def _not_used(plane: Plane) -> tuple[ImageWarning, ...]:
    """What cannot be applied to numbers that are used as stored."""
    found = []
    if plane.alpha is not None:
        found.append(ImageWarning("transparency_ignored", "Transparency is not used: the model gets the numbers as stored"))
    if plane.profile:
        found.append(ImageWarning("colour_profile_ignored", "The embedded colour profile is not used: it applies to pictures in 8 bits"))
    return tuple(found)


def _existing(name: str, number: int, count: int) -> int:
    """`number` of z, c or t. Raises InputMismatch."""
    if not 0 <= number < count:
        raise InputMismatch(CHOSEN[name], expected=f"{name}={number}", found=str(count), message=absent_plane(name, number, count))
    return number


def _check(first: Plane, channels: int, image: ImageReader, tensor: InputTensor) -> None:
    """Raises the first of the mismatches."""
    height, width = first.pixels.shape[:2]
    facts = ImageFacts(
        width=width,
        height=height,
        channels=channels,
        dtype=first.pixels.dtype.name,
        bits=first.bits,
        pixel_size_um=image.pixel_size_um if tensor.rules.pixel_size_um is not None else None,
    )
    for mismatch in mismatches(facts, tensor):
        raise mismatch


def _check_memory(first: Plane, planes: int, limits: ImageLimits) -> None:
    needed = COPIES_IN_MEMORY * planes * first.pixels[:, :, 0].nbytes
    if needed > limits.decoding_bytes:
        raise ImageTooLarge(
            f"The planes that the model needs take {needed >> 20:,} MiB; at most {limits.decoding_bytes >> 20:,} MiB are available."
            " Choose fewer planes, or crop the image",
            reason="too_much_memory",
        )


def _named(values: NDArray[Any], tensor: InputTensor, *, takes_times: bool, takes_stack: bool) -> NamedArray:
    """Of (times, depths, channels, height, width), without the axes of one plane that the model does not have."""
    depth = "z" if "z" in tensor.axis_ids or not takes_stack else "index"
    names = ("time", depth, "channel", "y", "x")
    dropped = tuple(index for index, taken in enumerate((takes_times, takes_stack)) if not taken)
    return NamedArray(values.squeeze(dropped), tuple(name for index, name in enumerate(names) if index not in dropped))


def _as_picture(values: NDArray[Any], first: Plane) -> Plane:
    """Of (channels, height, width): in colour if there are three, otherwise the first one in grey."""
    is_colour = len(values) == COLOURS_OF_A_PICTURE
    pixels = np.moveaxis(values if is_colour else values[:1], 0, -1)
    return first._replace(pixels=pixels, colours=Colours.RGB if is_colour else Colours.GREY, alpha=None, profile=b"")
