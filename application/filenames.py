"""File names from other systems: decoded from any encoding, and cleaned for storage and display."""

import re
import unicodedata
from contextlib import suppress

from domain.values import MAX_FILENAME, printable

EXTENSION = re.compile(r"(?:\.ome)?\.[^.\s]{1,16}\Z", re.IGNORECASE)
CHARSET = re.compile(r"utf-?8|us-ascii|iso-8859-\d+|windows-\d+|cp\d+|iso-2022-\w+|shift_jis|euc-\w+|gb\w+|big5|koi8-\w", re.IGNORECASE)


def decoded(raw: bytes, charset: str = "utf-8") -> str:
    """`raw` decoded as `charset` if possible, else as UTF-8, Windows-1252 or Latin-1. Never fails."""
    encodings = [charset] if CHARSET.fullmatch(charset) else []  # Python also has codecs that are not character sets
    for encoding in (*encodings, "utf-8", "cp1252"):
        with suppress(LookupError, UnicodeError):
            return raw.decode(encoding)
    return raw.decode("latin-1")


def clean_filename(filename: str) -> str:
    """The last part of a path as a file name: NFC, printable, without leading dots, at most 255 characters; the extension is kept.

    Empty if no valid character remains.
    """
    last = filename.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return _shortened(unicodedata.normalize("NFC", printable(last)).strip().lstrip(". "))


def safe_filename(filename: str) -> str:
    """As `clean_filename`, but never empty."""
    return clean_filename(filename) or "image"


def _shortened(name: str) -> str:
    if len(name) <= MAX_FILENAME:
        return name
    found = EXTENSION.search(name)
    extension = found[0] if found else ""
    return name[: MAX_FILENAME - len(extension)].rstrip() + extension
