"""Contact sheets: the product's picture beside those of other decoders."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from infrastructure.images.rendering import Plane
from tests.images.sweep.oracles import Picture

EDGE = 320
CAPTION_HEIGHT = 14


def save_sheet(path: Path, plane: Plane, seen: dict[str, Picture]) -> None:
    """A PNG, all pictures stretched from their smallest to their largest finite number unless these are known."""
    full = float(2**plane.bits - 1) if plane.pixels.dtype.kind == "u" else None
    tiles = [("product", _tile(plane.pixels, full))]
    tiles += [(name, _tile(picture.pixels, picture.full)) for name, picture in seen.items()]
    sheet = Image.new("RGB", (EDGE * len(tiles), EDGE + CAPTION_HEIGHT), "white")
    for place, (name, tile) in enumerate(tiles):
        sheet.paste(tile, (place * EDGE, CAPTION_HEIGHT))
        ImageDraw.Draw(sheet).text((place * EDGE + 2, 1), name, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _tile(pixels: np.ndarray, full: float | None) -> Image.Image:
    numbers = np.nan_to_num(pixels.astype(np.float32), posinf=0, neginf=0)
    low, high = (0.0, full) if full else (float(numbers.min()), float(numbers.max()))
    shown = np.clip((numbers - low) * (255 / ((high - low) or 1)), 0, 255).astype(np.uint8)
    if shown.shape[2] == 4:
        image = Image.fromarray(shown, "CMYK").convert("RGB")
    else:
        image = Image.fromarray(shown if shown.shape[2] == 3 else np.repeat(shown[:, :, :1], 3, axis=2))
    image.thumbnail((EDGE - 4, EDGE - 4))
    return image
