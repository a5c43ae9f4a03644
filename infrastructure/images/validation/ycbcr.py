"""The YCbCr conversion of a TIFF page (TIFF 6.0, sections 20 and 21)."""

from typing import Final

import msgspec

from infrastructure.images.validation.tiff import Directory

COEFFICIENTS, REFERENCE_BLACK_WHITE = 529, 532
BT_601: Final = (0.299, 0.587, 0.114)
FULL_RANGE: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
MAX_SUM_ERROR: Final = 0.05


class YcbcrConversion(msgspec.Struct, frozen=True):
    """`luma`: coefficients of red, green and blue. `reference`: codes of black and white for Y, then of zero and full for Cb and Cr."""

    luma: tuple[float, float, float] = BT_601
    reference: tuple[float, float, float, float, float, float] = FULL_RANGE


def read_conversion(directory: Directory) -> YcbcrConversion | None:
    """The conversion in the page's tags, or the defaults of TIFF 6.0. None if the values are invalid."""
    red, green, blue = directory.ratios(COEFFICIENTS, 3) or BT_601
    black, white, no_blue, full_blue, no_red, full_red = directory.ratios(REFERENCE_BLACK_WHITE, 6) or FULL_RANGE
    if min(red, green, blue) <= 0 or abs(red + green + blue - 1) > MAX_SUM_ERROR:
        return None
    if white <= black or full_blue <= no_blue or full_red <= no_red:
        return None
    return YcbcrConversion((red, green, blue), (black, white, no_blue, full_blue, no_red, full_red))
