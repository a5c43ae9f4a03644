"""The chunks of a PNG whose structure holds. Memory does not grow with the file, unless its pixels are asked for."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from infrastructure.images.validation.png import SIGNATURE

PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
EXIF: Final = b"eXIf"
MAX_EXIF_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 1 << 18
CHECKSUM_BYTES: Final = 4


def pixel_chunks(file: BinaryIO) -> bytearray:
    """The PNG without the chunks that no pixel depends on, so that none of them can keep the decoder from its work."""
    kept = bytearray(SIGNATURE)
    for kind, length in _chunks(file):
        if kind in PIXEL_CHUNKS:
            kept += struct.pack(">I4s", length, kind)
            for piece in _pieces(file, length + CHECKSUM_BYTES):
                kept += piece
    return kept


def pixel_data(file: BinaryIO) -> Iterator[bytes]:
    """The compressed pixels, piece by piece."""
    for kind, length in _chunks(file):
        if kind == b"IDAT":
            yield from _pieces(file, length)


def exif(file: BinaryIO) -> bytes:
    """Empty where there is none of a reasonable length."""
    lengths = (length for kind, length in _chunks(file) if kind == EXIF)
    length = next(lengths, 0)
    return file.read(length) if length <= MAX_EXIF_BYTES else b""


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each; the file stands at its first byte meanwhile."""
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
