"""The structure of a TIFF or BigTIFF: its directories, and the check that all their offsets are within the file (TIFF 6.0)."""

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import msgspec

from domain.errors import DamagedImage, ImageTooLarge
from infrastructure.images.validation.limits import ImageLimits, cut_off

MAGIC: Final = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
TYPE_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGERS: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
RATIONAL: Final = 5
SUBDIRECTORIES: Final = 330
UTF_16_STARTS: Final = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")
DESCRIBING: Final = frozenset({*range(254, 267), 273, 274, *range(277, 285), *range(317, 348), *range(529, 533)})
"""The tags that describe how pixels are stored. If a directory repeats one, as some programs do, the values must be equal."""
MAX_REPEATED_BYTES: Final = 64


class Entry(msgspec.Struct, frozen=True):
    """One tag: its type, the number of values, and their offset in the file."""

    kind: int
    count: int
    at: int


class Directory(msgspec.Struct, frozen=True):
    """The tags of one page. `page` counts from 1; None for a sub-directory. All values are within the file."""

    entries: dict[int, Entry]
    page: int | None
    file: "Tiff"

    def numbers(self, tag: int, *default: int, maximum: int) -> Sequence[int]:
        """All values of an integer tag. Raises DamagedImage if they are not integers, ImageTooLarge if there are more than `maximum`."""
        entry = self.entries.get(tag)
        if entry is None or not entry.count:
            return default
        if entry.count > maximum:
            raise too_many_parts()
        return self.file.integers(entry)

    def number(self, tag: int, default: int = 0) -> int:
        """The first value only, since many pages may share one long list."""
        entry = self.entries.get(tag)
        return self.file.integers(Entry(entry.kind, 1, entry.at))[0] if entry and entry.count else default

    def ratio(self, tag: int) -> float | None:
        found = self.ratios(tag, 1)
        return (found[0] or None) if found else None

    def ratios(self, tag: int, count: int) -> tuple[float, ...] | None:
        """The first `count` ratios; None if there are fewer, or another type. A division by zero gives 0."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind != RATIONAL or entry.count < count:
            return None
        parts = self.file.unpack(f"{2 * count}I", entry.at)
        return tuple(above / below if below else 0.0 for above, below in zip(parts[::2], parts[1::2], strict=True))

    def text(self, tag: int, *, maximum: int | None = None) -> str:
        """A text up to its NUL, or its first `maximum` bytes; empty if it is missing. Raises DamagedImage (metadata_too_large).

        It is decoded as UTF-16 if it starts accordingly, else as UTF-8, else as Latin-1; an XML declaration is ignored.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in {1, 2, 7}:
            return ""
        if maximum is None and entry.count > self.file.limits.metadata_bytes:
            raise DamagedImage(
                "The description inside the TIFF file is too long. Export it again with less metadata", reason="metadata_too_large"
            )
        return _decoded(self.file.read(entry.at, entry.count if maximum is None else min(entry.count, maximum)))

    def bytes(self, tag: int, *, maximum: int) -> bytes:
        """The first `maximum` raw bytes of a tag; empty if it is missing."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in {1, 2, 7}:
            return b""
        return self.file.read(entry.at, min(entry.count, maximum))


class Tiff:
    """A TIFF in a seekable file. Reading beyond its end raises DamagedImage (truncated)."""

    def __init__(self, file: BinaryIO, limits: ImageLimits) -> None:
        self.limits = limits
        self.size = file.seek(0, 2)
        self._file = file
        self._order, self._big = MAGIC.get(self.read(0, 4), ("", False))
        if not self._order or (self._big and self.unpack("HH", 4) != (8, 0)):
            raise damaged("its header is broken")
        self._word = "Q" if self._big else "I"
        self._entry = struct.Struct(self._order + ("HHQ8s" if self._big else "HHI4s"))
        self._visited: set[int] = set()
        self._tags = 0

    def pages(self) -> Iterator[Directory]:
        """The directories of the main chain, in order. Raises DamagedImage (directory_loop) and ImageTooLarge (too_many_pages)."""
        for page, entries in enumerate(self._chain(*self.unpack(self._word, 8 if self._big else 4)), 1):
            if page > self.limits.pages:
                raise ImageTooLarge(
                    f"The TIFF file has more than {self.limits.pages} pages. Split it into several files", reason="too_many_pages"
                )
            yield Directory(entries, page, self)
        if not self._visited:
            raise damaged("it contains no picture")

    def below(self, directory: Directory) -> Iterator[Directory]:
        """The sub-directories of a page (pyramid levels), recursively. Only the list of offsets counts, not the chain between siblings."""
        pending = [directory]
        while pending:
            for start in pending.pop().numbers(SUBDIRECTORIES, maximum=self.limits.directories):
                pending.append(Directory(self._visit(start)[0], None, self))
                yield pending[-1]

    @property
    def big_endian(self) -> bool:
        return self._order == ">"

    def read(self, at: int, count: int) -> bytes:
        if at + count > self.size:
            raise cut_off("TIFF")
        self._file.seek(at)
        return self._file.read(count)

    def unpack(self, layout: str, at: int) -> tuple[int, ...]:
        layout = self._order + layout
        return struct.unpack(layout, self.read(at, struct.calcsize(layout)))

    def integers(self, entry: Entry) -> Sequence[int]:
        if entry.kind not in INTEGERS:
            raise damaged("a number in it has a wrong type")
        values = array(INTEGERS[entry.kind], self.read(entry.at, entry.count * TYPE_SIZES[entry.kind]))
        if (self._order == "<") != (sys.byteorder == "little"):
            values.byteswap()
        return values

    def _chain(self, at: int) -> Iterator[dict[int, Entry]]:
        while at:
            entries, at = self._visit(at)
            yield entries

    def _visit(self, at: int) -> tuple[dict[int, Entry], int]:
        if at in self._visited:
            raise DamagedImage("The pages of the TIFF file form a loop. Export it again", reason="directory_loop")
        self._visited.add(at)
        if len(self._visited) > self.limits.directories:
            raise ImageTooLarge("The TIFF file has too many pages and levels. Split it into several files", reason="too_many_pages")
        return self._directory(at)

    def _directory(self, at: int) -> tuple[dict[int, Entry], int]:
        """The entries of the directory at `at`, and the offset of the next one."""
        (count,) = self.unpack("Q" if self._big else "H", at)
        self._tags += count
        if self._tags > self.limits.tags:
            raise too_many_parts()
        first = at + (8 if self._big else 2)
        block = self.read(first, count * self._entry.size)
        entries: dict[int, Entry] = {}
        for index, (tag, kind, values, _) in enumerate(self._entry.iter_unpack(block)):
            if kind in TYPE_SIZES and values:
                self._add(entries, tag, self._located(kind, values, first + index * self._entry.size))
        (following,) = self.unpack(self._word, first + len(block))
        return entries, following

    def _located(self, kind: int, count: int, at: int) -> Entry:
        """An entry with the offset of its values, which are in the entry itself if they are short."""
        size = count * TYPE_SIZES[kind]
        inline = 8 if self._big else 4
        value_at = at + self._entry.size - inline
        if size > inline:
            (value_at,) = self.unpack(self._word, value_at)
        if value_at + size > self.size:
            raise cut_off_or_damaged()
        return Entry(kind, count, value_at)

    def _add(self, entries: dict[int, Entry], tag: int, entry: Entry) -> None:
        known = entries.setdefault(tag, entry)
        if tag in DESCRIBING and not self._same(known, entry):
            raise damaged("one of its pages has contradictory tags")

    def _same(self, first: Entry, second: Entry) -> bool:
        """Whether two entries are equal: short values are compared, long ones must have the same offset."""
        size = first.count * TYPE_SIZES[first.kind]
        if first == second or (first.kind, first.count) != (second.kind, second.count) or size > MAX_REPEATED_BYTES:
            return first == second
        return self.read(first.at, size) == self.read(second.at, size)


def _decoded(raw: bytes) -> str:
    if raw.startswith(UTF_16_STARTS):
        return (
            raw.decode("utf-16-be" if raw.startswith((b"\xfe\xff", b"\0<")) else "utf-16-le", "replace").lstrip("\ufeff").split("\0", 1)[0]
        )
    text = raw.split(b"\0", 1)[0]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def cut_off_or_damaged() -> DamagedImage:
    return DamagedImage("The TIFF file refers to data after its end: it is incomplete or damaged. Send it again", reason="truncated")


def damaged(what: str) -> DamagedImage:
    return DamagedImage(f"The TIFF file is damaged: {what}. Export it again", reason="structure")


def too_few_pixels() -> DamagedImage:
    return damaged("it contains fewer pixels than it declares")


def too_many_parts() -> ImageTooLarge:
    return ImageTooLarge("The TIFF file has too many small parts. Export it again with larger tiles or strips", reason="too_many_parts")
