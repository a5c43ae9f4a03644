"""The files of a backup: their names, their digests, and whether they are complete and authentic."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from application import derivatives
from infrastructure.atomic_files import write_atomically
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import Keys

MANIFEST: Final = "manifest.json"
PREVIOUS: Final = "manifest.previous.json"  # of the last whole backup, while another one is made in its place
FORMAT: Final = 3
READABLE_FORMATS: Final = frozenset({1, 2, FORMAT})  # in 1, `key` and `seal` did not begin with the id of their key; before 3, no `ranges`
BEFORE_RANGES: Final = ("columns", "ranges")  # the fields that manifests of format 3 have and earlier ones lack
KEY_MARK: Final = b"root key"  # its digest identifies a root key, and reveals nothing about it


class NoBackup(Exception):
    """The folder holds no backup that can be restored here; the text says why."""


class TableFile(msgspec.Struct, frozen=True):
    name: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


class RangeFile(msgspec.Struct, frozen=True):
    """The events at the positions from `first` to `last`."""

    first: int
    last: int
    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds: the log up to `position` with the chain's `hash`, tables, blobs by their sha256, derived things by name.

    `key` tells whether a root key is the one that this log was written with, `seal` whether the manifest was changed. `missing`: blobs
    that the log names and the store does not have, or has damaged; those of images that were deleted are among them. `columns` are
    those of each of the `ranges` of the log; before format 3, the log is one of the tables.
    """

    format: int
    made_at: datetime
    migration: int
    position: int
    hash: str
    key: str
    tables: tuple[TableFile, ...]
    blobs: tuple[str, ...]
    derived: dict[str, str]
    missing: tuple[str, ...]
    seal: str = ""
    columns: tuple[str, ...] = ()
    ranges: tuple[RangeFile, ...] = ()


Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)`"""


def sealed(manifest: Manifest, root: Keys) -> Manifest:
    manifest = msgspec.structs.replace(manifest, key=_digests(root).of(KEY_MARK).hex())
    return msgspec.structs.replace(manifest, seal=_digests(root).of(_sealed(manifest)).hex())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_hashed(folder / MANIFEST, [msgspec.json.format(msgspec.json.encode(manifest), indent=1)])


def invalidate_manifest(folder: Path, root: Keys) -> Manifest | None:
    """Mark the folder as holding no backup; the manifest of the last complete one of this root key, if there was one."""
    if (folder / MANIFEST).exists():
        (folder / MANIFEST).replace(folder / PREVIOUS)
    try:
        return genuine(folder, root, name=PREVIOUS)
    except NoBackup:
        return None


def genuine(folder: Path, root: Keys, *, name: str = MANIFEST) -> Manifest:
    """The manifest as it was made with this root key. Raises NoBackup."""
    manifest = read_manifest(folder, name=name)
    if not _digests(root).matches(_bytes(manifest.key), KEY_MARK):
        raise NoBackup("the root key is not the one that this backup was made with: without that one nothing private in it can be read")
    if not _digests(root).matches(_bytes(manifest.seal), _sealed(manifest)):
        raise NoBackup(f"{folder / name} was changed: it is not what was backed up")
    return manifest


def checked(folder: Path, root: Keys, *, progress: Progress = lambda *_: None) -> Manifest:
    """The manifest of a backup that is whole, as it was made, and of this root key. Writes nothing. Raises NoBackup."""
    manifest = genuine(folder, root)
    files = [(table_file(folder, table.name), table.sha256) for table in manifest.tables]
    files += [(range_file(folder, range_.first), range_.sha256) for range_ in manifest.ranges]
    files += [(blob_file(folder, sha256), sha256) for sha256 in manifest.blobs]
    files += [(derivative_file(folder, name), digest) for name, digest in manifest.derived.items()]
    for number, (path, digest) in enumerate(files):
        progress("looking", number, len(files))
        if digest_of(path) != digest:
            raise NoBackup(f"{path} is missing or damaged: it is not what was backed up")
    return manifest


def read_manifest(folder: Path, *, name: str = MANIFEST) -> Manifest:
    """Raises NoBackup."""
    try:
        manifest = msgspec.json.decode((folder / name).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NoBackup(f"{folder} holds no {MANIFEST}: it is no backup, or one that was cut off") from None
    except msgspec.MsgspecError:
        raise NoBackup(f"{folder / name} cannot be read: it is damaged") from None
    if manifest.format not in READABLE_FORMATS:
        raise NoBackup(f"the backup has format {manifest.format}; this version reads {', '.join(map(str, sorted(READABLE_FORMATS)))}")
    return manifest


def table_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.copy"


def range_file(folder: Path, first: int) -> Path:
    return folder / "events" / f"{first:012}.copy"


def derivative_file(folder: Path, name: str) -> Path:
    folder_name, sha256 = derivatives.split(name)
    return blob_file(folder, sha256, folder_name=folder_name)


def blob_file(folder: Path, sha256: str, *, folder_name: str = "blobs") -> Path:
    return folder / folder_name / sha256[:2] / sha256


def _digests(root: Keys) -> KeyedDigest:
    return KeyedDigest(root, Purpose.BACKUPS)


def _sealed(manifest: Manifest) -> bytes:
    unsealed = msgspec.to_builtins(msgspec.structs.replace(manifest, seal=""))
    later = BEFORE_RANGES if manifest.format < FORMAT else ()
    return msgspec.json.encode({name: value for name, value in unsealed.items() if name not in later})


def _bytes(digest: str) -> bytes:
    """Empty where it is not hexadecimal."""
    try:
        return bytes.fromhex(digest)
    except ValueError:
        return b""


def write_hashed(path: Path, pieces: Iterable[bytes]) -> str:
    """Write a file atomically, and its folder if need be; the sha256 in hex."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in pieces:
            digest.update(piece)
            yield piece

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, hashed())
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
