"""Reads the training pictures from the data folder, and checks the digest of each file."""

import csv
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

DATA_VARIABLE = "BIOSCOPE_TRAINING_DATA"
PINNED = Path(__file__).with_name("data.sha256")
"""sha256 of every file that is read. Files in the archive, and the samples, are listed in pbc8/manifest.csv."""
TUNING_PART = 10
"""One in ten pictures of `train`, chosen by its digest, is not used for training but for all choices."""


class Picture(NamedTuple):
    file: str
    label: str
    split: str
    subtype: str
    data: bytes


class DataFault(SystemExit):
    """The data folder differs from what is expected. The message names the file and its expected digest."""


def data_folder(given: Path | None) -> Path:
    chosen = given or (Path(found) if (found := os.environ.get(DATA_VARIABLE)) else None)
    if chosen is None or not chosen.is_dir():
        reason = "No data folder is set" if chosen is None else f"{chosen} is not a folder"
        raise DataFault(f"{reason}: name it with --data or {DATA_VARIABLE}; it contains the folders pbc8, bccd and formats")
    return chosen


def data_digest() -> str:
    """One sha256 for all files together."""
    return hashlib.sha256(PINNED.read_bytes()).hexdigest()


def pbc8(data: Path) -> list[Picture]:
    """All pictures of the manifest, with their split. Raises DataFault."""
    with zipfile.ZipFile(io.BytesIO(read(data, "pbc8/train96.zip"))) as archive:
        return [_pbc8_picture(row, data, archive) for row in rows(data, "pbc8/manifest.csv")]


def split_of(named: str, digest: str) -> str:
    """The split in the manifest, except that a tenth of `train` becomes `tune`."""
    return "tune" if named == "train" and int(digest[:8], 16) % TUNING_PART == 0 else named


def rows(data: Path, name: str) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(io.StringIO(read(data, name).decode(), newline=""))


def read(data: Path, name: str) -> bytes:
    """Read a file of the data folder. Raises DataFault if it differs from data.sha256."""
    return checked(data / name, _pinned()[name])


def checked(path: Path, expected: str) -> bytes:
    """Read a file. Raises DataFault if it is missing or has another sha256."""
    try:
        found = path.read_bytes()
    except OSError as error:
        raise DataFault(f"{path} is missing: a file with sha256 {expected} is expected there") from error
    if (digest := hashlib.sha256(found).hexdigest()) != expected:
        raise DataFault(f"{path} has changed: sha256 {expected} expected, {digest} found. Get the data again")
    return found


def _pbc8_picture(row: dict[str, str], data: Path, archive: zipfile.ZipFile) -> Picture:
    encoded = archive.read(row["file"]) if row["archive"] else checked(data / "pbc8" / row["file"], row["sha256"])
    return Picture(row["file"], row["label"], split_of(row["split"], row["sha256"]), row["subtype"], encoded)


@cache
def _pinned() -> dict[str, str]:
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in PINNED.read_text().splitlines())}
