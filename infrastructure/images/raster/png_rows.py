"""The check that a PNG contains all rows. Pillow leaves missing rows black."""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from infrastructure.images.raster.png_chunks import PIECE_BYTES, pixel_data
from infrastructure.images.validation.limits import incomplete

BANDS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7 passes: first column, first row, and the steps between columns and rows."""


def check_rows(file: BinaryIO) -> None:
    """Check a valid PNG with bounded memory. Raises DamagedImage (incomplete), zlib.error."""
    file.seek(16)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    bits = depth * BANDS[colour]
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    missing = sum(_pass_bytes(-(-(width - x) // across), -(-(height - y) // down), bits) for x, y, across, down in passes)
    for part in _unpacked(file):
        missing -= len(part)
        if missing <= 0:
            return
    raise incomplete("PNG")


def _pass_bytes(width: int, height: int, bits: int) -> int:
    """The bytes of a pass. Each row starts with a filter byte; a pass without pixels has no rows."""
    return height * (1 + -(-width * bits // 8)) if width > 0 and height > 0 else 0


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    inflating = zlib.decompressobj()
    for packed in pixel_data(file):
        remaining = packed
        while remaining and not inflating.eof:
            yield inflating.decompress(remaining, PIECE_BYTES)
            remaining = inflating.unconsumed_tail
    yield inflating.flush()
