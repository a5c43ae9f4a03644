"""Names of the pictures that are made from an uploaded file. Every such name is built and taken apart here."""

from typing import Final

KINDS: Final = ("thumbnail", "preview")
MEDIA_TYPE: Final = "image/jpeg"
MAX_READER_VERSION: Final = 16  # derivatives of newer readers would outlive the file that they were made from


def thumbnail_of(sha256: str) -> str:
    """At most 256 pixels an edge; every accepted image has one."""
    return f"thumbnail/{sha256}"


def preview_of(sha256: str) -> str:
    """At most 2048 pixels an edge; only images that browsers cannot draw have one."""
    return f"preview/{sha256}"


def of_file(sha256: str) -> tuple[str, ...]:
    """All pictures that the current reader makes from a file."""
    return thumbnail_of(sha256), preview_of(sha256)


def split(name: str) -> tuple[str, str]:
    """The folder of a name, such as `thumbnail` or `thumbnail/2`, and the sha256 of the file that the picture was made from."""
    folder, _, sha256 = name.rpartition("/")
    return folder, sha256


def of_all_readers(sha256: str) -> list[str]:
    """Every name under which any reader may have stored a picture of a file: `KIND/SHA256` and `KIND/VERSION/SHA256`."""
    versions = ["", *(f"{version}/" for version in range(1, MAX_READER_VERSION + 1))]
    return [f"{kind}/{version}{sha256}" for kind in KINDS for version in versions]
