"""The training pictures, read from the data folder and checked against its manifest."""

import csv
import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DATA_VARIABLE = "BIOSCOPE_TRAINING_DATA"
TUNING_PART = 10
"""One picture in ten of `train`, chosen by its digest, is kept from the network: every choice is made on these."""


class Picture(NamedTuple):
    file: str
    label: str
    split: str
    subtype: str
    data: bytes


class DataFault(SystemExit):
    """The data folder is not what the manifest says; the message names the file and its expected digest."""


def data_folder(given: Path | None) -> Path:
    chosen = given or (Path(found) if (found := os.environ.get(DATA_VARIABLE)) else None)
    if chosen is None or not chosen.is_dir():
        raise DataFault(f"No data folder at {chosen}: name it with --data or {DATA_VARIABLE}; it holds the folders pbc8, bccd and formats")
    return chosen


def pbc8(folder: Path) -> list[Picture]:
    """Every picture of the manifest. A tenth of `train` comes out as split `tune`."""
    with zipfile.ZipFile(existing(folder / "train96.zip")) as archive:
        return [_pbc8_picture(row, folder, archive) for row in _rows(folder / "manifest.csv")]


def checked(name: Path, data: bytes, expected: str) -> bytes:
    """The same bytes. Raises DataFault unless their sha256 is the expected one."""
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        raise DataFault(f"{name} has changed: sha256 {expected} expected, {found} found. Get the data again")
    return data


def tuning(digest: str) -> bool:
    return int(digest[:8], 16) % TUNING_PART == 0


def _pbc8_picture(row: dict[str, str], folder: Path, archive: zipfile.ZipFile) -> Picture:
    path = folder / (row["archive"] or "") / row["file"]
    try:
        data = archive.read(row["file"]) if row["archive"] else path.read_bytes()
    except (KeyError, OSError) as error:
        raise DataFault(f"{path} is missing: a file with sha256 {row['sha256']} is expected there") from error
    checked(path, data, row["sha256"])
    split = "tune" if row["split"] == "train" and tuning(row["sha256"]) else row["split"]
    return Picture(row["file"], row["label"], split, row["subtype"], data)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with existing(path).open(newline="") as file:
        yield from csv.DictReader(file)


def existing(path: Path) -> Path:
    if not path.is_file():
        raise DataFault(f"{path} is missing: the data folder is incomplete")
    return path
