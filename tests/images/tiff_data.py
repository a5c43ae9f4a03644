"""Strips and tiles of a TIFF: cutting, prediction, bit packing and compression."""

import zlib
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tests.images.encodings import Strips, TiffEncoding, Tiles

COMPRESSORS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    "none": lambda rows: rows.tobytes(),
    "lzw": lambda rows: bytes(imagecodecs.lzw_encode(rows.tobytes())),
    "deflate": lambda rows: zlib.compress(rows, 1),
    "old deflate": lambda rows: zlib.compress(rows, 1),
    "packbits": lambda rows: bytes(imagecodecs.packbits_encode(rows)),
    "zstd": lambda rows: bytes(imagecodecs.zstd_encode(rows.tobytes(), 1)),
}
BYTES_REVERSED = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)


def coded(samples: NDArray, encoding: TiffEncoding) -> Iterator[bytes]:
    """The strips or tiles of `samples` (height, width, bands) in the order of the file."""
    planes = np.split(samples, samples.shape[2], axis=2) if encoding.separate else [samples]
    for plane in planes:
        for block in cut(plane, encoding.segments):
            yield _coded_block(block, encoding)


def cut(plane: NDArray, segments: Strips | Tiles, *, like_the_edge: bool = False) -> Iterator[NDArray]:
    """Strips, of which the last may be shorter, or whole tiles, whose parts outside of the picture are 1 or `like_the_edge`."""
    match segments:
        case Strips(rows):
            step = rows or plane.shape[0]
            yield from (plane[top : top + step] for top in range(0, plane.shape[0], step))
        case Tiles(width, height):
            padded = padded_to(plane, width, height, like_the_edge=like_the_edge)
            for top in range(0, padded.shape[0], height):
                yield from (padded[top : top + height, left : left + width] for left in range(0, padded.shape[1], width))


def padded_to(plane: NDArray, width: int, height: int, *, like_the_edge: bool) -> NDArray:
    """To multiples of both."""
    missing = ((0, -plane.shape[0] % height), (0, -plane.shape[1] % width), (0, 0))
    if not any(map(any, missing)):
        return plane
    return np.pad(plane, missing, "edge") if like_the_edge else np.pad(plane, missing, constant_values=1)


def _coded_block(block: NDArray, encoding: TiffEncoding) -> bytes:
    rows = _rows(block, encoding)
    return COMPRESSORS[encoding.compression](BYTES_REVERSED[rows] if encoding.fill_order == 2 else rows)


def _rows(block: NDArray, encoding: TiffEncoding) -> NDArray[np.uint8]:
    """(rows, bytes), as they are before compression."""
    if encoding.bits < 8:
        return packed(block[..., 0], encoding.bits)
    if encoding.predictor == 3:
        return _float_differences(block)
    values = _differences(block) if encoding.predictor == 2 else block
    ordered = np.ascontiguousarray(values, values.dtype.newbyteorder("<" if encoding.byte_order == "little" else ">"))
    return ordered.reshape(len(block), -1).view(np.uint8)


def packed(rows: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Samples of less than 8 bits, the first one in the highest bits; each row begins with a byte."""
    each = 8 // bits
    padded = np.zeros((len(rows), -(-rows.shape[1] // each) * each), np.uint8)
    padded[:, : rows.shape[1]] = rows
    shifts = np.arange(8 - bits, -1, -bits, np.uint8)
    return np.bitwise_or.reduce(padded.reshape(len(rows), -1, each) << shifts, axis=2)


def _differences(block: NDArray) -> NDArray:
    """Predictor 2: each sample less the one of its band to the left, modulo the size of the number."""
    values = block.view(f"u{block.itemsize}").copy()
    values[:, 1:] -= values[:, :-1].copy()
    return values


def _float_differences(block: NDArray) -> NDArray[np.uint8]:
    """Predictor 3 (Adobe Photoshop TIFF Technical Note 3): the highest bytes of a row first, then the differences of bytes."""
    height, width, bands = block.shape
    split = np.ascontiguousarray(block, block.dtype.newbyteorder(">")).view(np.uint8).reshape(height, width * bands, -1)
    rows = split.transpose(0, 2, 1).reshape(height, -1)
    differences = rows.copy()
    differences[:, bands:] -= rows[:, :-bands]
    return differences
