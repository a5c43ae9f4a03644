"""The layout of a TIFF page: how it stores its pixels. Upload validation and the reader use the same description."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

from infrastructure.images.validation.tiff import Directory
from infrastructure.images.validation.ycbcr import YcbcrConversion

COLOUR_MAP: Final = 320


class Compression(IntEnum):
    NONE = 1
    LZW = 5
    JPEG = 7
    DEFLATE = 8
    OLD_DEFLATE = 32946
    PACKBITS = 32773
    ZSTANDARD = 50000


class Photometric(IntEnum):
    WHITE_IS_ZERO = 0
    BLACK_IS_ZERO = 1
    RGB = 2
    PALETTE = 3
    CMYK = 5
    YCBCR = 6


class Predictor(IntEnum):
    NONE = 1
    HORIZONTAL = 2
    FLOATING_POINT = 3


class ExtraSample(IntEnum):
    UNSPECIFIED = 0
    ASSOCIATED_ALPHA = 1
    UNASSOCIATED_ALPHA = 2


class Blocks(msgspec.Struct, frozen=True):
    """The strips or tiles of a page: offset and size in bytes of each, and the full `width` and `height` in pixels."""

    offsets: Sequence[int]
    sizes: Sequence[int]
    width: int
    height: int
    tiled: bool


class PageLayout(msgspec.Struct, frozen=True, kw_only=True):
    """One page as its directory describes it.

    `samples` per pixel have `bits` bits of the kind `number` (uint, int, float). `extra` are the samples that are not colours.
    `subsampling` of chroma is horizontal and vertical; `ycbcr` is the conversion to RGB. `orientation` is from 1 to 8 as in TIFF 6.0. The
    `..._assumed` fields mark values that the file omits.
    """

    directory: Directory
    width: int
    height: int
    samples: int
    bits: int
    number: str
    compression: Compression
    predictor: Predictor
    photometric: Photometric
    separate: bool
    extra: tuple[ExtraSample, ...]
    orientation: int
    reversed_bits: bool
    subsampling: tuple[int, int]
    ycbcr: YcbcrConversion
    blocks: Blocks
    photometric_assumed: bool
    byte_counts_assumed: bool

    @property
    def big_endian(self) -> bool:
        return self.directory.file.big_endian

    @property
    def dtype(self) -> str:
        """The NumPy name of the decoded type; fewer than 8 bits are decoded to uint8."""
        return f"{self.number}{max(8, self.bits)}"

    @property
    def colours(self) -> int:
        """Samples per pixel that are colours or channels, without alpha and unspecified samples."""
        return self.samples - len(self.extra)

    @property
    def channels(self) -> int:
        """The number of images in the samples of a pixel: several for multiple grey samples."""
        return self.colours if self.photometric in {Photometric.WHITE_IS_ZERO, Photometric.BLACK_IS_ZERO} else 1

    @property
    def bands(self) -> int:
        """Values per decoded pixel; three for a palette."""
        return self.samples + 2 if self.photometric is Photometric.PALETTE else self.samples

    @property
    def colour_map(self) -> Sequence[int]:
        """The palette in 16 bits: all reds, all greens, all blues."""
        return self.directory.numbers(COLOUR_MAP, maximum=3 << 16)

    @property
    def subsampled(self) -> bool:
        """Whether chroma is stored in data units of several pixels (TIFF 6.0, section 21)."""
        return self.photometric is Photometric.YCBCR and self.compression is not Compression.JPEG and self.subsampling != (1, 1)

    @property
    def unpacked(self) -> int:
        """The size of the decoded pixels in bytes."""
        return self.width * self.height * self.bands * max(8, self.bits) // 8

    @property
    def unpacked_tiles(self) -> int:
        """The size of all uncompressed tiles in bytes, which may be far larger than the visible part. 0 without tiles."""
        return len(self.blocks.offsets) * self.stored_bytes(self.blocks.width, self.blocks.height) if self.blocks.tiled else 0

    def stored_bytes(self, width: int, height: int) -> int:
        """The uncompressed size of a block in bytes."""
        if self.subsampled:
            across, down = self.subsampling
            return -(-width // across) * -(-height // down) * (across * down + 2)
        row = -(-width * self.bits * (1 if self.separate else self.samples) // 8)
        return row * height

    def block_size(self, index: int) -> tuple[int, int]:
        """Width and height of a stored block: tiles are padded at the edges, the last strip is shorter."""
        blocks = self.blocks
        if blocks.tiled:
            return blocks.width, blocks.height
        rows = -(-self.height // blocks.height)
        return blocks.width, min(blocks.height, self.height - index % rows * blocks.height)

    def block_position(self, index: int) -> tuple[int, int, int]:
        """The sample plane, first row and first column of a block."""
        across, down = -(-self.width // self.blocks.width), -(-self.height // self.blocks.height)
        plane, inside = divmod(index, across * down)
        return plane, inside // across * self.blocks.height, inside % across * self.blocks.width
