"""Conversions from RGB with 8 bits to other colour models; only palettes are rounded."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

METHODS = dict.fromkeys((1, 2), Image.Quantize.MEDIANCUT) | dict.fromkeys((4, 8), Image.Quantize.FASTOCTREE)
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
    """Indices (height, width, 1), and 2**bits colours; those that no index needs are black. Both read-only."""
    indices, colours = _quantised(held.tobytes(), held.shape[:2], bits)
    return np.frombuffer(indices, np.uint8).reshape(*held.shape[:2], 1), np.frombuffer(colours, np.uint8).reshape(-1, 3)


@lru_cache(maxsize=256)
def _quantised(pixels: bytes, shape: tuple[int, int], bits: int) -> tuple[bytes, bytes]:
    picture = Image.frombytes("RGB", shape[::-1], pixels).quantize(2**bits, METHODS[bits])
    return picture.tobytes(), bytes(picture.getpalette() or b"")[: 3 * 2**bits].ljust(3 * 2**bits, b"\0")
