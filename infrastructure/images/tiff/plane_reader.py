"""Reading of TIFF planes block by block, so that a page with many samples is never completely in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infrastructure.images.decoding import decoding
from infrastructure.images.raster.jpeg_completeness import with_noise
from infrastructure.images.tiff.blocks import decode_block, decode_jpeg
from infrastructure.images.validation.jpeg import JpegStructure
from infrastructure.images.validation.layout import Compression, PageLayout
from infrastructure.images.validation.limits import incomplete


def read_page(page: PageLayout, samples: Sequence[int]) -> NDArray[Any]:
    """The samples with these indices: (height, width, len(samples)) as stored, in native byte order.

    Raises DamagedImage (decode_failed, structure).
    """
    pixels = np.empty((page.height, page.width, len(samples)), page.dtype)
    chosen = _as_slice(samples)
    with decoding("TIFF"):
        for index in range(len(page.blocks.offsets)):
            plane, top, left = page.block_position(index)
            if page.separate and plane not in samples:
                continue
            block = decode_block(page, index)
            target = pixels[top : top + block.shape[0], left : left + block.shape[1]]
            inside = block[: target.shape[0], : target.shape[1]]
            if page.separate:
                target[:, :, samples.index(plane)] = inside[:, :, 0]
            else:
                target[:] = inside[:, :, chosen]
    return pixels


def _as_slice(samples: Sequence[int]) -> slice | list[int]:
    """The indices as a slice if possible, which is much faster than a list."""
    first, end = samples[0], samples[-1] + 1
    return slice(first, end) if list(samples) == list(range(first, end)) else list(samples)


def check_page(page: PageLayout) -> None:
    """Decode every block, and detect JPEG blocks whose data end early.

    Uncompressed blocks are not read, since upload validation has checked that their bytes exist.

    Raises DamagedImage (decode_failed, structure, incomplete).
    """
    if page.compression is Compression.NONE:
        return
    with decoding("TIFF"):
        for index in range(len(page.blocks.offsets)):
            if page.compression is Compression.JPEG:
                _check_jpeg(page, index)
            else:
                decode_block(page, index)


def _check_jpeg(page: PageLayout, index: int) -> None:
    data = page.directory.file.read(page.blocks.offsets[index], page.blocks.sizes[index])
    structure = JpegStructure(page.directory.file.limits)
    structure.feed(data)
    if not np.array_equal(decode_jpeg(page, data), decode_jpeg(page, with_noise(data, structure.scan_end))):
        raise incomplete("TIFF")
