"""The files of a backup: names, digests, and the check that they are complete and authentic."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
PREVIOUS: Final = "manifest.previous.json"  # of the last complete backup, while another one is written in its place
FORMAT: Final = 3
READABLE_FORMATS: Final = frozenset({1, 2, FORMAT})  # in 1, `key` and `seal` have no key id; before 3, there are no `ranges`
BEFORE_RANGES: Final = ("columns", "ranges")  # fields that only manifests of format 3 have
MAX_NAMED_FILES: Final = 30  # in one message
KEY_MARK: Final = b"root key"  # its keyed digest identifies the root key without revealing it


class NoBackup(Exception):
    """The folder contains no backup that can be restored here. The message says why."""


class TableFile(msgspec.Struct, frozen=True):
    name: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


class RangeFile(msgspec.Struct, frozen=True):
    """The file with the events from position `first` to `last`."""

    first: int
    last: int
    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a backup: the log up to `position` with its `hash`, tables, blobs by sha256, and renditions by name.

    `key` identifies the root key of this log; `seal` authenticates the manifest. `missing` are blobs that the log names but the store
    lacks or has damaged, including those of deleted images. `columns` are those of all `ranges` of the log; before format 3, the log is
    one of the tables.
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
    """Mark the folder as incomplete. Returns the manifest of its last complete backup with this root key, or None."""
    if (folder / MANIFEST).exists():
        (folder / MANIFEST).replace(folder / PREVIOUS)
    try:
        return genuine(folder, root, name=PREVIOUS)
    except NoBackup:
        return None


def genuine(folder: Path, root: Keys, *, name: str = MANIFEST) -> Manifest:
    """The manifest, verified with this root key. Raises NoBackup."""
    manifest = read_manifest(folder, name=name)
    if not _digests(root).matches(_bytes(manifest.key), KEY_MARK):
        raise NoBackup("the root key is not that of this backup: without the right key, its private data cannot be read")
    if not _digests(root).matches(_bytes(manifest.seal), _sealed(manifest)):
        raise NoBackup(f"{folder / name} was changed after the backup")
    return manifest


def checked(folder: Path, root: Keys, *, progress: Progress = lambda *_: None, max_named_files: int = MAX_NAMED_FILES) -> Manifest:
    """The manifest of a backup that is complete, unchanged and of this root key. Writes nothing.

    Raises NoBackup; it names the first `max_named_files` files that are missing or damaged, and counts the others.
    """
    manifest = genuine(folder, root)
    files = [(table_file(folder, table.name), table.sha256) for table in manifest.tables]
    files += [(range_file(folder, range_.first), range_.sha256) for range_ in manifest.ranges]
    files += [(blob_file(folder, sha256), sha256) for sha256 in manifest.blobs]
    files += [(derivative_file(folder, name), digest) for name, digest in manifest.derived.items()]
    defects = []
    for number, (path, digest) in enumerate(files):
        progress("checking", number, len(files))
        if digest_of(path) != digest:
            defects.append(f"{path} {_defect_of(path)}")
    if defects:
        raise NoBackup(_incomplete(defects, total=len(files), max_named=max_named_files))
    return manifest


def _defect_of(path: Path) -> str:
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "is damaged"


def _incomplete(defects: Sequence[str], *, total: int, max_named: int) -> str:
    summary = f"the backup is not complete, so nothing was restored. Missing or damaged files: {len(defects)} of {total}"
    others = len(defects) - max_named
    return "\n".join([summary, *defects[:max_named], *([f"and {others} more"] if others > 0 else [])])


def read_manifest(folder: Path, *, name: str = MANIFEST) -> Manifest:
    """The manifest, not verified. Raises NoBackup."""
    try:
        manifest = msgspec.json.decode((folder / name).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NoBackup(f"{folder} contains no {MANIFEST}: it is not a backup, or an incomplete one") from None
    except msgspec.MsgspecError:
        raise NoBackup(f"{folder / name} cannot be read: it is damaged") from None
    if manifest.format not in READABLE_FORMATS:
        raise NoBackup(f"the backup has format {manifest.format}; this release reads {', '.join(map(str, sorted(READABLE_FORMATS)))}")
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
    """The bytes of a hexadecimal text; empty if it is invalid."""
    try:
        return bytes.fromhex(digest)
    except ValueError:
        return b""


def write_hashed(path: Path, pieces: Iterable[bytes]) -> str:
    """Write a file atomically, with its folder if necessary; return the sha256 in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in pieces:
            digest.update(piece)
            yield piece

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, hashed())
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
