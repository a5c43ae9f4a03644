"""One cell in one encoding: the file, and the pixels, metadata and warnings that the product must derive from it."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.images.encodings import Encoding, JpegEncoding, Ome, PngEncoding, TiffEncoding
from tests.images.expected import Picture, rendered
from tests.images.jpeg import jpeg_file, loss
from tests.images.orientations import stored, upright
from tests.images.png import png_file
from tests.images.tiff import tiff_file
from tests.images.tiff_descriptions import PIXEL_SIZE_UM

EXACT = 0.6  # of 255: each pixel may be rounded otherwise
MODES = {"grey": "L", "rgb": "RGB"}  # of JPEG; all others lose no more than YCbCr


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """`expected` (height, width, 3), upright, by the rules of `tests.images.expected`; `tolerance`: of the mean absolute difference from
    it, of 255.

    `width`, `height` as stored; `bands` per pixel as decoded (a palette gives 3); `dtype` numpy's name of the stored numbers; `pages`:
    whole pictures; `axes` slowest first: those of the stack, then YX, YXS or SYX. `warnings`: codes.
    """

    data: bytes
    expected: NDArray[np.uint8]
    tolerance: float
    width: int
    height: int
    bands: int
    dtype: str
    pages: int
    axes: str
    pixel_size_um: float | None
    warnings: frozenset[str]


def written(cell: NDArray[np.uint8], encoding: Encoding) -> Written:
    """`cell` (height, width, 3)."""
    held = np.ascontiguousarray(stored(cell, encoding.orientation))
    match encoding:
        case TiffEncoding():
            return _tiff(held, encoding)
        case PngEncoding():
            return _png(held, encoding)
        case JpegEncoding():
            return _jpeg(held, encoding)
        case _:
            raise TypeError(encoding)


def _tiff(held: NDArray[np.uint8], encoding: TiffEncoding) -> Written:
    data, picture = tiff_file(held, encoding)
    bands = 3 if encoding.colour == "palette" else encoding.bands
    plane_axes = "YX" if bands == 1 else "SYX" if encoding.separate else "YXS"
    rendering = rendered(picture)
    return Written(
        data=data,
        expected=upright(rendering.pixels, encoding.orientation),
        tolerance=_tolerance(held, encoding) if encoding.compression == "jpeg" else EXACT,
        width=held.shape[1],
        height=held.shape[0],
        bands=bands,
        dtype=encoding.dtype if encoding.bits >= 8 else "uint8",
        pages=2 if encoding.pages == "two alike" else encoding.sizes.planes,
        axes=_stack_axes(encoding) + plane_axes,
        pixel_size_um=None if encoding.metadata is None and encoding.resolution == "none" else PIXEL_SIZE_UM,
        warnings=rendering.warnings | _warnings(encoding),
    )


def _tolerance(held: NDArray[np.uint8], encoding: TiffEncoding | JpegEncoding) -> float:
    """The loss of a JPEG of the whole picture, with a margin for tiles and profiles."""
    return EXACT + 1.1 * loss(held, MODES.get(encoding.colour, "YCbCr"), encoding.subsampling)


def _stack_axes(encoding: TiffEncoding) -> str:
    """Slowest first: in the order that OME-XML names from the fastest on, or as ImageJ has them."""
    sizes = encoding.sizes
    lengths = {"T": sizes.times, "Z": sizes.depths, "C": sizes.channels, "I": 2 if encoding.pages == "two alike" else 1}
    order = encoding.metadata.order[::-1] if isinstance(encoding.metadata, Ome) else "TZC"
    return "".join(axis for axis in f"{order}I" if lengths.get(axis, 1) > 1)


def _warnings(encoding: TiffEncoding) -> frozenset[str]:
    """Those that follow from the layout of the file."""
    stacked = _stack_axes(encoding)
    found = {
        "first_plane_only": bool(set(stacked) & set("TZI")),
        "first_channel_only": "C" in stacked,
        "photometric_assumed": encoding.photometric.endswith("unstated"),
        "byte_counts_assumed": encoding.byte_counts != "stated",
        "extra_samples_ignored": encoding.extra == "unspecified",
        "non_finite_values": encoding.gaps,
    }
    return frozenset(code for code, given in found.items() if given)


def _png(held: NDArray[np.uint8], encoding: PngEncoding) -> Written:
    data, picture = png_file(held, encoding)
    bands = {"grey": 1, "rgb": 3, "palette": 3}[encoding.colour] + encoding.alpha
    return _single(
        held,
        encoding,
        data=data,
        picture=picture,
        bands=bands,
        tolerance=EXACT,
        dtype="uint16" if encoding.bits == 16 else "uint8",
        pixel_size_um=PIXEL_SIZE_UM if encoding.resolution else None,
    )


def _jpeg(held: NDArray[np.uint8], encoding: JpegEncoding) -> Written:
    data, picture = jpeg_file(held, encoding)
    bands = {"grey": 1, "ycbcr": 3, "rgb": 3}.get(encoding.colour, 4)
    alone = _single(held, encoding, data=data, picture=picture, bands=bands, tolerance=_tolerance(held, encoding), dtype="uint8")
    trailing = {"trailing_data_ignored"} if encoding.trailer else set()
    return msgspec.structs.replace(alone, warnings=alone.warnings | trailing)


def _single(
    held: NDArray[np.uint8],
    encoding: Encoding,
    *,
    data: bytes,
    picture: Picture,
    bands: int,
    tolerance: float,
    dtype: str,
    pixel_size_um: float | None = None,
) -> Written:
    """For a format that holds one picture."""
    rendering = rendered(picture)
    return Written(
        data=data,
        expected=upright(rendering.pixels, encoding.orientation),
        tolerance=tolerance,
        width=held.shape[1],
        height=held.shape[0],
        bands=bands,
        dtype=dtype,
        pages=1,
        axes="YX" if bands == 1 else "YXS",
        pixel_size_um=pixel_size_um,
        warnings=rendering.warnings,
    )
