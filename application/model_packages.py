"""The package of a model version, as a download."""

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple, TypeAlias

from application.models import load_model
from application.ports import BlobStore, EventStore
from domain.access import Actor, Role, require_role
from domain.model import Version

PIECE_BYTES: Final = 256 * 1024

ExportPackage: TypeAlias = Callable[[Version, BinaryIO], Iterator[bytes] | None]
"""Makes the zip file of a version from its open file, which it closes at the end. None if that is exported as it is stored."""


class PackageDownload(NamedTuple):
    """A zip file. `size` (bytes) and `sha256` (hexadecimal) are those of a stored archive; None for one that is made as it is sent."""

    filename: str
    size: int | None
    sha256: str | None
    pieces: Iterator[bytes]


def download(name: str, number: int, *, actor: Actor, log: EventStore, blobs: BlobStore, export: ExportPackage) -> PackageDownload:
    """The package of a version, also of a retired model. Raises Forbidden, NotFound, CorruptBlob, Unavailable."""
    require_role(actor, Role.ANALYST)
    version = load_model(name, log=log).numbered(number)
    file = blobs.open_locally(version.file)
    filename = f"{name}-{number}.zip"
    exported = export(version, file)
    if exported is not None:
        return PackageDownload(filename, None, None, exported)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return PackageDownload(filename, size, version.package, pieces_of(file))


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """From the place where it stands. It is closed at the end."""
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece
