"""Reading a stream piece by piece: a walk is a generator that says what it wants next, and sleeps until that has come.

Nothing that was read is kept but the few bytes that a walk asked for, so a walk needs the same memory for any length of file and
gives the same answer however the stream is cut into chunks.
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
    (re.compile(rb"\0\0..[\x01-\x40]\0\0\0[A-Za-z]", re.DOTALL), b"SEFT"),  # notes of Samsung's camera
    (re.compile(rb"\0\0\0.ftyp", re.DOTALL), b""),  # the video of a motion photo
)
"""How data begin and end that phones append to a JPEG."""
TRAILER_START_BYTES: Final = 64
TRAILER_END_BYTES: Final = 8


class Window:
    """The bytes at hand, from position `start` of the stream on; those before index `at` are done with."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start
        self.at = 0

    def pass_over(self, maximum: int) -> memoryview:
        part = memoryview(self.data)[self.at : self.at + maximum]
        self.at += len(part)
        return part


class Wanted:
    """Something that a walk waits for."""

    ends_here = False

    def take(self, window: Window) -> bytes | None:
        """The answer, once it is complete; None while more of the stream is needed."""
        raise NotImplementedError


Walk = Generator[Wanted, bytes, None]


class Exactly(Wanted):
    """The next `count` bytes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def take(self, window: Window) -> bytes | None:
        if len(window.data) - window.at < self._count:
            return None
        return bytes(window.pass_over(self._count))


class Past(Wanted):
    """To get past `count` bytes; `crc` is their CRC-32, begun with that of `before`."""

    def __init__(self, count: int, before: bytes = b"") -> None:
        self._left = count
        self.crc = zlib.crc32(before)

    def take(self, window: Window) -> bytes | None:
        part = window.pass_over(self._left)
        self.crc = zlib.crc32(part, self.crc)
        self._left -= len(part)
        return None if self._left else b""


class MarkerAfterScan(Wanted):
    """The marker (2 bytes) that ends a JPEG's entropy-coded data. `restarts` counts the restart markers before it, up to `most`."""

    def __init__(self, maximum: int) -> None:
        self._most = maximum
        self._ends = MARKER_BUT_RESTART if maximum else MARKER
        self.restarts = 0
        self.position = 0

    def take(self, window: Window) -> bytes | None:
        found = self._ends.search(window.data, window.at)
        end = found.start() if found else len(window.data) - window.data.endswith(b"\xff")
        if self.restarts < self._most:
            between = RESTART.finditer(window.data, window.at, end)
            self.restarts += sum(1 for _ in islice(between, self._most - self.restarts))
        window.at = end
        self.position = window.start + end
        return bytes(window.pass_over(2)) if found else None


class Trailer(Wanted):
    """What follows a picture, up to the bytes `until`: padding of at most `most` bytes, or data that phones are known to append.

    Raises DamagedImage (trailing_data) for anything else, as soon as its first bytes show it; `check` looks at its end, too.
    """

    ends_here = True

    def __init__(self, maximum: int, until: bytes | None = None) -> None:
        self._left = maximum
        self._until = until
        self._start = b""
        self._end = b""
        self.appended = False

    def take(self, window: Window) -> bytes | None:
        data = window.data[window.at :]
        if self._until is not None and not self.appended:
            before, found, _ = data.partition(self._until)
            if found and not before.strip(PADDING):
                self._note(bytes(window.pass_over(len(before))))
                return b""
            if not data.strip(PADDING) and data.endswith(self._until[:1]):
                data = data[:-1]
        self._note(bytes(window.pass_over(len(data))))
        return None

    def check(self) -> None:
        """At the end of the file. Raises DamagedImage (trailing_data)."""
        if self.appended and not any(start.match(self._start) and self._end.endswith(end) for start, end in PHONE_TRAILERS):
            raise trailing_data()

    def _note(self, data: bytes) -> None:
        self._start += data[: TRAILER_START_BYTES - len(self._start)]
        self._end = (self._end + data)[-TRAILER_END_BYTES:]
        if not self.appended:
            self.appended = bool(data.strip(PADDING))
            self._left -= 0 if self.appended else len(data)
        unknown = len(self._start) == TRAILER_START_BYTES and not any(start.match(self._start) for start, _ in PHONE_TRAILERS)
        if self._left < 0 or (self.appended and unknown):
            raise trailing_data()


def trailing_data() -> DamagedImage:
    return DamagedImage(
        "The picture ends in the middle of the file, and unknown data follow it: the file is damaged, or holds something beside the"
        " picture. Export the picture alone",
        reason="trailing_data",
    )


class Pull:
    """Drives one walk. `feed` raises whatever the walk raises; `complete` says whether the stream may end here."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._wanted = next(walk)
        self._held = b""
        self._position = 0

    def feed(self, chunk: bytes) -> None:
        window = Window(self._held + chunk, self._position)
        while (answer := self._wanted.take(window)) is not None:
            self._wanted = self._walk.send(answer)
        self._held = window.data[window.at :]
        self._position += window.at

    @property
    def complete(self) -> bool:
        return self._wanted.ends_here
