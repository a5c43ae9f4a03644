"""From RGB with 8 bits to the colours of other models, without rounding where the caller rounds."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LUMA = np.array([0.299, 0.587, 0.114])


def luma(held: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(height, width, 1), 0 to 1."""
    return (held @ LUMA)[..., np.newaxis] / 255


def ink(held: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cyan, magenta, yellow and as much black as possible, 0 to 1."""
    white = held.max(axis=2, keepdims=True) / 255
    return np.concatenate((1 - held / (255 * np.maximum(white, 1 / 255)), 1 - white), axis=2)


def ycbcr(held: NDArray[np.uint8]) -> NDArray[np.float64]:
    """As in JFIF, full range, 0 to 255."""
    grey = held @ LUMA
    blue, red = (held[..., 2] - grey) / 1.772 + 128, (held[..., 0] - grey) / 1.402 + 128
    return np.clip(np.stack((grey, blue, red), axis=2), 0, 255)


def quantised(held: NDArray[np.uint8], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Indices (height, width, 1), and 2**bits colours; those that no index needs are black."""
    method = Image.Quantize.FASTOCTREE if bits > 2 else Image.Quantize.MEDIANCUT
    picture = Image.fromarray(held).quantize(2**bits, method)
    listed = np.frombuffer(bytes(picture.getpalette() or b""), np.uint8).reshape(-1, 3)[: 2**bits]
    colours = np.zeros((2**bits, 3), np.uint8)
    colours[: len(listed)] = listed
    return np.asarray(picture)[..., np.newaxis], colours
