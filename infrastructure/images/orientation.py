"""The eight orientations of TIFF 6.0 and EXIF."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of (height, width, ...) with row 0 at the visual top and column 0 at the visual left.

    `orientation` is from 1 to 8; other values count as 1.
    """
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return np.swapaxes(pixels, 0, 1)
        case 6:
            return np.swapaxes(pixels, 0, 1)[:, ::-1]
        case 7:
            return np.swapaxes(pixels, 0, 1)[::-1, ::-1]
        case 8:
            return np.swapaxes(pixels, 0, 1)[::-1]
        case _:
            return pixels
