"""Foreign pictures, which show no blood cell in focus: for training the class `other`, and, from other sources, for testing it.

Training uses no picture, field, slide or generator of the test, except that both cut corners of cell pictures. White cells and
platelets of BCCD belong to the classes, though from another scanner, so no crop here contains them. PBC-8 is trained on nothing of
BCCD: with its empty places as `other`, the network learned to recognise the class by the colours of that scanner.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from infrastructure.inference.preprocessing import decoded
from training.bccd import Field, crop_around, empty_places
from training.pictures import read

Pixels = NDArray[np.uint8]
SIDE = 96
NATIVE = 360
WHOLE = "whole smear field"
OTHER_FIELD = "{} (other field)"
OTHER_SCANNER = "{} (other scanner)"

TRAINING_FILES = {
    "histology": "formats/real/CMU-1-Small-Region.svs",
    "fluorescence": "formats/real/ht29_dna_u8_packbits.tif",
    "fluorescence spots": "formats/real/spots_tyx_u16.tiff",
    "test chart": "formats/real/multi-channel-z-series.ome.tif",
}
TEST_FILES = {
    "histology (other slide)": "formats/real/ihc_histology_rgb.png",
    "fluorescence (other sample)": "formats/real/drosophila_gfp_rgb_bad_exif_ifd.tif",
    "phase contrast": "formats/real/cell_phase_gray.png",
    "bright field worms": "formats/real/celegans_brightfield_u16.tif",
}


def for_training(data: Path, cells: list[bytes], chance: Generator) -> Iterator[tuple[str, Pixels]]:
    """About 1,100 items (source, picture of 96 x 96 pixels). `cells` are encoded."""
    yield from strange_for_training(data, chance)
    for cell in _some(cells, 160, chance):
        yield "corner of a picture", _scaled(_corner(decoded(cell), chance))
    for cell in _some(cells, 160, chance):
        yield "corners put together", _scaled(_without_middle(decoded(cell)))
    yield from lost_for_training(cells, chance)


def strange_for_training(data: Path, chance: Generator) -> Iterator[tuple[str, Pixels]]:
    """Pictures without blood."""
    for source, name in TRAINING_FILES.items():
        for crop in _crops(_opened(data, name), 70, chance):
            yield source, _scaled(crop)
    for make in (_blank, _linear_gradient, _gaussian_noise, _soft_noise, _stripes, _words):
        for _ in range(40):
            yield _name(make), _scaled(make(chance))


def whole_for_training(fields: list[Field]) -> Iterator[tuple[str, Pixels]]:
    for field in fields:
        yield WHOLE, _scaled(decoded(field.data))


def lost_for_training(cells: list[bytes], chance: Generator, *, blurred: int = 100) -> Iterator[tuple[str, Pixels]]:
    """Pictures of cells that are blurred or exposed beyond recognition."""
    for cell in _some(cells, blurred, chance):
        picture = decoded(cell)
        yield "cell lost to blur", _scaled(picture.filter(ImageFilter.GaussianBlur(chance.uniform(4, 10) * picture.width / SIDE)))
    for cell in _some(cells, 80, chance):
        yield "cell lost to light", _scaled(_exposed(decoded(cell), chance))


def for_test(data: Path, fields: list[Field], cells: list[bytes], chance: Generator) -> Iterator[tuple[str, bytes]]:
    """About 800 items (source, encoded picture)."""
    yield from strange_for_test(data, chance)
    yield from ((OTHER_SCANNER.format(WHOLE), field.data) for field in fields)
    for source, picture in _empty_smear(fields, chance):
        yield OTHER_SCANNER.format(source), _png(picture)
    for cell in _some(cells, 80, chance):
        yield "corner of a val picture", _png(_corner(decoded(cell), chance))
    yield from lost_for_test(cells, chance)


def whole_for_test(fields: list[Field]) -> Iterator[tuple[str, bytes]]:
    for field in fields:
        yield OTHER_FIELD.format(WHOLE), field.data


def lost_for_test(cells: list[bytes], chance: Generator) -> Iterator[tuple[str, bytes]]:
    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "val cell lost to box blur": lambda cell: cell.filter(ImageFilter.BoxBlur(chance.uniform(6, 12) * cell.width / SIDE)),
        "val cell lost to over-exposure": lambda cell: _gained(cell, chance.uniform(2.5, 4)),
    }
    for source, change in changes.items():
        for cell in _some(cells, 80, chance):
            yield source, _png(change(decoded(cell)))


def strange_for_test(data: Path, chance: Generator) -> Iterator[tuple[str, bytes]]:
    for source, name in TEST_FILES.items():
        yield source, read(data, name)
        for crop in _crops(_opened(data, name), 60, chance):
            yield source, _png(crop)
    for make in (_flat, _round_gradient, _salt_and_pepper, _uniform_noise, _chequers, _page):
        for _ in range(25):
            yield _name(make), _png(make(chance))


def _name(make: Callable[[Generator], Image.Image]) -> str:
    return make.__name__.strip("_").replace("_", " ")


def _empty_smear(fields: list[Field], chance: Generator) -> Iterator[tuple[str, Image.Image]]:
    for field in fields:
        picture = decoded(field.data)
        for box in field.some("RBC", 1, chance):
            window = crop_around(picture, box, chance.uniform(1.0, 3.5))
            if not field.has_member(window):
                yield "red cell", picture.crop(window)
        for window in empty_places(field, picture.size, 1, chance):
            yield "smear background", picture.crop(window)


def _opened(data: Path, name: str) -> Image.Image:
    return decoded(read(data, name))


def _some(cells: list[bytes], count: int, chance: Generator) -> list[bytes]:
    return [cells[index] for index in chance.choice(len(cells), min(count, len(cells)), replace=False)]


def _crops(picture: Image.Image, count: int, chance: Generator) -> Iterator[Image.Image]:
    shortest = min(picture.size)
    for _ in range(count):
        side = int(chance.uniform(0.15, 1.0) * shortest) if shortest < 1000 else int(chance.uniform(80, 900))
        left, top = int(chance.integers(0, picture.width - side + 1)), int(chance.integers(0, picture.height - side + 1))
        yield picture.crop((left, top, left + side, top + side))


def _corner(picture: Image.Image, chance: Generator) -> Image.Image:
    """A random corner, at most a quarter wide and high, so that it does not contain the cell in the centre."""
    side = int(picture.width * chance.uniform(0.18, 0.25))
    left, top = ((0, picture.width - side)[chance.integers(2)], (0, picture.height - side)[chance.integers(2)])
    return picture.crop((left, top, left + side, top + side))


def _without_middle(picture: Image.Image) -> Image.Image:
    """The four corners put together: a field of red cells without a cell in the centre."""
    side, far = picture.width // 4, picture.width - picture.width // 4
    field = Image.new("RGB", (2 * side, 2 * side))
    for column, left in enumerate((0, far)):
        for row, top in enumerate((0, picture.height - side)):
            field.paste(picture.crop((left, top, left + side, top + side)), (column * side, row * side))
    return field


def _exposed(picture: Image.Image, chance: Generator) -> Image.Image:
    if chance.random() < 0.5:
        lift = int(chance.integers(140, 215))
        return picture.point([min(255, shade + lift) for shade in range(256)] * 3)
    part = chance.uniform(0.02, 0.15)
    return picture.point([int(shade * part) for shade in range(256)] * 3)


def _gained(picture: Image.Image, gain: float) -> Image.Image:
    return picture.point([min(255, int(shade * gain)) for shade in range(256)] * 3)


def _scaled(picture: Image.Image) -> Pixels:
    enlarges = min(picture.size) < SIDE
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR if enlarges else Image.Resampling.BOX))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _colour(chance: Generator) -> tuple[int, int, int]:
    red, green, blue = chance.integers(0, 256, 3).tolist()
    return red, green, blue


def _blank(chance: Generator) -> Image.Image:
    shade = int(chance.choice([0, 255, int(chance.integers(0, 256))]))
    even = Image.new("RGB", (SIDE, SIDE), (shade, shade, shade) if chance.random() < 0.7 else _colour(chance))
    return _grainy(even, chance.uniform(0, 6), chance)


def _grainy(picture: Image.Image, strength: float, chance: Generator) -> Image.Image:
    values = np.asarray(picture, np.float32) + chance.normal(0, max(strength, 1e-6), (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _between(part: NDArray[np.floating], first: tuple[int, int, int], last: tuple[int, int, int]) -> Image.Image:
    values = part[:, :, None] * np.asarray(first) + (1 - part[:, :, None]) * np.asarray(last)
    return Image.fromarray(values.astype(np.uint8))


def _linear_gradient(chance: Generator) -> Image.Image:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    angle = chance.uniform(0, np.pi / 2)
    part = np.cos(angle) * x + np.sin(angle) * y
    return _between(part / part.max(), _colour(chance), _colour(chance))


def _gaussian_noise(chance: Generator) -> Image.Image:
    even = Image.new("RGB", (SIDE, SIDE), _colour(chance))
    return _grainy(even, chance.uniform(15, 90), chance)


def _soft_noise(chance: Generator) -> Image.Image:
    return _grainy(Image.new("RGB", (SIDE, SIDE), (128, 128, 128)), 90, chance).filter(ImageFilter.GaussianBlur(chance.uniform(1, 6)))


def _stripes(chance: Generator) -> Image.Image:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    wave = np.sin((x * chance.uniform(-1, 1) + y * chance.uniform(-1, 1)) * chance.uniform(0.1, 1.0))
    return _between((wave + 1) / 2, _colour(chance), _colour(chance))


def _words(chance: Generator) -> Image.Image:
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    for line in range(8):
        letters = "".join(chr(code) for code in chance.integers(97, 123, 14))
        ImageDraw.Draw(sheet).text((3, 2 + 12 * line), letters, fill="black")
    return sheet


def _flat(chance: Generator) -> Image.Image:
    return Image.new("RGB", (NATIVE, NATIVE), [(255, 255, 255), (0, 0, 0), (128, 128, 128), _colour(chance)][chance.integers(4)])


def _round_gradient(chance: Generator) -> Image.Image:
    y, x = np.mgrid[0:NATIVE, 0:NATIVE] / (NATIVE - 1)
    distance = np.hypot(x - chance.random(), y - chance.random())
    return _between(distance / distance.max(), _colour(chance), _colour(chance))


def _salt_and_pepper(chance: Generator) -> Image.Image:
    grain = chance.random((NATIVE // 3, NATIVE // 3)) < chance.uniform(0.05, 0.5)
    return Image.fromarray((grain * 255).astype(np.uint8)).resize((NATIVE, NATIVE), Image.Resampling.NEAREST).convert("RGB")


def _uniform_noise(chance: Generator) -> Image.Image:
    cell = int(chance.integers(1, 12))
    small = Image.fromarray(chance.integers(0, 256, (NATIVE // cell, NATIVE // cell, 3), dtype=np.uint8))
    return small.resize((NATIVE, NATIVE), Image.Resampling.NEAREST)


def _chequers(chance: Generator) -> Image.Image:
    y, x = np.mgrid[0:NATIVE, 0:NATIVE] // int(chance.integers(8, 90))
    return _between(((x + y) % 2).astype(float), _colour(chance), _colour(chance))


def _page(chance: Generator) -> Image.Image:
    sheet = Image.new("RGB", (NATIVE, NATIVE), (250, 248, 240))
    size = int(chance.integers(12, 60))
    for line in range(NATIVE // size):
        words = " ".join(chance.choice(["blood", "smear", "report", "patient", "2024", "WBC", "normal", "count"], 8))
        ImageDraw.Draw(sheet).text((6, line * size), words, fill=(30, 30, 60), font=ImageFont.load_default(size))
    return sheet
