"""The structure of a PNG: signature, chunks with their checksums, header first and end last (W3C PNG, third edition)."""

import struct
from typing import Final

from domain.errors import DamagedImage
from infrastructure.images.validation.incremental import Exactly, Past, Pull, Trailer, Walk
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
LONGEST_CHUNK: Final = 2**31 - 1
ANCILLARY: Final = 0x20
TRANSPARENCY: Final = b"tRNS"


class PngStructure:
    """Fed with a PNG's bytes; `finish` tells what its header says. Both raise DamagedImage, ImageTooLarge."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._facts: ImageHeader | None = None
        self._colour = GRAY
        self.interlaced = False
        self.has_notes = False
        """Whether there may be EXIF data, a colour profile or a resolution."""
        self._seen: list[bytes] = []
        self._trailer = Trailer(limits.padding)
        self._pull = Pull(self._walk())
        self.feed = self._pull.feed

    def finish(self) -> ImageHeader:
        if self._facts is None or not self._pull.complete:
            raise cut_off("PNG")
        self._trailer.check()
        return self._facts

    def _walk(self) -> Walk:
        yield Exactly(len(SIGNATURE))
        yield from self._header()
        parts = 1
        while not self._seen or self._seen[-1] != b"IEND":
            yield from self._chunk()
            parts += 1
            if parts > self._limits.parts:
                raise too_many_parts()
        yield self._trailer

    def _header(self) -> Walk:
        length, kind = struct.unpack(">I4s", (yield Exactly(8)))
        if kind != b"IHDR" or length != 13:
            raise _damaged("its header is missing")
        body = yield Exactly(13)
        yield from _checksum(Past(0, kind + body).crc)
        self._read_header(*struct.unpack(">IIBBBBB", body))

    def _read_header(self, width: int, height: int, depth: int, colour: int, compression: int, filtering: int, interlacing: int) -> None:
        if colour not in DEPTHS or depth not in DEPTHS[colour] or compression or filtering or interlacing > 1:
            raise _damaged("its header holds impossible values")
        bands = BANDS[colour]
        check_size(width, height, bands, self._limits)
        check_unpacked(width * height * bands * max(8, depth) // 8, self._limits)
        check_memory(width * height, bands, depth, self._limits)
        self._colour, self.interlaced = colour, bool(interlacing)
        self._facts = ImageHeader(media_type="image/png", width=width, height=height, bands=bands, bits=max(8, depth))

    def _chunk(self) -> Walk:
        length, kind = struct.unpack(">I4s", (yield Exactly(8)))
        self._check_order(length, kind)
        body = Past(length, kind)
        yield body
        yield from _checksum(body.crc)

    def _check_order(self, length: int, kind: bytes) -> None:
        if length > LONGEST_CHUNK or not kind.isalpha():
            raise _damaged("a part of it has an impossible length or name")
        if not kind[0] & ANCILLARY and kind not in KNOWN_CRITICAL:
            raise _damaged("it holds a part that no reader knows")
        if kind == b"PLTE" and (length % 3 or not 3 <= length <= 768 or {b"IDAT", b"PLTE"} & {*self._seen}):
            raise _damaged("its palette is broken")
        if kind == b"IDAT" and self._colour == PALETTE and b"PLTE" not in self._seen:
            raise _damaged("its palette is missing")
        if kind == b"IDAT" and b"IDAT" in self._seen and self._seen[-1] != b"IDAT":
            raise _damaged("its picture is torn apart")
        if kind == b"IEND" and (length or b"IDAT" not in self._seen):
            raise _damaged("it holds no picture")
        if kind == TRANSPARENCY and self._facts is not None:
            facts = self._facts
            check_memory(facts.width * facts.height, facts.bands + 1, facts.bits, self._limits)
        self.has_notes |= kind in {b"eXIf", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt"}
        self._seen = [*(known for known in self._seen if known in KNOWN_CRITICAL and known != kind), kind]


def _checksum(expected: int) -> Walk:
    (stored,) = struct.unpack(">I", (yield Exactly(4)))
    if stored != expected:
        raise DamagedImage("The PNG file was changed on its way: a checksum is wrong. Send it again", reason="checksum")


def _damaged(what: str) -> DamagedImage:
    return DamagedImage(f"The PNG file is damaged: {what}. Export it again", reason="structure")
