"""The `val` pictures of each shipped model, from tests/data/val."""

import csv
import io
import zipfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from training.bccd import Field
from training.sets import Set, bccd_crops

VAL = Path(__file__).parents[1] / "data" / "val"


def val_pictures(model):
    with zipfile.ZipFile(VAL / f"{model}.zip") as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode(), newline="")))
        return {"pbc8": cells, "bccd3": crops}[model](archive, rows)


def cells(archive, rows):
    names = [row["file"] for row in rows]
    return Set(names, [archive.read(name) for name in names], [row["label"] for row in rows])


def crops(archive, rows):
    fields = [
        Field(name, "val", archive.read(name), tuple((row["label"], box_of(row)) for row in boxes))
        for name, boxes in groupby(rows, itemgetter("file"))
    ]
    names, labels, encoded = zip(*bccd_crops(fields), strict=True)
    return Set(list(names), list(encoded), list(labels))


def box_of(row):
    return tuple(int(row[side]) for side in ("left", "top", "right", "bottom"))
