"""A package as it is exported: a zip file that this system and bioimage.io read.

A package in the simple form gets an rdf.yaml beside its own files. A version of an earlier release has no package: its weights are packed
with its manifest.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final
from zipfile import ZipFile, ZipInfo

import msgspec

from application.model_packages import pieces_of
from domain.errors import Invalid
from domain.model import Version
from domain.values import canonical, relative_path
from infrastructure.inference.models.refusals import PackageRefused
from infrastructure.inference.packages.manifest_place import MANIFEST_FILE, MANIFEST_FILES, folder_of_manifest
from infrastructure.inference.packages.package_files import FileLimits, open_archive
from infrastructure.inference.packages.zoo_manifest import without_test_tensors, zoo_manifest

DEFAULT_WEIGHTS_FILE: Final = "model.onnx"
FILE_MODE: Final = 0o644


def export_package(version: Version, file: BinaryIO) -> Iterator[bytes] | None:
    """The zip file of `version`, whose stored `file` is open and is closed at the end. The same bytes each time.

    None if the stored archive is exported as it is: its manifest is an rdf.yaml at the top, or it has become unreadable.
    """
    if not version.package:
        manifest = without_test_tensors(version.record)
        return _packed({MANIFEST_FILE: [manifest], weights_file(version.record): pieces_of(file)}, file)
    try:
        files = open_archive(file, FileLimits())
        folder = folder_of_manifest(files.sizes)
        own = {name.removeprefix(folder): files.stream(name) for name in files.sizes if name.startswith(folder)}
        added = {MANIFEST_FILE: [zoo_manifest(version)]} if _lacks_manifest(own) else {}
    except PackageRefused:
        return None
    return _packed({**added, **own}, file) if folder or added else None


def _lacks_manifest(names: Iterable[str]) -> bool:
    """Of bioimage.io, in any case: two names that differ in case alone are refused."""
    return not {canonical(name) for name in names} & set(MANIFEST_FILES)


def weights_file(record: str) -> str:
    """The name of the weights in a manifest. `model.onnx` where the manifest has no name that is safe in an archive."""
    try:
        name = relative_path(_MANIFEST.decode(record).weights.onnx.source)
    except (msgspec.DecodeError, Invalid):
        return DEFAULT_WEIGHTS_FILE
    return DEFAULT_WEIGHTS_FILE if name == MANIFEST_FILE else name


class _Onnx(msgspec.Struct):
    source: str = DEFAULT_WEIGHTS_FILE


class _Weights(msgspec.Struct):
    onnx: _Onnx = msgspec.field(default_factory=_Onnx)


class _Manifest(msgspec.Struct):
    weights: _Weights = msgspec.field(default_factory=_Weights)


_MANIFEST: Final = msgspec.json.Decoder(_Manifest)


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


def _packed(contents: Mapping[str, Iterable[bytes]], closing: BinaryIO) -> Iterator[bytes]:
    """A zip file of `contents` by name. `closing` is closed at the end."""
    pipe = _Pipe()
    with closing, ZipFile(pipe, "w") as archive:
        for name, pieces in contents.items():
            with archive.open(_entry(name), "w") as packed:
                for piece in pieces:
                    packed.write(piece)
                    if taken := pipe.take():
                        yield taken
    yield pipe.take()


def _entry(name: str) -> ZipInfo:
    """Stored, since weights hardly become smaller."""
    entry = ZipInfo(name)
    entry.external_attr = FILE_MODE << 16
    return entry
