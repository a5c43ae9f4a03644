"""The structure of a PNG: signature, and chunks with checksums, from header to end (W3C PNG, third edition)."""

import struct
from typing import Final

from domain.errors import DamagedImage
from infrastructure.images.validation.incremental import IncrementalParser, Parse, ReadExactly, Skip, Trailer
from infrastructure.images.validation.limits import (
    ImageHeader,
    ImageLimits,
    check_memory,
    check_size,
    check_unpacked,
    cut_off,
    too_many_parts,
)

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
BANDS: Final = {GRAY: 1, RGB: 3, PALETTE: 3, GRAY_ALPHA: 2, RGBA: 4}
DEPTHS: Final = {GRAY: {1, 2, 4, 8, 16}, RGB: {8, 16}, PALETTE: {1, 2, 4, 8}, GRAY_ALPHA: {8, 16}, RGBA: {8, 16}}
KNOWN_CRITICAL: Final = {b"PLTE", b"IDAT", b"IEND"}
MAX_CHUNK_BYTES: Final = 2**31 - 1
ANCILLARY: Final = 0x20
TRANSPARENCY: Final = b"tRNS"


class PngStructure:
    """Validates the bytes of a PNG. `finish` returns its header. Both raise DamagedImage, ImageTooLarge."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._image_header: ImageHeader | None = None
        self._colour = GRAY
        self.interlaced = False
        self.has_metadata = False
        """Whether there may be EXIF data, a colour profile or a resolution."""
        self._chunk_kinds: list[bytes] = []
        self._trailer = Trailer(limits.padding)
        self._parser = IncrementalParser(self._parse())
        self.feed = self._parser.feed

    def finish(self) -> ImageHeader:
        if self._image_header is None or not self._parser.complete:
            raise cut_off("PNG")
        self._trailer.check()
        return self._image_header

    def _parse(self) -> Parse:
        yield ReadExactly(len(SIGNATURE))
        yield from self._header()
        parts = 1
        while not self._chunk_kinds or self._chunk_kinds[-1] != b"IEND":
            yield from self._chunk()
            parts += 1
            if parts > self._limits.parts:
                raise too_many_parts()
        yield self._trailer

    def _header(self) -> Parse:
        length, kind = struct.unpack(">I4s", (yield ReadExactly(8)))
        if kind != b"IHDR" or length != 13:
            raise _damaged("its header is missing")
        body = yield ReadExactly(13)
        yield from _checksum(Skip(0, kind + body).crc)
        self._read_header(*struct.unpack(">IIBBBBB", body))

    def _read_header(self, width: int, height: int, depth: int, colour: int, compression: int, filtering: int, interlacing: int) -> None:
        if colour not in DEPTHS or depth not in DEPTHS[colour] or compression or filtering or interlacing > 1:
            raise _damaged("its header contains impossible values")
        bands = BANDS[colour]
        check_size(width, height, bands, self._limits)
        check_unpacked(width * height * bands * max(8, depth) // 8, self._limits)
        check_memory(width * height, bands, depth, self._limits)
        self._colour, self.interlaced = colour, bool(interlacing)
        self._image_header = ImageHeader(media_type="image/png", width=width, height=height, bands=bands, bits=max(8, depth))

    def _chunk(self) -> Parse:
        length, kind = struct.unpack(">I4s", (yield ReadExactly(8)))
        self._check_order(length, kind)
        body = Skip(length, kind)
        yield body
        yield from _checksum(body.crc)

    def _check_order(self, length: int, kind: bytes) -> None:
        if length > MAX_CHUNK_BYTES or not kind.isalpha():
            raise _damaged("a part of it has an impossible length or name")
        if not kind[0] & ANCILLARY and kind not in KNOWN_CRITICAL:
            raise _damaged("it contains a part that no reader knows")
        if kind == b"PLTE" and (length % 3 or not 3 <= length <= 768 or {b"IDAT", b"PLTE"} & {*self._chunk_kinds}):
            raise _damaged("its palette is broken")
        if kind == b"IDAT" and self._colour == PALETTE and b"PLTE" not in self._chunk_kinds:
            raise _damaged("its palette is missing")
        if kind == b"IDAT" and b"IDAT" in self._chunk_kinds and self._chunk_kinds[-1] != b"IDAT":
            raise _damaged("its picture data are not contiguous")
        if kind == b"IEND" and (length or b"IDAT" not in self._chunk_kinds):
            raise _damaged("it contains no picture")
        if kind == TRANSPARENCY and self._image_header is not None:
            header = self._image_header
            check_memory(header.width * header.height, header.bands + 1, header.bits, self._limits)
        self.has_metadata |= kind in {b"eXIf", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt"}
        self._chunk_kinds = [*(known for known in self._chunk_kinds if known in KNOWN_CRITICAL and known != kind), kind]


def _checksum(expected: int) -> Parse:
    (stored,) = struct.unpack(">I", (yield ReadExactly(4)))
    if stored != expected:
        raise DamagedImage("The PNG file was damaged in transfer: a checksum is wrong. Send it again", reason="checksum")


def _damaged(what: str) -> DamagedImage:
    return DamagedImage(f"The PNG file is damaged: {what}. Export it again", reason="structure")
