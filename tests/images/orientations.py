"""TIFF and EXIF orientations 1 to 8: what the first stored row and column are in the upright picture."""

from numpy.typing import NDArray


def stored(upright: NDArray, orientation: int) -> NDArray:
    """The array (height, width, ...) that a file with this orientation holds."""
    match orientation:
        case 2:
            return upright[:, ::-1]
        case 3:
            return upright[::-1, ::-1]
        case 4:
            return upright[::-1]
        case 5:
            return upright.swapaxes(0, 1)
        case 6:
            return upright.swapaxes(0, 1)[::-1]
        case 7:
            return upright.swapaxes(0, 1)[::-1, ::-1]
        case 8:
            return upright.swapaxes(0, 1)[:, ::-1]
        case _:
            return upright


def upright(held: NDArray, orientation: int) -> NDArray:
    """The inverse of `stored`: only the two quarter turns are not their own inverse."""
    return stored(held, {6: 8, 8: 6}.get(orientation, orientation))
