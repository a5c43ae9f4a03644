"""The package of a model version, as a download: the stored archive, or one that is made for a version of an earlier release."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec

from application.models import load_model
from application.ports import BlobStore, EventStore
from domain.access import Actor, Role, require_role
from domain.errors import Invalid
from domain.model import Version
from domain.values import relative_path

MANIFEST_FILE: Final = "rdf.yaml"
DEFAULT_WEIGHTS_FILE: Final = "model.onnx"
PIECE_BYTES: Final = 256 * 1024
FILE_MODE: Final = 0o644


class PackageDownload(NamedTuple):
    """A zip file. `size` is in bytes; None where it is not known before the last of `pieces`."""

    filename: str
    size: int | None
    pieces: Iterator[bytes]


def download(name: str, number: int, *, actor: Actor, log: EventStore, blobs: BlobStore) -> PackageDownload:
    """The package of a version, also of a retired model.

    A version of an earlier release has none: its weights and its manifest are packed, without its test tensors, which are not stored.
    Raises Forbidden, NotFound, CorruptBlob, Unavailable.
    """
    require_role(actor, Role.ANALYST)
    version = load_model(name, log=log).numbered(number)
    file: BinaryIO = blobs.open(version.file)
    filename = f"{name}-{number}.zip"
    if version.package:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        return PackageDownload(filename, size, _pieces(file))
    return PackageDownload(filename, None, _packed(version, file))


def weights_file(record: str) -> str:
    """The name of the weights in a manifest. `model.onnx` where the manifest has no name that is safe in an archive."""
    try:
        name = relative_path(msgspec.json.decode(record, type=_Manifest).weights.onnx.source)
    except (msgspec.DecodeError, Invalid):
        return DEFAULT_WEIGHTS_FILE
    return DEFAULT_WEIGHTS_FILE if name == MANIFEST_FILE else name


class _Onnx(msgspec.Struct):
    source: str = DEFAULT_WEIGHTS_FILE


class _Weights(msgspec.Struct):
    onnx: _Onnx = msgspec.field(default_factory=_Onnx)


class _Manifest(msgspec.Struct):
    weights: _Weights = msgspec.field(default_factory=_Weights)


class _Pipe(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _packed(version: Version, weights: BinaryIO) -> Iterator[bytes]:
    """The same bytes each time. JSON is YAML too, so the manifest is written as it is stored."""
    pipe = _Pipe()
    with ZipFile(pipe, "w") as archive:
        archive.writestr(_entry(MANIFEST_FILE), msgspec.json.format(version.record.encode(), indent=2))
        with archive.open(_entry(weights_file(version.record)), "w") as packed:
            for piece in _pieces(weights):
                packed.write(piece)
                if taken := pipe.take():
                    yield taken
    yield pipe.take()


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(name)
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = FILE_MODE << 16
    return entry
