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


class Window:
    """The bytes at hand, from position `start` of the stream on; those before index `at` are done with."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start
        self.at = 0

    def pass_over(self, most: int) -> memoryview:
        part = memoryview(self.data)[self.at : self.at + most]
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

    def __init__(self, most: int) -> None:
        self._most = most
        self._ends = MARKER_BUT_RESTART if most else MARKER
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
    """What follows a picture, up to the bytes `until`: a little padding. Raises DamagedImage (trailing_data) for anything else."""

    ends_here = True

    def __init__(self, most: int, until: bytes | None = None) -> None:
        self._left = most
        self._until = until

    def take(self, window: Window) -> bytes | None:
        found = -1 if self._until is None else window.data.find(self._until, window.at)
        end = found if found >= 0 else len(window.data) - (self._until is not None and window.data.endswith(self._until[:1]))
        part = bytes(window.pass_over(end - window.at))
        self._left -= len(part)
        if self._left < 0 or part.strip(PADDING):
            raise DamagedImage(
                "The picture ends in the middle of the file, and other data follows it: the file is damaged, or holds something beside"
                " the picture. Export the picture alone",
                reason="trailing_data",
            )
        return b"" if found >= 0 else None


class Pull:
    """Drives one walk. `feed` raises whatever the walk raises; `complete` tells whether the stream may end here."""

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
