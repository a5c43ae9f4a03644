"""The structure of a JPEG: markers from start to end, and consistent frame and scans (ITU-T T.81, annexes B and G)."""

import struct
from collections.abc import Generator
from typing import Final

from domain.errors import ImageTooLarge
from infrastructure.images.validation.incremental import (
    FindMarkerAfterScan,
    IncrementalParser,
    Parse,
    ReadExactly,
    ReadRequest,
    Skip,
    Trailer,
)
from infrastructure.images.validation.jpeg_frame import Component, Frame, damaged, parts_of, read_frame, unsupported_coding
from infrastructure.images.validation.limits import ImageHeader, ImageLimits, check_memory, cut_off, incomplete, too_many_parts

START, END, SCAN, RESTART_INTERVAL, APP1, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xDD, 0xE1, 0xE2, 0xEE
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
MISPLACED_MARKERS: Final = frozenset({0x00, 0x01, START, *range(0xD0, 0xD8)})
UNSUPPORTED_MARKERS: Final = frozenset({*range(0x02, 0xC0), 0xC8, 0xDE, 0xDF, *range(0xF0, 0xFE)})
"""Reserved markers, and those of hierarchical and extended JPEG, which no decoder skips."""
MULTI_PICTURE: Final = b"MPF\0"
MAX_PICTURES: Final = 16
BYTES_PER_BLOCK: Final = 128
COEFFICIENTS: Final = 64
MAX_UNIT_BLOCKS: Final = 10
NO_BITS: Final = (0,) * COEFFICIENTS
NOT_SCANNED: Final = 16  # more missing bits than a scan can leave

Marker = Generator[ReadRequest, bytes, int]


class JpegStructure:
    """Validates the bytes of a JPEG. `finish` returns its header. Both raise DamagedImage, UnsupportedImage, ImageTooLarge.

    After the picture may follow padding, further complete JPEGs if the first one announces them (phones store previews and gain maps that
    way), or known data of phones. Anything else means that damage has cut the picture short, which decoders fill with grey silently, or
    that a second file is hidden after the first.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._first = Picture(limits)
        self._others: list[Picture] = []
        self._trailers: list[Trailer] = []
        self._parser = IncrementalParser(self._parse())
        self.feed = self._parser.feed

    def finish(self) -> ImageHeader:
        frame = self._first.frame
        if frame is None or not self._parser.complete:
            raise cut_off("JPEG")
        for trailer in self._trailers:
            trailer.check()
        return ImageHeader(media_type="image/jpeg", width=frame.width, height=frame.height, bands=len(frame.components), bits=8)

    @property
    def parts(self) -> int:
        """The number of segments of all pictures."""
        return sum(picture.parts for picture in (self._first, *self._others))

    @property
    def has_trailer(self) -> bool:
        """Whether data other than pictures are appended."""
        return any(trailer.appended for trailer in self._trailers)

    @property
    def has_metadata(self) -> bool:
        """Whether there may be EXIF data, a colour profile or an Adobe marker."""
        return self._first.has_metadata

    @property
    def progressive(self) -> bool:
        return self._first.frame is not None and self._first.frame.progressive

    @property
    def scan_end(self) -> int:
        """The offset of the marker after the last entropy-coded data of the (first) picture."""
        return self._first.scan_end

    def _parse(self) -> Parse:
        yield from self._first.parse()
        if self._first.announces_more:
            for _ in range(MAX_PICTURES):
                yield self._trailer(until=bytes((0xFF, START)))
                self._others.append(Picture(self._limits))
                yield from self._others[-1].parse()
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
        self.has_metadata = False
        self.scan_end = 0

    def parse(self) -> Parse:
        if (yield ReadExactly(2)) != bytes((0xFF, START)):
            raise damaged("its start is missing")
        marker = yield from _next_marker()
        while marker != END:
            self.parts += 1
            if self.parts > self._limits.parts:
                raise too_many_parts()
            marker = yield from self._segment(marker)
        self._check_complete()

    def _segment(self, marker: int) -> Marker:
        if marker in MISPLACED_MARKERS:
            raise damaged("a marker is at an invalid place")
        if marker in UNSUPPORTED_MARKERS:
            raise unsupported_coding()
        (length,) = struct.unpack(">H", (yield ReadExactly(2)))
        if length < 2:
            raise damaged("a part of it has an impossible length")
        self.has_metadata |= marker in {APP1, APP2, APP14}
        if marker == SCAN:
            return (yield from self._scan((yield ReadExactly(length - 2))))
        if marker in FRAMES or marker in {RESTART_INTERVAL, APP2}:
            self._read(marker, (yield ReadExactly(length - 2)))
        elif length > 2:
            yield Skip(length - 2)
        return (yield from _next_marker())

    def _read(self, marker: int, body: bytes) -> None:
        if marker == APP2:
            self.announces_more |= body.startswith(MULTI_PICTURE)
        elif marker == RESTART_INTERVAL:
            if len(body) != 2:
                raise damaged("its restart interval is broken")
            (self._interval,) = struct.unpack(">H", body)
        elif self.frame is not None:
            raise damaged("it has two headers")
        else:
            self.frame = read_frame(marker, body, self._limits)
            self._check_memory(self.frame, 0)

    def _scan(self, body: bytes) -> Marker:
        if self.frame is None:
            raise damaged("its picture comes before its header")
        scanned = self._read_scan(self.frame, body)
        expected = parts_of(self.frame.units(scanned), self._interval) - 1 if self._interval else 0
        search = FindMarkerAfterScan(expected + 2 if self._interval else 0)
        marker = yield search
        if not expected <= search.restarts <= expected + 1:  # some encoders write one more after the last unit
            raise incomplete("JPEG")
        self.scan_end = search.position
        return marker[1]

    def _read_scan(self, frame: Frame, body: bytes) -> list[Component]:
        count = body[0] if body else 0
        if not 1 <= count <= len(frame.components) or len(body) != 4 + 2 * count:
            raise damaged("the header of its picture data is broken")
        scanned = frame.named(body[1 : 1 + 2 * count : 2])
        first, last, bits = body[-3:]
        if count > 1 and sum(it.across * it.down for it in scanned) > MAX_UNIT_BLOCKS:
            raise damaged("the header of its picture data is broken")
        if len(scanned) != count or first > last or last >= COEFFICIENTS:
            raise damaged("the header of its picture data is broken")
        self._count_scan(frame, whole=count == len(frame.components))
        for component in scanned:
            missing = self._missing_bits.setdefault(component.index, [NOT_SCANNED, *NO_BITS[1:]])
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
            raise damaged("it contains no picture")
        if len(self._missing_bits) < len(self.frame.components) or any(map(any, self._missing_bits.values())):
            raise incomplete("JPEG")


def _next_marker() -> Marker:
    lead, marker = yield ReadExactly(2)
    if lead != 0xFF:
        raise damaged("there are invalid bytes between its parts")
    while marker == 0xFF:
        (marker,) = yield ReadExactly(1)
    return marker
