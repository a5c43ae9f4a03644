"""What other programs write and no encoder of ours does: each must be read as by other decoders, or refused at upload."""

import zlib

import imagecodecs
import numpy as np
import pytest

from infrastructure.images.inspection import inspect
from infrastructure.images.reader import open_image
from infrastructure.images.validation import ImageLimits
from tests.hostile import LONG, SHORT, page, tiff

LIMITS = ImageLimits()
NONE, LZW, DEFLATE, PACKBITS, ZSTANDARD = 1, 5, 8, 32773, 50000
PACK = {
    LZW: imagecodecs.lzw_encode,
    DEFLATE: zlib.compress,
    PACKBITS: imagecodecs.packbits_encode,
    ZSTANDARD: imagecodecs.zstd_encode,
}
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def pixels_of(data):
    """Of the first plane, after the whole file was decoded."""
    inspect(data, limits=LIMITS)
    with open_image(data, limits=LIMITS) as image:
        return image.plane().pixels


def packed_page(packed, compression, **more):
    return tiff(page(t259=(SHORT, [compression]), t279=(LONG, [len(packed)]), **more), pixels=packed)


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("excess", [b"\0", b"a row that the image has no place for"])
def test_what_a_strip_holds_beyond_its_rows_is_left_out(compression, excess):
    packed = PACK[compression](RAMP.tobytes() + excess)
    np.testing.assert_array_equal(pixels_of(packed_page(packed, compression))[:, :, 0], RAMP)


def test_rubbish_behind_the_last_lzw_code_is_left_out():
    packed = PACK[LZW](RAMP.tobytes())[:-1] + bytes(range(200, 250))
    np.testing.assert_array_equal(pixels_of(packed_page(packed, LZW))[:, :, 0], RAMP)
