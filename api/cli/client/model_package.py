"""A model package on this machine, as it is uploaded: a zip archive, or one that is made of a folder or an ONNX file."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from api.cli.client.image_folder import SYSTEM_FILES, SYSTEM_FOLDERS, shown

ARCHIVE, NETWORK = ".zip", ".onnx"
BESIDE_NETWORK: Final = ("bioscope.yaml", "labels.txt")
FIRST_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Of all files in an archive that is made here, so that the same files give the same archive."""


class NoPackage(Exception):
    """A path that is no model package; the text says what to give instead."""


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """The name and the content of the archive to upload. Raises NoPackage, OSError."""
    if path.is_file() and path.suffix.lower() == ARCHIVE:
        with path.open("rb") as file:
            yield path.name, file
        return
    files = package_files(path)
    with TemporaryFile() as archive:
        _pack(files, archive)
        yield f"{path.resolve().stem}{ARCHIVE}", archive


def package_files(path: Path) -> Mapping[str, Path]:
    """The files of a folder by their names in the package, or an ONNX file with those beside it. Raises NoPackage."""
    if path.is_dir():
        found = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if _belongs(file, path)}
        if not found:
            raise NoPackage(f"{shown(path)} has no file: give the folder of a model, with rdf.yaml or bioscope.yaml")
        return found
    if path.suffix.lower() != NETWORK:
        raise NoPackage(f"{shown(path)} is no model package: give a {ARCHIVE} archive, a folder, or an {NETWORK} file")
    beside = {name: path.parent / name for name in BESIDE_NETWORK}
    if missing := [name for name, file in beside.items() if not file.is_file()]:
        raise NoPackage(f"{shown(path)} needs {' and '.join(missing)} beside it (docs/models/format.md, The simple form)")
    return {path.name: path, **beside}


def _belongs(file: Path, folder: Path) -> bool:
    """Hidden files and those of operating systems are left out. Raises NoPackage for links and devices."""
    parts = file.relative_to(folder).parts
    if any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in parts) or file.name.casefold() in SYSTEM_FILES:
        return False
    if file.is_dir() and not file.is_symlink():
        return False
    if file.is_symlink() or not file.is_file():
        raise NoPackage(f"{shown(file)} is a link or a device: replace it by the file itself")
    return True


def _pack(files: Mapping[str, Path], archive: BinaryIO) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in files.items():
            entry = zipfile.ZipInfo(name, FIRST_DATE)
            entry.compress_type, entry.external_attr, entry.file_size = zipfile.ZIP_DEFLATED, 0o100644 << 16, path.stat().st_size
            with path.open("rb") as source, packed.open(entry, "w") as target:
                while piece := source.read(1024**2):
                    target.write(piece)
