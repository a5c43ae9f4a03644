"""The labels that a manifest.csv (columns file, label) gives to the images of a folder."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from api.cli.client.image_folder import MANIFEST, upload_name
from application.filenames import decoded

DELIMITERS = (",", ";", "\t")
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
SEPARATOR_LINE = re.compile(r"\Asep=.[\r\n]+")  # which Excel writes
MAX_NAMES_SHOWN = 3


class Manifest(msgspec.Struct, frozen=True):
    """`labels` by the names of images (`ImageFile.name`); `warning` says what could not be used, or is empty."""

    labels: dict[str, str]
    warning: str = ""


def read_manifest(folder: Path, names: Collection[str]) -> Manifest:
    """The manifest of `folder`, whose images are `names`. Without a manifest, there are neither labels nor a warning."""
    path = folder / MANIFEST
    if not path.is_file():
        return Manifest({})
    try:
        return parse_manifest(path.read_bytes(), names)
    except OSError as error:
        return Manifest({}, f"{MANIFEST} cannot be read ({error.strerror}): no labels are taken from it")


def parse_manifest(content: bytes, names: Collection[str]) -> Manifest:
    """`content` may be in UTF-8, UTF-16, Windows-1252 or Latin-1, with commas, semicolons or tabs between the columns."""
    try:
        rows = _rows(SEPARATOR_LINE.sub("", _text(content)))
    except csv.Error as error:
        return Manifest({}, f"{MANIFEST} is damaged ({error}): no labels are taken from it")
    if rows is None:
        return Manifest({}, f"{MANIFEST} needs the columns file and label in its first line: no labels are taken from it")
    labels = {name: label.strip() for file, label in rows if label.strip() and (name := upload_name(file.strip()))}
    if not labels:
        return Manifest({}, f"{MANIFEST} has no line with a file and a label")
    known_names = frozenset(names)
    return Manifest(
        {name: labels[name] for name in labels if name in known_names}, _absent([name for name in labels if name not in known_names])
    )


def _absent(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    files = "a file that is" if len(names) == 1 else f"{len(names)} files that are"
    return f"{MANIFEST} names {files} not among the images: {', '.join(names[:MAX_NAMES_SHOWN])}{more}"


def _rows(text: str) -> list[tuple[str, str]] | None:
    """File and label of each line; None where no delimiter gives these columns."""
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [column.strip().casefold() for column in next(filter(None, reader), [])]
        if "file" in columns and "label" in columns:
            file, label = columns.index("file"), columns.index("label")
            return [(row[file], row[label]) for row in reader if len(row) > max(file, label)]
    return None


def _text(content: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    if b"\0" in content[:2]:
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le", errors="replace")
    return decoded(content)
