"""How far a plane of the product is from the picture of another decoder: numbers are compared, before anything is stretched."""

import msgspec
import numpy as np

from infrastructure.images.rendering import Plane
from tests.images.sweep.oracles import Picture

MAX_EXACT_DIFFERENCE = 1 / 255 + 1e-4
MAX_LOSSY_MEAN_DIFFERENCE = 2 / 255
MAX_RELATIVE_DIFFERENCE = 1e-5


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Of a plane with an oracle, in parts of full brightness.

    `read`: whether the oracle could read the file. `what` is a remark: why the two cannot be compared, or what only one of them sees.
    """

    oracle: str
    agrees: bool
    read: bool = True
    plane: str = ""
    what: str = ""
    largest: float = 0.0
    mean: float = 0.0


def compare(oracle: str, plane: Plane, seen: Picture, *, lossy: bool) -> Comparison:
    """Exact codings may differ by 1 of 255 at most, lossy ones by 2 of 255 on average: JPEG decoders round and interpolate as they like."""
    ours, full = plane.pixels, _full(plane)
    if ours.shape[:2] != seen.pixels.shape[:2]:
        (height, width), (rows, columns) = ours.shape[:2], seen.pixels.shape[:2]
        return Comparison(oracle=oracle, agrees=False, what=f"size {width} x {height}, not {columns} x {rows}", largest=1, mean=1)
    if (full is None) != (seen.full is None):
        return Comparison(oracle=oracle, agrees=False, what=f"numbers are {ours.dtype}, not {seen.pixels.dtype}", largest=1, mean=1)
    if seen.pixels.shape[2] not in {1, ours.shape[2]} and ours.shape[2] != 1:
        return Comparison(oracle=oracle, agrees=False, what=f"{ours.shape[2]} colours, not {seen.pixels.shape[2]}", largest=1, mean=1)
    if full is None or seen.full is None:
        return _compare_raw(oracle, ours, seen.pixels)
    mine, other = ours / np.float32(full), seen.pixels / np.float32(seen.full)
    what = ""
    if plane.alpha is not None:
        mine = _on_white(mine, plane.alpha / np.float32(_alpha_full(plane)), associated=plane.associated)
        opacity = np.ones(other.shape[:2], np.float32) if seen.alpha is None else seen.alpha / np.float32(seen.full)
        other = _on_white(other, opacity, associated=seen.associated)
        what = "alpha only in the product" if seen.alpha is None else ""
    elif seen.alpha is not None and (seen.alpha < seen.full).any():
        what = "alpha only in the oracle"
    difference = np.abs(mine - other)
    largest, mean = float(difference.max()), float(difference.mean())
    agrees = mean <= MAX_LOSSY_MEAN_DIFFERENCE if lossy else largest <= MAX_EXACT_DIFFERENCE
    return Comparison(oracle=oracle, agrees=agrees, what=what, largest=largest, mean=mean)


def _compare_raw(oracle: str, ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Signed and floating-point numbers, relative to the largest of them."""
    mine, other = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(other)
    if (np.isfinite(mine) != finite).any():
        return Comparison(oracle=oracle, agrees=False, what="other numbers are finite", largest=1, mean=1)
    scale = float(np.abs(other[finite]).max(initial=0)) or 1.0
    difference = np.abs(mine[finite] - other[finite]) / scale
    largest = float(difference.max(initial=0))
    mean = float(difference.mean()) if difference.size else 0.0
    return Comparison(oracle=oracle, agrees=largest <= MAX_RELATIVE_DIFFERENCE, largest=largest, mean=mean)


def _full(plane: Plane) -> float | None:
    return float(2**plane.bits - 1) if plane.pixels.dtype.kind == "u" else None


def _alpha_full(plane: Plane) -> float:
    assert plane.alpha is not None
    return float(np.iinfo(plane.alpha.dtype).max)


def _on_white(pixels: np.ndarray, opacity: np.ndarray, *, associated: bool) -> np.ndarray:
    opacity = opacity[:, :, None]
    return np.clip((pixels if associated else pixels * opacity) + 1 - opacity, 0, 1)
