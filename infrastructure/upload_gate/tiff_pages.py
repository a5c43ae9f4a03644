"""How the pages of a TIFF are stored, and whether our decoders can read them: size, numbers, compression, strips and tiles."""

from collections.abc import Sequence
from typing import BinaryIO, Final

import msgspec

from domain.errors import DamagedImage, UnsupportedImage
from infrastructure.upload_gate.facts import ImageLimits, Sniffed, check_block, check_size, check_unpacked
from infrastructure.upload_gate.jpeg import JpegStructure
from infrastructure.upload_gate.tiff import Directory, Tiff, damaged, too_many_parts

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, BANDS, ROWS_PER_STRIP, STRIP_SIZES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES, SAMPLE_FORMAT = 322, 323, 324, 325, 339

RAW, LZW, JPEG, DEFLATE, DEFLATE_OLD, PACKBITS, ZSTD = 1, 5, 7, 8, 32946, 32773, 50000
READABLE: Final = frozenset({RAW, LZW, JPEG, DEFLATE, DEFLATE_OLD, PACKBITS, ZSTD})
OTHERS: Final = {
    2: "CCITT fax",
    3: "CCITT fax",
    4: "CCITT fax",
    6: "old-style JPEG",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy DNG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
YCBCR: Final = 6
SEPARATE: Final = 2
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
NUMBERS: Final = {UNSIGNED: "uint", SIGNED: "int", FLOAT: "float"}
DTYPES: Final = frozenset({"uint8", "int8", "uint16", "int16", "float16", "float32"})


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page as its directory claims it. `dtype` is numpy's name; `separate`: each band is stored for itself."""

    directory: Directory
    width: int
    height: int
    bands: int
    dtype: str
    compression: int
    photometric: int
    separate: bool

    @property
    def bits(self) -> int:
        return int(self.dtype.lstrip("uintfloa"))

    @property
    def unpacked(self) -> int:
        """Bytes of the decoded pixels."""
        return self.width * self.height * self.bands * self.bits // 8


class Blocks(msgspec.Struct, frozen=True):
    """The strips or tiles of a page: where each begins, how long it is, and the width and height that each but the last unpacks to."""

    offsets: Sequence[int]
    sizes: Sequence[int]
    width: int
    height: int


def read_pages(file: BinaryIO, limits: ImageLimits) -> tuple[Page, ...]:
    """The main chain of a TIFF, every part of it and of the levels below it checked against the file and the limits.

    Raises DamagedImage, UnsupportedImage, ImageTooLarge.
    """
    tiff = Tiff(file, limits)
    check = _Check(tiff, limits)
    return tuple(check.page(directory) for directory in tiff.pages())


def sniffed(pages: Sequence[Page]) -> Sniffed:
    first = pages[0]
    return Sniffed(media_type="image/tiff", width=first.width, height=first.height, bands=first.bands, bits=first.bits, pages=len(pages))


class _Check:
    def __init__(self, tiff: Tiff, limits: ImageLimits) -> None:
        self._tiff = tiff
        self._limits = limits
        self._blocks = 0
        self._unpacked = 0
        self._walked = 0
        self._parts = 0

    def page(self, directory: Directory) -> Page:
        page = described(directory, self._limits)
        self._unpacked += page.unpacked
        check_unpacked(self._unpacked, self._limits)
        blocks = self._checked_blocks(page)
        if page.compression == JPEG:
            self._check_jpegs(page, blocks)
        for child in self._tiff.below(directory):
            self._level(child)
        return page

    def _level(self, directory: Directory) -> None:
        """Levels are not decoded, so only their bounds matter."""
        check_size(directory.number(WIDTH), directory.number(HEIGHT), directory.number(BANDS, 1), self._limits)
        self._check_inside(_offsets(directory, self._limits), _sizes(directory, self._limits))

    def _checked_blocks(self, page: Page) -> Blocks:
        blocks = _blocks(page, self._limits)
        self._check_inside(blocks.offsets, blocks.sizes)
        block = blocks.width * blocks.height * (1 if page.separate else page.bands) * page.bits // 8
        if page.compression != RAW:
            check_block(block, self._limits)
        elif page.photometric != YCBCR and sum(blocks.sizes) < page.unpacked:
            raise damaged("it holds fewer pixels than it claims")
        return blocks

    def _check_inside(self, offsets: Sequence[int], sizes: Sequence[int]) -> None:
        self._blocks += len(offsets)
        if self._blocks > self._limits.blocks:
            raise too_many_parts()
        if not offsets or len(offsets) != len(sizes):
            raise damaged("it does not tell where its pixels are")
        if max(map(int.__add__, offsets, sizes)) > self._tiff.size:
            raise DamagedImage("The TIFF file points past its own end: it was cut off or is damaged. Send it again", reason="truncated")

    def _check_jpegs(self, page: Page, blocks: Blocks) -> None:
        """Each block is a JPEG for itself, and decoders would fill up a broken one with gray in silence.

        Several places may share a block (an empty tile), which is walked once; else no byte is walked twice, and `parts` holds for all.
        """
        seen: set[tuple[int, int]] = set()
        for offset, size in zip(blocks.offsets, blocks.sizes, strict=True):
            if (offset, size) in seen:
                continue
            seen.add((offset, size))
            self._walked += size
            if self._walked > self._tiff.size:
                raise damaged("parts of its picture lie one over the other")
            self._check_jpeg(page, blocks, self._tiff.read(offset, size))

    def _check_jpeg(self, page: Page, blocks: Blocks, data: bytes) -> None:
        structure = JpegStructure(self._limits)
        structure.feed(data)
        found = structure.finish()
        if found.width > blocks.width or found.height > blocks.height or found.bands > page.bands:
            raise damaged("a part of its picture is larger than it claims")
        self._parts += structure.parts
        if self._parts > self._limits.parts:
            raise too_many_parts()


def described(directory: Directory, limits: ImageLimits) -> Page:
    """Raises UnsupportedImage for what no decoder of ours can read."""
    bands = directory.number(BANDS, 1)
    width, height = directory.number(WIDTH), directory.number(HEIGHT)
    check_size(width, height, bands, limits)
    compression = directory.number(COMPRESSION, RAW)
    if compression not in READABLE:
        raise UnsupportedImage(
            f"Page {directory.page} of the TIFF file is compressed with {OTHERS.get(compression, 'a method that we do not know')}."
            " Save it uncompressed, or with LZW, Deflate, JPEG, PackBits or Zstandard",
            reason="unsupported_compression",
        )
    return Page(
        directory=directory,
        width=width,
        height=height,
        bands=bands,
        dtype=_dtype(directory, limits),
        compression=compression,
        photometric=directory.number(PHOTOMETRIC, 1),
        separate=directory.number(PLANAR, 1) == SEPARATE and bands > 1,
    )


def _dtype(directory: Directory, limits: ImageLimits) -> str:
    bits = set(directory.numbers(BITS, 1, most=limits.bands))
    formats = set(directory.numbers(SAMPLE_FORMAT, UNSIGNED, most=limits.bands))
    found = {UNSIGNED if it == UNDEFINED else it for it in formats}
    dtype = f"{NUMBERS.get(min(found), '')}{min(bits)}"
    if len(bits) != 1 or len(found) != 1 or dtype not in DTYPES:
        listed = ", ".join(map(str, sorted(bits)[:8]))
        raise UnsupportedImage(
            f"Page {directory.page} of the TIFF file stores its pixels in {listed} bits; 8 or 16 bits, or 32-bit floating point, are taken",
            reason="unsupported_bit_depth",
        )
    return dtype


def _blocks(page: Page, limits: ImageLimits) -> Blocks:
    directory = page.directory
    planes = page.bands if page.separate else 1
    if TILE_OFFSETS in directory.entries or TILE_WIDTH in directory.entries:
        width, height = directory.number(TILE_WIDTH), directory.number(TILE_HEIGHT)
    else:
        width, height = page.width, min(directory.number(ROWS_PER_STRIP, page.height), page.height)
    if width < 1 or height < 1:
        raise damaged("its strips or tiles have no size")
    expected = planes * -(-page.width // width) * -(-page.height // height)
    offsets, sizes = _offsets(directory, limits), _sizes(directory, limits)
    if not sizes and page.compression == RAW and len(offsets) == expected == 1:
        sizes = (page.unpacked,)
    if len(offsets) != expected:
        raise damaged("it has more or fewer strips or tiles than its size asks for")
    return Blocks(offsets, sizes, width, height)


def _offsets(directory: Directory, limits: ImageLimits) -> Sequence[int]:
    return directory.numbers(TILE_OFFSETS if TILE_OFFSETS in directory.entries else STRIP_OFFSETS, most=limits.blocks)


def _sizes(directory: Directory, limits: ImageLimits) -> Sequence[int]:
    return directory.numbers(TILE_SIZES if TILE_OFFSETS in directory.entries else STRIP_SIZES, most=limits.blocks)
