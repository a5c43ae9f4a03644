"""The image reader for metadata, renditions and models.

It reads every file that upload validation accepts, and raises only for damaged pixel data. It needs little memory: one plane, and one strip
or tile.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from domain.errors import ImageTooLarge
from domain.values import ImageWarning
from infrastructure.images.colour import MAX_PROFILE_BYTES, from_palette, from_ycbcr
from infrastructure.images.metadata import Metadata, read_metadata
from infrastructure.images.orientation import upright
from infrastructure.images.raster import plane
from infrastructure.images.rendering import Colours, Plane
from infrastructure.images.tiff import plane_reader
from infrastructure.images.validation import ImageHeader, ImageLimits, ImageUploadValidator, examine
from infrastructure.images.validation.layout import Compression, ExtraSample, PageLayout, Photometric

PROFILE: Final = 34675
ALPHA: Final = frozenset({ExtraSample.ASSOCIATED_ALPHA, ExtraSample.UNASSOCIATED_ALPHA})
COLOURS: Final = {Photometric.WHITE_IS_ZERO: Colours.GREY, Photometric.BLACK_IS_ZERO: Colours.GREY, Photometric.CMYK: Colours.CMYK}


class ImageReader:
    """An open image file. `open_image` creates it, and it can be read within that block."""

    def __init__(self, file: BinaryIO, header: ImageHeader, validator: ImageUploadValidator) -> None:
        self._file, self._validator = file, validator
        self.header = header
        self.pages: Sequence[PageLayout] = validator.pages
        self.metadata: Metadata | None = read_metadata(validator.pages) if validator.pages else None
        """Metadata of a TIFF; None for other files."""

    @property
    def dtype(self) -> str:
        """The NumPy name of the stored type."""
        return self.pages[0].dtype if self.pages else f"uint{self.header.bits}"

    @property
    def axes(self) -> str:
        """The axes, slowest first, with OME names: T, Z, C, I for pages of unknown meaning, Y, X, and S for samples."""
        if self.metadata is not None:
            return self.metadata.planes.axes
        return "YXS" if self.header.bands > 1 else "YX"

    @property
    def acquired_with(self) -> str | None:
        """The microscope, camera or program; None if the file does not contain it."""
        return self.metadata.acquired_with if self.metadata else plane.about(self._file).acquired_with

    @property
    def pixel_size_um(self) -> float | None:
        """The edge length of a pixel in micrometres; None if the file does not contain it."""
        return self.metadata.pixel_size_um if self.metadata else plane.about(self._file).pixel_size_um

    def plane(self, *, c: int = 0, z: int = 0, t: int = 0) -> Plane:
        """Decode one plane: upright, with black as zero. `z` counts pages of unknown meaning.

        Raises DamagedImage (decode_failed, structure, incomplete), IndexError if there is no such plane.
        """
        if self.metadata is None:
            if (c, z, t) != (0, 0, 0):
                raise IndexError("The image has one plane")
            return plane.read(self._file, self._validator)
        channels = self.pages[0].channels
        page, inside = (c, 0) if channels == 1 else divmod(c, channels)
        number = self.metadata.planes.page_of(c=page, z=z, t=t)
        return _tiff_plane(self.pages[number], inside, self._unused())

    def check_complete(self) -> None:
        """Decode every part of the file outside the first plane, and detect pictures whose data end early.

        Raises DamagedImage (decode_failed, incomplete).
        """
        if self.metadata is None:
            plane.check_complete(self._file, self._validator)
            return
        first = self.metadata.planes.page_of()
        for number, page in enumerate(self.pages):
            if number != first or page.separate or page.compression is Compression.JPEG:
                plane_reader.check_page(page)

    def _unused(self) -> tuple[ImageWarning, ...]:
        """Warnings about planes, channels and pages of a TIFF that are not used."""
        assert self.metadata is not None
        sizes = self.metadata.planes.sizes
        found = []
        planes = {axis: sizes.get(axis, 1) for axis in "TZI" if sizes.get(axis, 1) > 1}
        if planes:
            count = int(np.prod(list(planes.values())))
            listed = ", ".join(f"{axis}: {size}" for axis, size in planes.items())
            found.append(ImageWarning("first_plane_only", f"Plane 1 of {count} is shown and classified ({listed})"))
        if (channels := sizes.get("C", 1) * self.pages[0].channels) > 1:
            found.append(ImageWarning("first_channel_only", f"Channel 1 of {channels} is shown and classified"))
        if len(self.pages) > len(self.metadata.planes.pages):
            found.append(ImageWarning("first_page_only", f"Page 1 of {len(self.pages)} different pages is shown and classified"))
        return tuple(found)


@contextmanager
def open_image(data: bytes | Path, *, limits: ImageLimits) -> Iterator[ImageReader]:
    """Validate a file and open it for reading.

    Raises the validator's errors, DamagedImage (unsafe_metadata, metadata_too_large), and within the block ImageTooLarge
    (too_much_memory) if the process has too little memory.
    """
    try:
        with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as file:
            header, validator = examine(file, limits=limits)
            yield ImageReader(file, header, validator)
    except MemoryError as error:
        raise ImageTooLarge(
            "Decoding this image needs more memory than is available. Scale it down or crop it", reason="too_much_memory"
        ) from error


def _tiff_plane(page: PageLayout, channel: int, unused: tuple[ImageWarning, ...]) -> Plane:
    colours = COLOURS.get(page.photometric, Colours.RGB)
    colour_samples = [channel] if colours is Colours.GREY else list(range(page.colours))
    alphas = [page.colours + index for index, kind in enumerate(page.extra) if kind in ALPHA][:1]
    samples = plane_reader.read_page(page, colour_samples + alphas)
    pixels, alpha = samples[:, :, : len(colour_samples)], samples[:, :, -1] if alphas else None
    return Plane(
        pixels=upright(_resolved(page, pixels), page.orientation),
        colours=colours,
        bits=8 if page.photometric is Photometric.PALETTE else page.bits,
        alpha=None if alpha is None else upright(alpha, page.orientation),
        associated=bool(alphas) and page.extra[alphas[0] - page.colours] is ExtraSample.ASSOCIATED_ALPHA,
        profile=page.directory.bytes(PROFILE, maximum=MAX_PROFILE_BYTES + 1),
        warnings=unused + _assumptions(page, used=len(alphas)),
    )


def _resolved(page: PageLayout, pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels with black as zero, and palettes and YCbCr converted to RGB."""
    match page.photometric:
        case Photometric.WHITE_IS_ZERO:
            return _inverted(pixels, page.bits)
        case Photometric.PALETTE:
            return from_palette(pixels[:, :, 0], np.array(page.colour_map, np.uint16).reshape(3, -1))
        case Photometric.YCBCR if page.separate or page.compression is not Compression.JPEG:  # else libjpeg has converted them
            return from_ycbcr(pixels, page.ycbcr)
        case _:
            return pixels


def _inverted(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    match pixels.dtype.kind:
        case "u":
            np.subtract(pixels.dtype.type(2**bits - 1), pixels, out=pixels)
        case "i":
            np.invert(pixels, out=pixels)
        case _:
            np.negative(pixels, out=pixels)
    return pixels


def _assumptions(page: PageLayout, *, used: int) -> tuple[ImageWarning, ...]:
    found = []
    if page.photometric_assumed:
        meaning = "RGB colours" if page.photometric is Photometric.RGB else "grey values with black as zero"
        found.append(ImageWarning("photometric_assumed", f"The file does not say what its numbers mean; {meaning} are assumed"))
    if page.byte_counts_assumed:
        found.append(ImageWarning("byte_counts_assumed", "The file does not say how long its strips are; the size of the image does"))
    if len(page.extra) > used:
        found.append(ImageWarning("extra_samples_ignored", f"{len(page.extra) - used} samples per pixel beside the colours are not used"))
    return tuple(found)
