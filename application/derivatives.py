"""Names of renditions: thumbnails and previews in the blob store. Only this module builds and parses them.

A newer reader may render a file differently, so the name contains the reader version: `thumbnail/2/SHA256`. Names of reader version 1
omit it: `thumbnail/SHA256`.
"""

from typing import Final

KINDS: Final = ("thumbnail", "preview")
MEDIA_TYPE: Final = "image/jpeg"
MAX_READER_VERSION: Final = 16  # `of_all_readers` names no renditions of newer readers, so they would never be deleted


def thumbnail_of(sha256: str, reader: int) -> str:
    """The thumbnail: at most 256 pixels per edge. Every accepted image has one."""
    return _name("thumbnail", sha256, reader)


def preview_of(sha256: str, reader: int) -> str:
    """The preview: at most 2048 pixels per edge. Only images that browsers cannot display have one."""
    return _name("preview", sha256, reader)


def of_file(sha256: str, reader: int) -> tuple[str, ...]:
    """All renditions that one reader version makes from a file."""
    return thumbnail_of(sha256, reader), preview_of(sha256, reader)


def split(name: str) -> tuple[str, str]:
    """The folder in a name, such as `thumbnail` or `thumbnail/2`, and the sha256 of the original file."""
    folder, _, sha256 = name.rpartition("/")
    return folder, sha256


def joined(folder: str, sha256: str) -> str:
    """The inverse of `split`."""
    return f"{folder}/{sha256}"


def of_all_readers(sha256: str) -> list[str]:
    """All names under which any reader version may have stored a rendition of a file."""
    return [name for reader in range(1, MAX_READER_VERSION + 1) for name in of_file(sha256, reader)]


def _name(kind: str, sha256: str, reader: int) -> str:
    return f"{kind}/{sha256}" if reader == 1 else f"{kind}/{reader}/{sha256}"
