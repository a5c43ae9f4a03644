"""The cell that every encoding stores."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FILE = Path(__file__).parents[2] / "examples" / "micrographs" / "neutrophil"


@cache
def cell(width: int = 119, height: int = 120) -> NDArray[np.uint8]:
    """(height, width, 3), read-only, cut from the middle of a micrograph at a third of its size (120 x 121)."""
    with Image.open(min(FILE.glob("*.jpg"))) as picture:
        small = np.asarray(picture.convert("RGB").reduce(3))
    top, left = (small.shape[0] - height) // 2, (small.shape[1] - width) // 2
    cut = np.ascontiguousarray(small[top : top + height, left : left + width])
    cut.flags.writeable = False
    return cut
