"""The pictures of each model's report. None was used in training and, except the set `choice`, none in any choice."""

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
"""Pixels of BCCD with the field of view of a PBC picture (360 pixels): red cells are 104 pixels wide there, and 88 here."""
BCCD_LABELS = {"RBC": "red_cell", "WBC": "white_cell", "Platelets": "platelet"}
MARGIN = 1.25
WHITE_CELLS = ("basophil", "eosinophil", "ig", "lymphocyte", "monocyte", "neutrophil")


class Set(NamedTuple):
    """Name, encoded bytes and truth (or source) of each picture."""

    names: list[str]
    encoded: list[bytes]
    truths: list[str]


class Report(NamedTuple):
    """`familiar` has sets with true labels; the goals use `val`. The truths of `foreign` are sources.

    `shifted` has cells of the classes from another scanner, on which the network was not trained. The fields of `choice` were used to
    compare training methods.
    """

    familiar: dict[str, Set]
    foreign: Set
    shifted: dict[str, Set]


def digest_of(chosen: Set) -> str:
    """One sha256 over names, truths and bytes. It identifies the pictures that a figure was measured on."""
    total = hashlib.sha256()
    for name, encoded, truth in zip(*chosen, strict=True):
        total.update(f"{name}\0{truth}\0{hashlib.sha256(encoded).hexdigest()}\n".encode())
    return total.hexdigest()


def for_model(name: str, data: Path) -> Report:
    return {"pbc8": _pbc8_report, "bccd3": _bccd3_report}[name](data)


def bccd_crops(chosen: list[Field]) -> Iterator[tuple[str, str, bytes]]:
    """(name, label, PNG) of every box, with a margin of a quarter."""
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
    """White cells and platelets of BCCD, each centred in its window. Beyond their edges, fields continue as mirror images."""
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
