"""Decoding of one strip or tile: decompression, byte order, and predictor."""

import zlib
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from domain.errors import DamagedImage
from infrastructure.images.validation.layout import Compression, PageLayout, Photometric, Predictor
from infrastructure.images.validation.tiff import too_few_pixels

JPEG_TABLES: Final = 347
MAX_JPEG_TABLES_BYTES: Final = 1 << 16
MAX_EXCESS_BYTES: Final = 1 << 16
RGB, CMYK, GREY = "RGB", "CMYK", "GRAYSCALE"


def decode_block(page: PageLayout, index: int) -> NDArray[Any]:
    """One block as (height, width, samples) in native byte order; samples is 1 for separate planes.

    JPEG blocks of YCbCr pages become RGB. Memory is bounded by the block size in the layout.
    Raises DamagedImage if the data decompress to less than that, and the errors of the codecs.
    """
    width, height = page.block_size(index)
    offset, size = page.blocks.offsets[index], page.blocks.sizes[index]
    if page.compression is Compression.JPEG:
        return decode_jpeg(page, page.directory.file.read(offset, size))
    needed = page.stored_bytes(width, height)
    if page.compression is Compression.NONE:
        return _numbers(page, _in_order(page, page.directory.file.read(offset, needed)), width, height)
    whole = page.stored_bytes(page.blocks.width, page.blocks.height)
    unpacked = unpack(page.compression, _in_order(page, page.directory.file.read(offset, size)), whole)
    if len(unpacked) < needed:
        raise too_few_pixels()
    return _numbers(page, unpacked[:needed], width, height)


def unpack(compression: Compression, data: bytes, maximum: int) -> bytes:
    """Decompress `data` to at most `maximum` bytes. An additional byte or row, which some programs write, is ignored, as libtiff does.

    Raises DamagedImage if there is far more, zlib.error and RuntimeError for damaged data.
    """
    enough = maximum + MAX_EXCESS_BYTES
    match compression:
        case Compression.DEFLATE | Compression.OLD_DEFLATE:
            inflating = zlib.decompressobj()
            unpacked = inflating.decompress(data, enough + 1)
        case Compression.LZW:
            unpacked = bytes(imagecodecs.lzw_decode(data, out=maximum))
        case Compression.PACKBITS:
            unpacked = bytes(imagecodecs.packbits_decode(data, out=enough))
        case Compression.ZSTANDARD:
            unpacked = bytes(imagecodecs.zstd_decode(data, out=enough))
        case _:
            raise AssertionError(compression)
    if len(unpacked) > enough:
        raise DamagedImage("The TIFF file is damaged: a part of its picture is larger than it claims. Export it again", reason="structure")
    return unpacked[:maximum]


def _in_order(page: PageLayout, data: bytes) -> bytes:
    """The data with the most significant bit of each byte first."""
    return bytes(imagecodecs.bitorder_decode(data)) if page.reversed_bits else data


def _numbers(page: PageLayout, data: bytes, width: int, height: int) -> NDArray[Any]:
    if page.subsampled:
        return _data_units(page, np.frombuffer(data, np.uint8), width, height)
    samples = 1 if page.separate else page.samples
    if page.bits < 8:
        return imagecodecs.packints_decode(data, np.uint8, page.bits, runlen=width).reshape(height, width, samples)
    if page.predictor is Predictor.FLOATING_POINT:
        return _unpredicted_floats(page, data, (height, width, samples))
    native = np.dtype(f"uint{page.bits}")
    stored = np.frombuffer(data, native.newbyteorder(">" if page.big_endian else "<")).reshape(height, width, samples)
    if page.predictor is Predictor.HORIZONTAL:
        return np.cumsum(stored, axis=1, dtype=native).view(page.dtype)
    return stored.astype(native, copy=False).view(page.dtype)


def _unpredicted_floats(page: PageLayout, data: bytes, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Undo the floating-point predictor (Adobe TIFF technical note 3): each row stores the bytes by significance, as differences."""
    height, width, samples = shape
    rows = np.frombuffer(data, np.uint8).reshape(height, -1, samples)
    bytes_by_significance = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(height, page.bits // 8, width * samples)
    big_endian = np.ascontiguousarray(bytes_by_significance.transpose(0, 2, 1))
    return big_endian.view(f">f{page.bits // 8}").reshape(shape).astype(page.dtype)


def _data_units(page: PageLayout, data: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Expand subsampled YCbCr (TIFF 6.0, section 21): each chroma value applies to all pixels of its data unit."""
    across, down = page.subsampling
    columns, rows = -(-width // across), -(-height // down)
    units = data.reshape(rows, columns, across * down + 2)
    full = np.empty((rows * down, columns * across, 3), np.uint8)
    luma = units[:, :, :-2].reshape(rows, columns, down, across)
    full[:, :, 0] = luma.transpose(0, 2, 1, 3).reshape(rows * down, columns * across)
    for band in (1, 2):
        full[:, :, band] = units[:, :, band - 3].repeat(down, axis=0).repeat(across, axis=1)
    return full[:height, :width]


def decode_jpeg(page: PageLayout, data: bytes) -> NDArray[np.uint8]:
    """Decode the JPEG data of one block, as `decode_block` does."""
    tables = page.directory.bytes(JPEG_TABLES, maximum=MAX_JPEG_TABLES_BYTES) or None
    colourspace, outcolourspace = _jpeg_colours(page)
    decoded = imagecodecs.jpeg8_decode(data, tables=tables, colorspace=colourspace, outcolorspace=outcolourspace)
    return decoded if decoded.ndim == 3 else decoded[:, :, None]


def _jpeg_colours(page: PageLayout) -> tuple[str | None, str | None]:
    """The input and output colour spaces. As in libtiff, only YCbCr pages are converted, whatever markers the JPEG data have."""
    if page.separate or page.samples not in {1, 3, 4}:
        return None, None
    if page.photometric is Photometric.YCBCR:
        return "YCBCR", RGB
    space = {1: GREY, 3: RGB, 4: CMYK}[page.samples]
    return space, space
