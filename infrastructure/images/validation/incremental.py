"""Incremental parsing of a stream: a parser is a generator that yields read requests and receives their results.

Only the few requested bytes are kept. So memory does not depend on the length of the file, and the result not on how the stream is cut into
chunks.
"""

import re
import zlib
from collections.abc import Generator
from itertools import islice
from typing import Final

from domain.errors import DamagedImage

PADDING: Final = b"\0\xff\r\n\t "
RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")
MARKER: Final = re.compile(rb"\xff[\x01-\xfe]")
MARKER_BUT_RESTART: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
PHONE_TRAILERS: Final = (
    (re.compile(rb"\0\0..[\x01-\x40]\0\0\0[A-Za-z]", re.DOTALL), b"SEFT"),  # data of Samsung's camera
    (re.compile(rb"\0\0\0.ftyp", re.DOTALL), b""),  # the video of a motion photo
)
"""The start and end of data that phones append to a JPEG."""
TRAILER_START_BYTES: Final = 64
TRAILER_END_BYTES: Final = 8


class Window:
    """Bytes of the stream from the offset `start`. Those before the index `at` are consumed."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start
        self.at = 0

    def consume(self, maximum: int) -> memoryview:
        part = memoryview(self.data)[self.at : self.at + maximum]
        self.at += len(part)
        return part


class ReadRequest:
    """A request of a parser for data."""

    may_end = False

    def read(self, window: Window) -> bytes | None:
        """The result, or None while more of the stream is needed."""
        raise NotImplementedError


Parse = Generator[ReadRequest, bytes, None]


class ReadExactly(ReadRequest):
    """Requests the next `count` bytes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def read(self, window: Window) -> bytes | None:
        if len(window.data) - window.at < self._count:
            return None
        return bytes(window.consume(self._count))


class Skip(ReadRequest):
    """Skips `count` bytes. `crc` is the CRC-32 of `before` and these bytes."""

    def __init__(self, count: int, before: bytes = b"") -> None:
        self._remaining = count
        self.crc = zlib.crc32(before)

    def read(self, window: Window) -> bytes | None:
        part = window.consume(self._remaining)
        self.crc = zlib.crc32(part, self.crc)
        self._remaining -= len(part)
        return None if self._remaining else b""


class FindMarkerAfterScan(ReadRequest):
    """Finds the 2-byte marker after a JPEG's entropy-coded data. `restarts` counts restart markers before it, up to `maximum`."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._ends = MARKER_BUT_RESTART if maximum else MARKER
        self.restarts = 0
        self.position = 0

    def read(self, window: Window) -> bytes | None:
        found = self._ends.search(window.data, window.at)
        end = found.start() if found else len(window.data) - window.data.endswith(b"\xff")
        if self.restarts < self._maximum:
            between = RESTART.finditer(window.data, window.at, end)
            self.restarts += sum(1 for _ in islice(between, self._maximum - self.restarts))
        window.at = end
        self.position = window.start + end
        return bytes(window.consume(2)) if found else None


class Trailer(ReadRequest):
    """Reads data after a picture, up to the bytes `until`: padding of at most `maximum` bytes, or known data of phones.

    Raises DamagedImage (trailing_data) for anything else as early as possible. `check` also verifies the end.
    """

    may_end = True

    def __init__(self, maximum: int, until: bytes | None = None) -> None:
        self._remaining = maximum
        self._until = until
        self._start = b""
        self._end = b""
        self.appended = False

    def read(self, window: Window) -> bytes | None:
        data = window.data[window.at :]
        if self._until is not None and not self.appended:
            before, found, _ = data.partition(self._until)
            if found and not before.strip(PADDING):
                self._note(bytes(window.consume(len(before))))
                return b""
            if not data.strip(PADDING) and data.endswith(self._until[:1]):
                data = data[:-1]
        self._note(bytes(window.consume(len(data))))
        return None

    def check(self) -> None:
        """Check the data at the end of the file. Raises DamagedImage (trailing_data)."""
        if self.appended and not any(start.match(self._start) and self._end.endswith(end) for start, end in PHONE_TRAILERS):
            raise trailing_data()

    def _note(self, data: bytes) -> None:
        self._start += data[: TRAILER_START_BYTES - len(self._start)]
        self._end = (self._end + data)[-TRAILER_END_BYTES:]
        if not self.appended:
            self.appended = bool(data.strip(PADDING))
            self._remaining -= 0 if self.appended else len(data)
        unknown = len(self._start) == TRAILER_START_BYTES and not any(start.match(self._start) for start, _ in PHONE_TRAILERS)
        if self._remaining < 0 or (self.appended and unknown):
            raise trailing_data()


def trailing_data() -> DamagedImage:
    return DamagedImage(
        "The picture ends before the end of the file, and unknown data follow it: the file is damaged, or contains something else."
        " Export only the picture",
        reason="trailing_data",
    )


class IncrementalParser:
    """Runs one parser. `feed` raises the parser's errors; `complete`: the stream may end here."""

    def __init__(self, parse: Parse) -> None:
        self._parse = parse
        self._request = next(parse)
        self._unread = b""
        self._position = 0

    def feed(self, chunk: bytes) -> None:
        window = Window(self._unread + chunk, self._position)
        while (answer := self._request.read(window)) is not None:
            self._request = self._parse.send(answer)
        self._unread = window.data[window.at :]
        self._position += window.at

    @property
    def complete(self) -> bool:
        return self._request.may_end
