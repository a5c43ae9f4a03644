"""Names of the pictures that are made from an uploaded file. Every such name is built and taken apart here.

A newer reader may show a file differently, so the version of the reader is a part of the name: `thumbnail/2/SHA256`. Names of reader 1 have
none: `thumbnail/SHA256`.
"""

from typing import Final

KINDS: Final = ("thumbnail", "preview")
MEDIA_TYPE: Final = "image/jpeg"
MAX_READER_VERSION: Final = 16  # derivatives of newer readers would outlive the file that they were made from


def thumbnail_of(sha256: str, reader: int) -> str:
    """At most 256 pixels an edge; every accepted image has one."""
    return _name("thumbnail", sha256, reader)


def preview_of(sha256: str, reader: int) -> str:
    """At most 2048 pixels an edge; only images that browsers cannot draw have one."""
    return _name("preview", sha256, reader)


def of_file(sha256: str, reader: int) -> tuple[str, ...]:
    """All pictures that one reader makes from a file."""
    return thumbnail_of(sha256, reader), preview_of(sha256, reader)


def split(name: str) -> tuple[str, str]:
    """The folder of a name, such as `thumbnail` or `thumbnail/2`, and the sha256 of the file that the picture was made from."""
    folder, _, sha256 = name.rpartition("/")
    return folder, sha256


def joined(folder: str, sha256: str) -> str:
    """The name that `split` takes apart."""
    return f"{folder}/{sha256}"


def of_all_readers(sha256: str) -> list[str]:
    """Every name under which any reader may have stored a picture of a file."""
    return [name for reader in range(1, MAX_READER_VERSION + 1) for name in of_file(sha256, reader)]


def _name(kind: str, sha256: str, reader: int) -> str:
    return f"{kind}/{sha256}" if reader == 1 else f"{kind}/{reader}/{sha256}"
