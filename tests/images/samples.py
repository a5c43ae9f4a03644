"""From a cell to the numbers that a TIFF stores, and what they state."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.images.colours import ink, luma, quantised, ycbcr
from tests.images.encodings import TiffEncoding
from tests.images.expected import Alpha, Picture


class Stored(msgspec.Struct, frozen=True):
    """`samples` (height, width, bands) with all extra samples, as they stand in the file; `picture`: what they mean."""

    samples: NDArray
    picture: Picture


def stored_samples(held: NDArray[np.uint8], encoding: TiffEncoding) -> Stored:
    """`held` (height, width, 3): the cell as the file holds it, turned."""
    if encoding.colour == "palette":
        return _indexed(held, encoding)
    unit = _unit(held, encoding)
    extra = opacity(*held.shape[:2]) if encoding.extra != "none" else None
    if extra is not None and encoding.extra == "associated alpha":
        unit *= extra
    colours = _numbers(unit, encoding)
    picture = Picture(
        colour=encoding.colour,
        samples=colours,
        bits=encoding.bits,
        white_is_zero=encoding.photometric == "white",
        profile=encoding.profile,
    )
    return Stored(colours, picture) if extra is None else _with_extra(picture, extra, encoding.extra)


def opacity(height: int, width: int) -> NDArray[np.float64]:
    """(height, width, 1), 0 to 1: opaque in the middle, transparent in the corners."""
    rows, columns = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.clip(2.4 - 2 * np.hypot(rows, columns), 0, 1)[..., np.newaxis]


def _with_extra(picture: Picture, extra: NDArray[np.float64], kind: str) -> Stored:
    full = 2**picture.bits - 1
    values = np.rint(extra * full).astype(picture.samples.dtype)
    samples = np.concatenate((picture.samples, values), axis=2)
    if kind == "unspecified":
        return Stored(samples, picture)
    alpha = Alpha(values[..., 0], full, associated=kind == "associated alpha")
    return Stored(samples, msgspec.structs.replace(picture, alpha=alpha))


def _unit(held: NDArray[np.uint8], encoding: TiffEncoding) -> NDArray[np.float64]:
    """(height, width, colours), 0 to 1."""
    match encoding.colour:
        case "grey":
            return 1 - luma(held) if encoding.photometric == "white" else luma(held)
        case "cmyk":
            return ink(held)
        case "ycbcr":
            return ycbcr(held) / 255
        case _:
            return held / 255


def _numbers(unit: NDArray[np.float64], encoding: TiffEncoding) -> NDArray:
    dtype = np.dtype(encoding.dtype if encoding.bits >= 8 else "uint8")
    values = unit * encoding.full
    match dtype.kind:
        case "f":
            floats = values.astype(dtype)
            return _with_gaps(floats) if encoding.gaps else floats
        case "i":
            return (np.rint(values) - (encoding.full + 1) // 2).astype(dtype)
        case _:
            return np.rint(values).astype(dtype)


def _with_gaps(values: NDArray) -> NDArray:
    """Fields of NaN, +inf and -inf, side by side."""
    height, width = values.shape[0] // 8, values.shape[1] // 8
    for column, gap in enumerate((np.nan, np.inf, -np.inf), 1):
        values[height : 2 * height, column * width : (column + 1) * width] = gap
    return values


def _indexed(held: NDArray[np.uint8], encoding: TiffEncoding) -> Stored:
    indices, colours = quantised(held, encoding.bits)
    picture = Picture(
        colour="palette",
        samples=indices,
        bits=encoding.bits,
        palette=colours.astype(np.uint16) * encoding.map_scale,
        palette_full=255 * encoding.map_scale,
        profile=encoding.profile,
    )
    return Stored(indices, picture)
