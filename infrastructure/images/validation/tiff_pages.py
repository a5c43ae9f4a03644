"""Validation of TIFF pages: their layout, and their strips or tiles against the file and the limits."""

import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import msgspec

from domain.errors import DamagedImage, ImageTooLarge
from infrastructure.images.validation.jpeg import JpegStructure
from infrastructure.images.validation.layout import Blocks, Compression, PageLayout
from infrastructure.images.validation.limits import ImageHeader, ImageLimits, check_memory, check_size, check_unpacked
from infrastructure.images.validation.page_tags import (
    HEIGHT,
    SAMPLES,
    WIDTH,
    block_offsets,
    block_sizes,
    describe_page,
    is_reduced_or_mask,
    unsupported_layout,
)
from infrastructure.images.validation.tiff import Directory, Tiff, cut_off_or_damaged, damaged, too_few_pixels, too_many_parts

DESCRIPTION: Final = 270
IMAGEJ_IMAGES: Final = re.compile(r"^images=(\d{1,9})\s*$", re.MULTILINE)
OLD_STYLE_LZW: Final = b"\0\1"
"""Start of LZW data in the coding of TIFF 5.0, with reversed bit order."""


def read_pages(file: BinaryIO, limits: ImageLimits) -> tuple[PageLayout, ...]:
    """The images in a TIFF's main chain, without thumbnails and masks, or all images of an ImageJ stack with a single directory.

    All parts, including pyramid levels, are checked against the file and the limits. Raises DamagedImage, UnsupportedImage, ImageTooLarge.
    """
    tiff = Tiff(file, limits)
    directories = list(tiff.pages())
    check = _Check(tiff, limits)
    images = [directory for directory in directories if not is_reduced_or_mask(directory)] or directories
    for directory in directories:
        if directory not in images:
            check.level(directory)
    pages = tuple(check.page(directory) for directory in images)
    images[0].text(DESCRIPTION)  # refuses one that is too long
    return tuple(_imagej_stack(pages[0], limits)) if len(directories) == 1 else pages


def header_of(pages: Sequence[PageLayout]) -> ImageHeader:
    first = pages[0]
    bits = max(8, first.bits)
    return ImageHeader(media_type="image/tiff", width=first.width, height=first.height, bands=first.bands, bits=bits, pages=len(pages))


class _Check:
    def __init__(self, tiff: Tiff, limits: ImageLimits) -> None:
        self._tiff = tiff
        self._limits = limits
        self._blocks = 0
        self._unpacked = 0
        self._walked = 0
        self._parts = 0

    def page(self, directory: Directory) -> PageLayout:
        page = describe_page(directory, self._limits)
        self._unpacked += max(page.unpacked, page.unpacked_tiles)
        check_unpacked(self._unpacked, self._limits)
        self._check_blocks(page)
        for child in self._tiff.below(directory):
            self.level(child)
        return page

    def level(self, directory: Directory) -> None:
        """Check the bounds of a level, thumbnail or mask, which is not decoded. A directory without a size is not a picture."""
        if WIDTH not in directory.entries and HEIGHT not in directory.entries:
            return
        check_size(directory.number(WIDTH), directory.number(HEIGHT), directory.number(SAMPLES, 1), self._limits)
        offsets = block_offsets(directory, self._limits)
        self._check_inside(offsets, block_sizes(directory, self._limits) or [0] * len(offsets))

    def _check_blocks(self, page: PageLayout) -> None:
        blocks = page.blocks
        self._check_inside(blocks.offsets, blocks.sizes)
        block = page.stored_bytes(blocks.width, blocks.height)
        check_memory(page.width * page.height, page.bands // page.channels, page.bits, self._limits, block=block)
        if page.compression is Compression.NONE:
            if any(size < page.stored_bytes(*page.block_size(index)) for index, size in enumerate(blocks.sizes)):
                raise too_few_pixels()
            return
        if page.compression is Compression.JPEG:
            self._check_jpegs(page)
        if page.compression is Compression.LZW and self._tiff.read(blocks.offsets[0], min(2, blocks.sizes[0])) == OLD_STYLE_LZW:
            raise unsupported_layout(page.directory, "uses the LZW coding of TIFF 5.0. Save it again with a current program")

    def _check_inside(self, offsets: Sequence[int], sizes: Sequence[int]) -> None:
        self._blocks += len(offsets)
        if self._blocks > self._limits.blocks:
            raise too_many_parts()
        if not offsets or len(offsets) != len(sizes):
            raise damaged("the offsets of its pixels are missing")
        if max(map(int.__add__, offsets, sizes)) > self._tiff.size:
            raise cut_off_or_damaged()

    def _check_jpegs(self, page: PageLayout) -> None:
        """Validate each block as a JPEG, since decoders fill broken ones with grey silently.

        Several positions may share a block (an empty tile). It is parsed once, but counts for the limit `parts` as often as it is decoded.
        Otherwise no byte is parsed twice.
        """
        parts: dict[tuple[int, int], int] = {}
        for index, block in enumerate(zip(page.blocks.offsets, page.blocks.sizes, strict=True)):
            if block not in parts:
                parts[block] = self._walk_jpeg(page, index, *block)
            self._parts += parts[block]
            if self._parts > self._limits.parts:
                raise too_many_parts()

    def _walk_jpeg(self, page: PageLayout, index: int, offset: int, size: int) -> int:
        """Validate one JPEG block; return its number of parts."""
        self._walked += size
        if self._walked > self._tiff.size:
            raise damaged("parts of its picture overlap")
        return self._check_jpeg(page, index, self._tiff.read(offset, size))

    def _check_jpeg(self, page: PageLayout, index: int, data: bytes) -> int:
        structure = JpegStructure(self._limits)
        structure.feed(data)
        found = structure.finish()
        width, height = page.block_size(index)
        _, top, left = page.block_position(index)
        if found.width > width or found.height > page.blocks.height or found.bands != (1 if page.separate else page.samples):
            raise damaged("a part of its picture contradicts its tags")
        if found.width < min(width, page.width - left) or found.height < min(height, page.height - top):
            raise too_few_pixels()
        return structure.parts


def _imagej_stack(page: PageLayout, limits: ImageLimits) -> Iterator[PageLayout]:
    """The pages of an ImageJ stack: ImageJ writes large stacks with one directory, and the uncompressed images one after the other."""
    description = page.directory.text(DESCRIPTION)
    found = IMAGEJ_IMAGES.search(description) if description.startswith("ImageJ=") else None
    count = int(found[1]) if found else 1
    if count <= 1 or page.compression is not Compression.NONE or page.blocks.tiled or not _contiguous(page.blocks):
        yield page
        return
    if count > limits.pages:
        raise ImageTooLarge(
            f"The TIFF file has {count:,} images; at most {limits.pages} are allowed. Split it into several files", reason="too_many_pages"
        )
    size = page.stored_bytes(page.width, page.height) * (page.samples if page.separate else 1)
    check_unpacked(count * page.unpacked, limits)
    if page.blocks.offsets[0] + count * size > page.directory.file.size:
        raise DamagedImage(
            f"The TIFF file declares {count:,} images but ends before the last: it is incomplete. Send it again", reason="truncated"
        )
    for number in range(count):
        offsets = [offset + number * size for offset in page.blocks.offsets]
        yield msgspec.structs.replace(page, blocks=msgspec.structs.replace(page.blocks, offsets=offsets))


def _contiguous(blocks: Blocks) -> bool:
    ends = map(int.__add__, blocks.offsets, blocks.sizes)
    return all(end == following for end, following in zip(ends, blocks.offsets[1:], strict=False))
