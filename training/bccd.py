"""Fields of view of the BCCD smear set, and the boxes in them."""

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image

from training.pictures import read, rows, split_of

Box = tuple[int, int, int, int]
MEMBERS = ("WBC", "Platelets")


class Field(NamedTuple):
    """One 640 x 480 picture; boxes are (left, top, right, bottom) with their label."""

    file: str
    split: str
    data: bytes
    boxes: tuple[tuple[str, Box], ...]

    def some(self, label: str, count: int, chance: Generator) -> list[Box]:
        boxes = [box for found, box in self.boxes if found == label]
        return [boxes[index] for index in chance.permutation(len(boxes))[:count]]

    def has_member(self, window: Box) -> bool:
        """Whether a white cell or platelet overlaps the window."""
        return any(label in MEMBERS and overlaps(box, window) for label, box in self.boxes)


def fields(data: Path) -> list[Field]:
    """The fields of the manifest. `split_of` assigns each to its split. Raises DataFault."""
    boxes: dict[tuple[str, str], list[tuple[str, Box]]] = defaultdict(list)
    for row in rows(data, "bccd/manifest.csv"):
        left, top, right, bottom = (int(row[side]) for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes[row["file"], row["split"]].append((row["label"], (left, top, right, bottom)))
    return [_field(data, name, split, found) for (name, split), found in sorted(boxes.items())]


def overlaps(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def crop_around(picture: Image.Image, box: Box, scale: float) -> Box:
    """A square window around the centre of the box, with `scale` times its longer side, moved into the picture if necessary."""
    side = min(int(max(box[2] - box[0], box[3] - box[1]) * scale), *picture.size)
    left = min(max((box[0] + box[2] - side) // 2, 0), picture.width - side)
    top = min(max((box[1] + box[3] - side) // 2, 0), picture.height - side)
    return left, top, left + side, top + side


def mirrored(picture: Image.Image, margin: int) -> Image.Image:
    """The picture, extended by `margin` pixels of its mirror image on every side."""
    return Image.fromarray(np.pad(np.asarray(picture), ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))


def window_of(box: Box, side: int) -> Box:
    """A square window of `side` pixels around the centre of the box, in a picture that `mirrored` extended by half of `side`."""
    left, top = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    return left, top, left + side, top + side


def empty_places(field: Field, size: tuple[int, int], count: int, chance: Generator) -> list[Box]:
    """Up to `count` windows without white cells and platelets, found in twenty random attempts."""
    found: list[Box] = []
    for _ in range(20):
        side = int(chance.integers(60, 300))
        left, top = int(chance.integers(0, size[0] - side)), int(chance.integers(0, size[1] - side))
        window = (left, top, left + side, top + side)
        if len(found) < count and not field.has_member(window):
            found.append(window)
    return found


def _field(data: Path, name: str, split: str, boxes: list[tuple[str, Box]]) -> Field:
    encoded = read(data, f"bccd/{name}")
    return Field(name, split_of(split, hashlib.sha256(encoded).hexdigest()), encoded, tuple(boxes))
