"""The pictures that a report is made of, model by model; none of them had a part in training, nor, but for `choice`, in any choice."""

import hashlib
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from infrastructure.inference.preprocessing import decoded
from training.bccd import Field, crop_around, fields, mirrored, window_of
from training.foreign import for_test, lost_for_test, strange_for_test, whole_for_test
from training.pictures import pbc8

SEED = 7
CELL_WINDOW = 432
"""Pixels of BCCD that show as much as the 360 of a PBC picture: red cells are 104 pixels wide there, and 88 here."""
BCCD_LABELS = {"RBC": "red_cell", "WBC": "white_cell", "Platelets": "platelet"}
MARGIN = 1.25
WHITE_CELLS = ("basophil", "eosinophil", "ig", "lymphocyte", "monocyte", "neutrophil")


class Set(NamedTuple):
    """Names, encoded pictures and truths (or sources), one of each a picture."""

    names: list[str]
    encoded: list[bytes]
    truths: list[str]


class Report(NamedTuple):
    """`familiar`: sets with true labels; `val` decides goals. `foreign`: truths are sources.

    `shifted`: members from another scanner, of which the network saw nothing; the fields of `choice` were looked at when ways to train
    were compared.
    """

    familiar: dict[str, Set]
    foreign: Set
    shifted: dict[str, Set]


def digest_of(chosen: Set) -> str:
    """One sha256 over names, truths and bytes: what a figure was counted from."""
    total = hashlib.sha256()
    for name, encoded, truth in zip(*chosen, strict=True):
        total.update(f"{name}\0{truth}\0{hashlib.sha256(encoded).hexdigest()}\n".encode())
    return total.hexdigest()


def for_model(name: str, data: Path) -> Report:
    return {"pbc8": _pbc8_report, "bccd3": _bccd3_report}[name](data)


def bccd_crops(chosen: list[Field]) -> Iterator[tuple[str, str, bytes]]:
    """(name, label, PNG) of every box with a margin of a quarter."""
    for field in chosen:
        picture = decoded(field.data)
        for index, (label, box) in enumerate(field.boxes):
            yield f"{field.file}#{index}", BCCD_LABELS[label], png(picture.crop(crop_around(picture, box, MARGIN)))


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _pbc8_report(data: Path) -> Report:
    pictures = pbc8(data)
    smears = fields(data)
    unseen = [field for field in smears if field.split == "val"]
    val = [picture.data for picture in pictures if picture.split == "val"]
    familiar = {
        split: Set(*_columns((picture.file, picture.data, picture.label) for picture in pictures if picture.split == split))
        for split in ("val", "sample")
    }
    strange = for_test(data, unseen, val, np.random.default_rng(SEED))
    shifted = {"report": unseen, "choice": [field for field in smears if field.split != "val"]}
    return Report(familiar, _numbered(strange), {name: _other_scanner(chosen) for name, chosen in shifted.items()})


def _bccd3_report(data: Path) -> Report:
    smears = [field for field in fields(data) if field.split == "val"]
    val = Set(*_columns((name, encoded, label) for name, label, encoded in bccd_crops(smears)))
    chance = np.random.default_rng(SEED)
    strange = chain(strange_for_test(data, chance), whole_for_test(smears), lost_for_test(val.encoded, chance))
    return Report({"val": val}, _numbered(strange), {})


def _other_scanner(smears: list[Field]) -> Set:
    """White cells and platelets of BCCD, each in the middle of its window; fields go on as their mirror image beyond their edges."""
    found = []
    for field in smears:
        picture = mirrored(decoded(field.data), CELL_WINDOW // 2)
        for index, (label, box) in enumerate(field.boxes):
            if label != "RBC":
                found.append((f"{field.file}#{index}", png(picture.crop(window_of(box, CELL_WINDOW))), label))
    return Set(*_columns(iter(found)))


def _numbered(items: Iterator[tuple[str, bytes]]) -> Set:
    return Set(*_columns((f"{source} {index}", encoded, source) for index, (source, encoded) in enumerate(items)))


def _columns(rows: Iterator[tuple[str, bytes, str]]) -> tuple[list[str], list[bytes], list[str]]:
    names, encoded, truths = zip(*rows, strict=True)
    return list(names), list(encoded), list(truths)
