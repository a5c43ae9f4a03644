"""The chunks of a valid PNG. Memory is bounded, except for the pixel data."""

import struct
import zlib
from collections.abc import Iterator
from itertools import takewhile
from typing import BinaryIO, Final

from infrastructure.images.validation.png import SIGNATURE

PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
EXIF, PROFILE, RESOLUTION = b"eXIf", b"iCCP", b"pHYs"
MAX_METADATA_BYTES: Final = 4 << 20
RESOLUTION_BYTES: Final = 9
PIXELS_PER_METRE: Final = 1
METRES_PER_INCH: Final = 0.0254
PIECE_BYTES: Final = 1 << 18
CHECKSUM_BYTES: Final = 4


def pixel_chunks(file: BinaryIO) -> bytearray:
    """The PNG with only the chunks that affect pixels, so that other chunks cannot make the decoder fail."""
    kept = bytearray(SIGNATURE)
    for kind, length in _chunks(file):
        if kind in PIXEL_CHUNKS:
            kept += struct.pack(">I4s", length, kind)
            for piece in _pieces(file, length + CHECKSUM_BYTES):
                kept += piece
    return kept


def pixel_data(file: BinaryIO) -> Iterator[bytes]:
    """The compressed pixels, in pieces."""
    for kind, length in _chunks(file):
        if kind == b"IDAT":
            yield from _pieces(file, length)


def exif(file: BinaryIO) -> bytes:
    """The EXIF data; empty if there are none, or if they are too long."""
    return _chunk_data(file, EXIF, _chunks(file))


def profile(file: BinaryIO, *, maximum: int) -> bytes:
    """The first `maximum` bytes of the embedded ICC profile, or empty. A damaged profile is returned as stored."""
    data = _chunk_data(file, PROFILE, _chunks_before_pixels(file))
    _, _, packed = data.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], maximum)
    except zlib.error:
        return data


def dots_per_inch(file: BinaryIO) -> tuple[float, float] | None:
    """The horizontal and vertical resolution, if the file contains it in pixels per metre."""
    data = _chunk_data(file, RESOLUTION, _chunks_before_pixels(file))
    if len(data) != RESOLUTION_BYTES or data[-1] != PIXELS_PER_METRE:
        return None
    across, down = struct.unpack_from(">II", data)
    return across * METRES_PER_INCH, down * METRES_PER_INCH


def _chunk_data(file: BinaryIO, name: bytes, chunks: Iterator[tuple[bytes, int]]) -> bytes:
    length = next((length for kind, length in chunks if kind == name), 0)
    return file.read(length) if length <= MAX_METADATA_BYTES else b""


def _chunks_before_pixels(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    return takewhile(lambda chunk: chunk[0] != b"IDAT", _chunks(file))


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Type and length of each chunk. While one is yielded, the file is at the first byte of its data."""
    at = len(SIGNATURE)
    file.seek(at)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield kind, length
        at += 8 + length + CHECKSUM_BYTES
        file.seek(at)


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        piece = file.read(min(length, PIECE_BYTES))
        if not piece:
            return
        length -= len(piece)
        yield piece
