"""PNG files from samples (W3C PNG, third edition): any filter, interlaced or not, with any further chunks."""

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.images.tiff_data import packed

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FILTERS = ("none", "sub", "up", "average", "paeth")
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass: first column and row, and the steps to the next ones."""
WHOLE = ((0, 0, 1, 1),)


def png_bytes(
    samples: NDArray, *, bits: int, colour_type: int, interlaced: bool, filters: str, chunks: Sequence[bytes], piece: int = 1 << 20
) -> bytes:
    """`samples` (height, width, bands) unsigned; `chunks` stand between IHDR and IDAT; each IDAT holds at most `piece` bytes."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    rows = b"".join(_passes(samples, bits, interlaced=interlaced, filters=filters))
    data = zlib.compress(rows, 1)
    pieces = [chunk(b"IDAT", data[at : at + piece]) for at in range(0, len(data), piece)]
    return b"".join((SIGNATURE, chunk(b"IHDR", header), *chunks, *pieces, chunk(b"IEND", b"")))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _passes(samples: NDArray, bits: int, *, interlaced: bool, filters: str) -> Iterator[bytes]:
    step = max(1, samples.shape[2] * bits // 8)
    for left, top, across, down in ADAM7 if interlaced else WHOLE:
        part = samples[top::down, left::across]
        if part.size:
            yield _filtered(_rows(part, bits), step, filters).tobytes()


def _rows(part: NDArray, bits: int) -> NDArray[np.uint8]:
    """(rows, bytes)."""
    if bits < 8:
        return packed(part[..., 0], bits)
    return np.ascontiguousarray(part, part.dtype.newbyteorder(">")).reshape(len(part), -1).view(np.uint8)


def _filtered(rows: NDArray[np.uint8], step: int, filters: str) -> NDArray[np.uint8]:
    """Each row with its filter's number in front. `step`: bytes from a sample to the same one of the pixel to the left."""
    left, above, corner = (np.zeros(rows.shape, np.int16) for _ in range(3))
    left[:, step:], above[1:], corner[1:, step:] = rows[:, :-step], rows[:-1], rows[:-1, :-step]
    predictions = (0, left, above, (left + above) // 2, _paeth(left, above, corner))
    chosen = np.arange(len(rows)) % 5 if filters == "mixed" else np.full(len(rows), FILTERS.index(filters))
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = chosen
    for number, prediction in enumerate(predictions):
        its_rows = chosen == number
        filtered[its_rows, 1:] = (rows - prediction).astype(np.uint8)[its_rows]
    return filtered


def _paeth(left: NDArray[np.int16], above: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """The neighbour that is nearest to left + above - corner."""
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, np.where(to_above <= to_corner, above, corner))
