"""YCbCr in a TIFF without JPEG: data units of several luma samples and one of each chroma (TIFF 6.0, section 21)."""

import numpy as np
from numpy.typing import NDArray

from tests.images.encodings import TiffEncoding
from tests.images.tiff_data import COMPRESSORS, cut, padded_to


def subsampled(samples: NDArray[np.uint8], across: int, down: int) -> NDArray[np.uint8]:
    """`samples` (height, width, 3) with the mean chroma of each unit in all of its pixels."""
    height, width = samples.shape[:2]
    units = _units(samples, across, down)
    chroma = np.rint(units[..., 1:].mean(axis=(1, 3), keepdims=True))
    units[..., 1:] = chroma.astype(np.uint8)
    return units.reshape(units.shape[0] * down, units.shape[2] * across, 3)[:height, :width]


def coded(samples: NDArray[np.uint8], encoding: TiffEncoding) -> list[bytes]:
    """`samples` must be `subsampled`."""
    compress = COMPRESSORS[encoding.compression]
    return [compress(_rows(block, *encoding.subsampling)) for block in cut(samples, encoding.segments)]


def _rows(block: NDArray[np.uint8], across: int, down: int) -> NDArray[np.uint8]:
    """(rows of units, bytes): of each unit the luma row by row, then Cb and Cr."""
    units = _units(block, across, down)
    luma = units[..., 0].transpose(0, 2, 1, 3).reshape(units.shape[0], units.shape[2], across * down)
    return np.concatenate((luma, units[:, 0, :, 0, 1:]), axis=2).reshape(len(units), -1)


def _units(samples: NDArray[np.uint8], across: int, down: int) -> NDArray[np.uint8]:
    """(rows of units, down, units in a row, across, 3), continued like the edge; a copy."""
    padded = padded_to(samples, across, down, like_the_edge=True)
    return np.array(padded).reshape(padded.shape[0] // down, down, padded.shape[1] // across, across, 3)
