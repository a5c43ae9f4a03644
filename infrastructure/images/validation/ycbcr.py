"""How the YCbCr numbers of a TIFF page become RGB (TIFF 6.0, sections 20 and 21)."""

from typing import Final

import msgspec

from domain.errors import UnsupportedImage
from infrastructure.images.validation.tiff import Directory

COEFFICIENTS, REFERENCE_BLACK_WHITE = 529, 532
BT_601: Final = (0.299, 0.587, 0.114)
FULL_RANGE: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


class Conversion(msgspec.Struct, frozen=True):
    """`luma`: the shares of red, green and blue. `reference`: the numbers of black and white for Y, of zero and full for Cb and Cr."""

    luma: tuple[float, ...] = BT_601
    reference: tuple[float, ...] = FULL_RANGE


def describe_conversion(directory: Directory) -> Conversion:
    """Missing and unusable tags get the defaults, as in libtiff. Raises UnsupportedImage for a conversion that cannot be computed."""
    found = Conversion(
        directory.ratios(COEFFICIENTS, len(BT_601)) or BT_601, directory.ratios(REFERENCE_BLACK_WHITE, len(FULL_RANGE)) or FULL_RANGE
    )
    black, white = found.reference[::2], found.reference[1::2]
    if found.luma[1] == 0 or any(one == other for one, other in zip(black, white, strict=True)):
        raise UnsupportedImage(
            f"Page {directory.page} of the TIFF file converts its YCbCr colours in an impossible way. Save it as RGB",
            reason="unsupported_layout",
        )
    return found
