"""TIFF: all pages are decoded, one after the other, and the first one is shown. Pillow reads the usual layouts, tifffile the others."""

import logging
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin

from domain.errors import DamagedImage, UnsupportedImage
from infrastructure.imaging.decoding import decoding
from infrastructure.imaging.renditions import shown, step, stretched
from infrastructure.upload_gate.facts import ImageLimits, check_block
from infrastructure.upload_gate.tiff_pages import DEFLATE, DEFLATE_OLD, RAW, Page

COLOURS: Final = frozenset({2, 3, 5, 6, 8})  # RGB, palette, CMYK, YCbCr, CIE Lab
WHITE_IS_ZERO: Final = 0
PREDICTOR: Final = 317
FLOAT_PREDICTOR: Final = 3

Image.MAX_IMAGE_PIXELS = None  # Pillow would only warn; the gate has asked before
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong, we raise


def decoded(file: BinaryIO, pages: Sequence[Page], limits: ImageLimits) -> Image.Image:
    """The first page, upright, L or RGB with 8 bits, its longer edge at most 4096; every other page was decoded too.

    Uncompressed pages but the first are left out: the gate has seen that their bytes are there, and nothing else can be wrong with them.
    Raises DamagedImage (decode_failed), ImageTooLarge (too_much_memory), UnsupportedImage (unsupported_layout).
    """
    pillow = _Pillow(file)
    first = None
    for number, page in enumerate(pages):
        if number and page.compression == RAW:
            continue
        picture = _by_tifffile(file, number, page, limits) if _is_for_tifffile(page) else pillow.page(number, page)
        first = first or picture
    assert first is not None
    return first


class _Pillow:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._image: TiffImagePlugin.TiffImageFile | None = None

    def page(self, number: int, page: Page) -> Image.Image:
        with decoding("TIFF"):
            try:
                image = self._opened(number)
            except SyntaxError as error:
                raise _unsupported_layout(page) from error
            image.load()
            picture = shown(image, signed=page.dtype == "int8")
            if page.photometric == WHITE_IS_ZERO and page.bits > 8:  # Pillow turns round those of 8 bits alone
                picture = ImageOps.invert(picture)
            return picture.copy() if picture is image else picture  # the next page comes into the same object

    def _opened(self, number: int) -> TiffImagePlugin.TiffImageFile:
        self._file.seek(0)
        image = self._image or TiffImagePlugin.TiffImageFile(self._file)
        image.seek(number)
        self._image = image
        return image


def _is_for_tifffile(page: Page) -> bool:
    usual = page.dtype != "float16" and (page.bands == 1 or (page.bits == 8 and page.photometric in COLOURS and page.bands in {3, 4}))
    floats = page.directory.number(PREDICTOR, 1) == FLOAT_PREDICTOR
    return not usual and not floats and page.compression in {RAW, DEFLATE, DEFLATE_OLD}


def _by_tifffile(file: BinaryIO, number: int, page: Page, limits: ImageLimits) -> Image.Image:
    """Block by block, so that a page never stands in memory as a whole; of its bands the first three, or one, are kept."""
    file.seek(0)
    with decoding("TIFF"), tifffile.TiffFile(file, _multifile=False) as tiff:
        stored = tiff.pages[number]
        block_bytes = int(np.prod(stored.chunks)) * page.bits // 8
        check_block(block_bytes, limits)
        every = step(page.width, page.height)
        kept = 3 if page.bands >= 3 else 1
        picture = np.zeros((-(-page.height // every), -(-page.width // every), kept), page.dtype)
        for index, (offset, size) in enumerate(zip(stored.dataoffsets, stored.databytecounts, strict=True)):
            file.seek(offset)
            data = file.read(min(size, block_bytes) if page.compression == RAW else size)
            if page.compression != RAW:
                _refuse_overflow(data, block_bytes)
            _paint(picture, stored.decode(data, index), every)
        return _shown(picture, page)


def _refuse_overflow(data: bytes, expected: int) -> None:
    """A block that unpacks to more than it should may unpack to anything."""
    if len(zlib.decompressobj().decompress(data, expected + 1)) > expected:
        raise DamagedImage("The TIFF file is damaged: a part of its picture is larger than it claims. Export it again", reason="structure")


def _paint(picture: NDArray[Any], block: tuple[NDArray[Any] | None, tuple[int, ...], tuple[int, ...]], every: int) -> None:
    """Put every n-th pixel of a decoded block at its place. tifffile gives (depth, height, width, bands), its place and its size."""
    pixels, (plane, _, top, left, _), (_, height, width, bands) = block
    if pixels is None or plane >= picture.shape[2]:
        return
    part = pixels[0, -top % every : height : every, -left % every : width : every]
    row, column = -(-top // every), -(-left // every)
    here = picture[row : row + part.shape[0], column : column + part.shape[1]]
    inside = part[: here.shape[0], : here.shape[1]]  # tiles reach over the edge
    if bands == 1:
        here[:, :, plane] = inside[:, :, 0]
    else:
        here[:] = inside[:, :, : picture.shape[2]]


def _shown(picture: NDArray[Any], page: Page) -> Image.Image:
    pixels = picture if picture.shape[2] == 3 else picture[:, :, 0]
    if page.photometric == WHITE_IS_ZERO:
        pixels = np.negative(pixels.astype(np.float32))
    return Image.fromarray(pixels) if pixels.dtype == np.uint8 else stretched(pixels)


def _unsupported_layout(page: Page) -> UnsupportedImage:
    return UnsupportedImage(
        f"Page {page.directory.page} of the TIFF file stores {page.bands} bands of {page.dtype} in a way that we cannot decode."
        " Save it uncompressed or with Deflate",
        reason="unsupported_layout",
    )
