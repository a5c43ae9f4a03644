"""Strips and tiles of a TIFF as JPEG streams (compression 7)."""

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tests.images.encodings import TiffEncoding
from tests.images.jpeg import QUALITY
from tests.images.jpeg_segments import APPLICATION, TABLES, only, without
from tests.images.tiff_data import cut


def coded(samples: NDArray[np.uint8], encoding: TiffEncoding) -> tuple[list[bytes], bytes]:
    """The strips or tiles in the order of the file, and the JPEGTables, which are empty where each stream is complete.

    `samples` (height, width, bands): RGB also where YCbCr is stored.
    """
    planes = np.split(samples, samples.shape[2], axis=2) if encoding.separate else [samples]
    streams = [_stream(block, encoding) for plane in planes for block in cut(plane, encoding.segments, like_the_edge=True)]
    if not encoding.tables:
        return streams, b""
    return [without(stream, TABLES | APPLICATION) for stream in streams], only(streams[0], TABLES)


def _stream(block: NDArray[np.uint8], encoding: TiffEncoding) -> bytes:
    if block.shape[2] == 1:
        return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(block[..., 0]), QUALITY))
    space = "YCBCR" if encoding.colour == "ycbcr" else "RGB"
    pixels = np.ascontiguousarray(block)
    return bytes(imagecodecs.jpeg8_encode(pixels, QUALITY, colorspace="RGB", outcolorspace=space, subsampling=encoding.subsampling))
