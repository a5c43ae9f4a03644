"""The structure of a JPEG: markers from start to end, frame and scans that fit together (ITU-T T.81, annexes B and G)."""

import struct
from collections.abc import Generator
from typing import Final

import msgspec

from domain.errors import DamagedImage, ImageTooLarge, UnsupportedImage
from infrastructure.images.validation.incremental import Exactly, MarkerAfterScan, Past, Pull, Trailer, Walk, Wanted
from infrastructure.images.validation.limits import ImageHeader, ImageLimits, check_memory, check_size, cut_off, too_many_parts

START, END, SCAN, RESTART_INTERVAL, APP1, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xDD, 0xE1, 0xE2, 0xEE
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
NEVER_HERE: Final = frozenset({0x00, 0x01, START, *range(0xD0, 0xD8)})
MULTI_PICTURE: Final = b"MPF\0"
MOST_PICTURES: Final = 16
BLOCK: Final = 8
BYTES_PER_BLOCK: Final = 128
COEFFICIENTS: Final = 64
NO_BITS: Final = (0,) * COEFFICIENTS
UNSEEN: Final = 16  # more bits than a scan can leave out

Marker = Generator[Wanted, bytes, int]


class Component(msgspec.Struct, frozen=True):
    id: int
    across: int
    down: int


class Frame(msgspec.Struct, frozen=True):
    """The picture as its frame header claims it; sampling factors as in the standard."""

    width: int
    height: int
    components: tuple[Component, ...]
    progressive: bool

    def blocks(self, component: Component) -> int:
        across = _parts(self.width * component.across, BLOCK * self._most_across)
        return across * _parts(self.height * component.down, BLOCK * self._most_down)

    def units(self, scanned: list[Component]) -> int:
        """The minimum coded units of a scan of these components: single blocks when there is but one."""
        if len(scanned) == 1:
            return self.blocks(scanned[0])
        return _parts(self.width, BLOCK * self._most_across) * _parts(self.height, BLOCK * self._most_down)

    @property
    def _most_across(self) -> int:
        return max(component.across for component in self.components)

    @property
    def _most_down(self) -> int:
        return max(component.down for component in self.components)


class JpegStructure:
    """Fed with a JPEG's bytes; `finish` tells what its frame says. Both raise DamagedImage, UnsupportedImage, ImageTooLarge.

    After the picture only padding may follow, further whole JPEGs where the first one announces them (phones store previews and
    gain maps so), or data of a kind that phones are known to append. Anything else after an end marker is a picture cut short by
    damage, which decoders fill with gray in silence, or a second file hidden behind the first.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._first = Picture(limits)
        self._others: list[Picture] = []
        self._trailers: list[Trailer] = []
        self._pull = Pull(self._walk())
        self.feed = self._pull.feed

    def finish(self) -> ImageHeader:
        frame = self._first.frame
        if frame is None or not self._pull.complete:
            raise cut_off("JPEG")
        for trailer in self._trailers:
            trailer.check()
        return ImageHeader(media_type="image/jpeg", width=frame.width, height=frame.height, bands=len(frame.components), bits=8)

    @property
    def parts(self) -> int:
        """How many segments there were, of all pictures."""
        return sum(picture.parts for picture in (self._first, *self._others))

    @property
    def has_trailer(self) -> bool:
        """Whether a phone has appended other data than pictures."""
        return any(trailer.appended for trailer in self._trailers)

    @property
    def has_notes(self) -> bool:
        """Whether there may be EXIF data, a colour profile or Adobe's marker."""
        return self._first.has_notes

    @property
    def progressive(self) -> bool:
        return self._first.frame is not None and self._first.frame.progressive

    @property
    def scan_end(self) -> int:
        """Where the last entropy-coded byte of the (first) picture was followed by a marker."""
        return self._first.scan_end

    def _walk(self) -> Walk:
        yield from self._first.walk()
        if self._first.announces_more:
            for _ in range(MOST_PICTURES):
                yield self._trailer(until=bytes((0xFF, START)))
                self._others.append(Picture(self._limits))
                yield from self._others[-1].walk()
        yield self._trailer()

    def _trailer(self, until: bytes | None = None) -> Trailer:
        self._trailers.append(Trailer(self._limits.padding, until))
        return self._trailers[-1]


class Picture:
    """One picture, from its start marker to its end marker."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._interval = 0
        self._scans = 0
        self._missing_bits: dict[int, list[int]] = {}
        self.parts = 0
        self.frame: Frame | None = None
        self.announces_more = False
        self.has_notes = False
        self.scan_end = 0

    def walk(self) -> Walk:
        if (yield Exactly(2)) != bytes((0xFF, START)):
            raise _damaged("its start is missing")
        marker = yield from _next_marker()
        while marker != END:
            self.parts += 1
            if self.parts > self._limits.parts:
                raise too_many_parts()
            marker = yield from self._segment(marker)
        self._check_complete()

    def _segment(self, marker: int) -> Marker:
        if marker in NEVER_HERE:
            raise _damaged("a marker stands where none may")
        (length,) = struct.unpack(">H", (yield Exactly(2)))
        if length < 2:
            raise _damaged("a part of it has an impossible length")
        self.has_notes |= marker in {APP1, APP2, APP14}
        if marker == SCAN:
            return (yield from self._scan((yield Exactly(length - 2))))
        if marker in FRAMES or marker in {RESTART_INTERVAL, APP2}:
            self._read(marker, (yield Exactly(length - 2)))
        elif length > 2:
            yield Past(length - 2)
        return (yield from _next_marker())

    def _read(self, marker: int, body: bytes) -> None:
        if marker == APP2:
            self.announces_more |= body.startswith(MULTI_PICTURE)
        elif marker == RESTART_INTERVAL:
            if len(body) != 2:
                raise _damaged("its restart interval is broken")
            (self._interval,) = struct.unpack(">H", body)
        elif self.frame is not None:
            raise _damaged("it has two headers")
        else:
            self.frame = _frame(marker, body, self._limits)
            self._check_memory(self.frame, 0)

    def _scan(self, body: bytes) -> Marker:
        if self.frame is None:
            raise _damaged("its picture comes before its header")
        scanned = self._read_scan(self.frame, body)
        expected = _parts(self.frame.units(scanned), self._interval) - 1 if self._interval else 0
        ends = MarkerAfterScan(expected + 2 if self._interval else 0)
        marker = yield ends
        if not expected <= ends.restarts <= expected + 1:  # some encoders write one more, after the last unit
            raise _incomplete()
        self.scan_end = ends.position
        return marker[1]

    def _read_scan(self, frame: Frame, body: bytes) -> list[Component]:
        count = body[0] if body else 0
        if not 1 <= count <= len(frame.components) or len(body) != 4 + 2 * count:
            raise _damaged("the header of its picture data is broken")
        wanted = body[1 : 1 + 2 * count : 2]
        scanned = [component for component in frame.components if component.id in wanted]
        first, last, bits = body[-3:]
        if len(scanned) != count or first > last or last >= COEFFICIENTS:
            raise _damaged("the header of its picture data is broken")
        self._count_scan(frame, whole=count == len(frame.components))
        for component in scanned:
            missing = self._missing_bits.setdefault(component.id, [UNSEEN, *NO_BITS[1:]])
            missing[first : last + 1] = [bits & 15] * (last + 1 - first)
        return scanned

    def _count_scan(self, frame: Frame, *, whole: bool) -> None:
        self._scans += 1
        if self._scans > self._limits.scans:
            raise ImageTooLarge("The JPEG file has too many passes. Save it as an ordinary JPEG", reason="too_many_parts")
        if frame.progressive or not whole:
            self._check_memory(frame, BYTES_PER_BLOCK * sum(map(frame.blocks, frame.components)))

    def _check_memory(self, frame: Frame, block: int) -> None:
        check_memory(frame.width * frame.height, len(frame.components), 8, self._limits, block=block)

    def _check_complete(self) -> None:
        if self.frame is None:
            raise _damaged("it holds no picture")
        if len(self._missing_bits) < len(self.frame.components) or any(map(any, self._missing_bits.values())):
            raise _incomplete()


def _next_marker() -> Marker:
    lead, marker = yield Exactly(2)
    if lead != 0xFF:
        raise _damaged("there is rubbish between its parts")
    while marker == 0xFF:
        (marker,) = yield Exactly(1)
    return marker


def _frame(marker: int, body: bytes, limits: ImageLimits) -> Frame:
    if marker not in {BASELINE, EXTENDED, PROGRESSIVE}:
        raise UnsupportedImage(
            "The JPEG file is coded in a rare way. Save it as an ordinary (baseline or progressive) JPEG", reason="unsupported_coding"
        )
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise _damaged("its header is broken")
    bits, height, width, count = struct.unpack(">BHHB", body[:6])
    check_size(width, height, count, limits)
    if bits != 8:
        raise UnsupportedImage(
            f"The JPEG file has {bits} bits per band; 8 are taken. Save it as TIFF or PNG with 16 bits", reason="unsupported_bit_depth"
        )
    if count not in {1, 3, 4}:
        raise UnsupportedImage(f"The JPEG file has {count} bands; 1, 3 or 4 are taken. Save it as TIFF", reason="unsupported_layout")
    components = tuple(Component(identity, sampling >> 4, sampling & 15) for identity, sampling, _ in struct.iter_unpack("BBB", body[6:]))
    if len({component.id for component in components}) != count or any(not (0 < it.across < 5 and 0 < it.down < 5) for it in components):
        raise _damaged("its header is broken")
    return Frame(width, height, components, marker == PROGRESSIVE)


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)


def _incomplete() -> DamagedImage:
    return DamagedImage("The JPEG file is damaged: a part of its picture is missing. Save or export it again", reason="incomplete")


def _damaged(what: str) -> DamagedImage:
    return DamagedImage(f"The JPEG file is damaged: {what}. Save or export it again", reason="structure")
