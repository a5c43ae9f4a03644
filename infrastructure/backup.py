"""A copy of all that cannot be made again: the log with what stands beside it, and the blobs that it names. Never the root key.

Refresh tokens are left out: people sign in again after a restore, and no token that was used since comes back to life. So is when devices
were last seen: it is no part of the record.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier

from application import derivatives
from application.ports import Blobs, Corrupted
from domain.errors import NotFound
from infrastructure.keys import Keys
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest

MANIFEST: Final = "manifest.json"
FORMAT: Final = 2
READABLE_FORMATS: Final = frozenset({1, FORMAT})  # in 1, `key` and `seal` did not begin with the id of their key
SNAPSHOT: Final = "begin isolation level repeatable read, read only"
TABLES: Final = """select table_schema || '.' || table_name from information_schema.tables
  where table_type = 'BASE TABLE' and (table_schema = 'es' and table_name <> 'refresh_tokens' or table_schema || table_name = 'opsheads')
  order by 1"""
COLUMNS: Final = """select column_name from information_schema.columns
  where table_schema = %s and table_name = %s and is_generated = 'NEVER' order by ordinal_position"""
NAMED: Final = """select distinct match[1] from es.events,
    regexp_matches(convert_from(state, 'UTF8'), '"sha256":"([0-9a-f]{64})"', 'g') match
  where topic in ('ImageUploaded', 'ModelVersionAdded')"""
READERS: Final = """select distinct u.state ->> 'sha256', coalesce((i.state ->> 'reader')::integer, 1)
  from (select originator_id, convert_from(state, 'UTF8')::json as state from es.events where topic = 'ImageUploaded') u
  join (select originator_id, convert_from(state, 'UTF8')::json as state from es.events
    where topic in ('ImageAccepted', 'ImageReinspected')) i using (originator_id) order by 1, 2"""
PIECE: Final = 1 << 20
MARK: Final = b"root key"  # its digest tells root keys apart, and nothing about them


class NoBackup(Exception):
    """The folder holds no backup that can be restored here; the text says why."""


class TableFile(msgspec.Struct, frozen=True):
    name: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds: the log up to `position` with the chain's `hash`, tables, blobs by their sha256, derived things by name.

    `key` tells whether a root key is the one that this log was written with, `seal` whether the manifest was changed. `missing`: blobs
    that the log names and the store does not have, or has damaged; those of images that were deleted are among them.
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


Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)`"""


def backup(owner_url: str, blobs: Blobs, folder: Path, *, root: Keys, progress: Progress = lambda *_: None) -> Manifest:
    """Write a backup into `folder` while everything runs; blobs that lie there already, and whole, are kept. Raises Unavailable, OSError.

    The database comes first and in one snapshot: a blob is stored before the log names it, so none is missed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    with psycopg.connect(owner_url, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute(SNAPSHOT)
        position, digest = connection.execute("select position, encode(hash, 'hex') from es.head").fetchone() or (0, "")
        (migration,) = connection.execute("select max(number) from ops.migrations").fetchone() or (0,)
        names = [name for (name,) in connection.execute(TABLES).fetchall()]
        tables = [_dumped(connection, name, folder, progress, number, len(names)) for number, name in enumerate(names)]
        named = sorted(sha256 for (sha256,) in connection.execute(NAMED).fetchall())
        pictures = [name for sha256, reader in connection.execute(READERS) for name in derivatives.of_file(sha256, reader)]
        connection.execute("commit")
    missing = set(_copied(named, blobs, folder, progress))
    manifest = Manifest(
        format=FORMAT,
        made_at=datetime.now(UTC),
        migration=migration,
        position=position,
        hash=digest,
        key=_digests(root).of(MARK).hex(),
        tables=tuple(tables),
        blobs=tuple(sha256 for sha256 in named if sha256 not in missing),
        derived=dict(_copied_derived(pictures, blobs, folder, progress)),
        missing=tuple(sorted(missing)),
    )
    manifest = msgspec.structs.replace(manifest, seal=_digests(root).of(_sealed(manifest)).hex())
    _write_whole(folder / MANIFEST, [msgspec.json.format(msgspec.json.encode(manifest), indent=1)])
    return manifest


def restore(owner_url: str, blobs: Blobs, folder: Path, manifest: Manifest, *, progress: Progress = lambda *_: None) -> None:
    """Bring a backup that was `checked` into a migrated database whose log is empty, and into the blob store. Raises NoBackup.

    All of the database, or nothing. The chain is for the caller to verify, the read models for him to rebuild.
    """
    with psycopg.connect(owner_url, options="-c timezone=UTC") as connection:
        _refuse_unless_empty(connection, manifest)
        for number, sha256 in enumerate(manifest.blobs):
            progress("blobs", number, len(manifest.blobs))
            if not blobs.exists(sha256):
                _put(blobs, sha256, folder)
        for name in manifest.derived:
            blobs.put_derived(name, _derivative(folder, name).read_bytes(), derivatives.MEDIA_TYPE)
        connection.execute("alter table es.events disable trigger append_only")
        for number, table in enumerate(manifest.tables):
            progress("tables", number, len(manifest.tables))
            _filled(connection, table, folder)
        connection.execute("alter table es.events enable trigger append_only")
        connection.execute("call ops.fill_open_chunks()")


def checked(folder: Path, root: Keys, *, progress: Progress = lambda *_: None) -> Manifest:
    """The manifest of a backup that is whole, as it was made, and of this root key. Writes nothing. Raises NoBackup."""
    manifest = read_manifest(folder)
    if not _digests(root).matches(_bytes(manifest.key), MARK):
        raise NoBackup("the root key is not the one that this backup was made with: without that one nothing private in it can be read")
    if not _digests(root).matches(_bytes(manifest.seal), _sealed(manifest)):
        raise NoBackup(f"{folder / MANIFEST} was changed: it is not what was backed up")
    for table in manifest.tables:
        path = _file(folder, table)
        if _digest_of(path) != table.sha256:
            raise NoBackup(f"{path} is missing or damaged: it is not what was backed up")
    files = [*((_blob(folder, sha256), sha256) for sha256 in manifest.blobs)]
    files += [(_derivative(folder, name), digest) for name, digest in manifest.derived.items()]
    for number, (path, digest) in enumerate(files):
        progress("looking", number, len(files))
        if _digest_of(path) != digest:
            raise NoBackup(f"{path} is missing or damaged: it is not what was backed up")
    return manifest


def _refuse_unless_empty(connection: psycopg.Connection, manifest: Manifest) -> None:
    """Nobody can append until the transaction ends."""
    (position,) = connection.execute("select position from es.head for update").fetchone() or (0,)
    (migration,) = connection.execute("select max(number) from ops.migrations").fetchone() or (0,)
    if migration < manifest.migration:
        raise NoBackup(f"the backup is of migration {manifest.migration}, this version knows {migration}: use a newer one")
    if position:
        raise NoBackup(f"the log here has {position} events already: restore into a new data folder or an empty database")


def read_manifest(folder: Path) -> Manifest:
    """Raises NoBackup."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NoBackup(f"{folder} holds no {MANIFEST}: it is no backup, or one that was cut off") from None
    except msgspec.MsgspecError:
        raise NoBackup(f"{folder / MANIFEST} cannot be read: it is damaged") from None
    if manifest.format not in READABLE_FORMATS:
        raise NoBackup(f"the backup has format {manifest.format}; this version reads {', '.join(map(str, sorted(READABLE_FORMATS)))}")
    return manifest


def _dumped(connection: psycopg.Connection, name: str, folder: Path, progress: Progress, number: int, total: int) -> TableFile:
    progress("tables", number, total)
    schema, _, table = name.partition(".")
    columns = tuple(column for (column,) in connection.execute(COLUMNS, (schema, table)).fetchall())
    rows = 0

    def pieces() -> Iterator[bytes]:
        nonlocal rows
        query = SQL("copy {} ({}) to stdout").format(Identifier(schema, table), SQL(", ").join(map(Identifier, columns)))
        with connection.cursor().copy(query) as copied:
            for piece in copied:
                rows += 1  # the server sends a row a message
                yield bytes(piece)

    return TableFile(name, columns, sha256=_write_whole(folder / f"{name}.copy", pieces()), rows=rows)


def _filled(connection: psycopg.Connection, table: TableFile, folder: Path) -> None:
    name, columns = Identifier(*table.name.split(".")), SQL(", ").join(map(Identifier, table.columns))
    connection.execute(SQL("delete from {}").format(name))
    with (
        connection.cursor().copy(SQL("copy {} ({}) from stdin").format(name, columns)) as copied,
        _file(folder, table).open("rb") as file,
    ):
        while piece := file.read(PIECE):
            copied.write(piece)


def _file(folder: Path, table: TableFile) -> Path:
    return folder / f"{table.name}.copy"


def _copied(named: list[str], blobs: Blobs, folder: Path, progress: Progress) -> Iterator[str]:
    """Copy what is not there yet; yields the blobs that the store does not have."""
    for number, sha256 in enumerate(named):
        progress("blobs", number, len(named))
        path = _blob(folder, sha256)
        if _digest_of(path) == sha256:
            continue
        try:
            data = blobs.read(sha256)
        except (NotFound, Corrupted):
            yield sha256
            continue
        _write_whole(path, [data])


def _copied_derived(names: list[str], blobs: Blobs, folder: Path, progress: Progress) -> Iterator[tuple[str, str]]:
    """(name, sha256) of what is shown of images."""
    for number, name in enumerate(names):
        progress("thumbnails", number, len(names))
        if (data := blobs.get_derived(name)) is not None:
            yield name, _write_whole(_derivative(folder, name), [data])


def _put(blobs: Blobs, sha256: str, folder: Path) -> None:
    writer = blobs.begin()
    try:
        with _blob(folder, sha256).open("rb") as file:
            while piece := file.read(PIECE):
                writer.write(piece)
    except OSError as error:
        writer.abort()
        raise NoBackup(f"the blob {sha256} cannot be read ({error.strerror})") from None
    stored, _ = writer.commit()
    if stored != sha256:
        raise NoBackup(f"the blob {sha256} is damaged: its bytes have another digest")


def _derivative(folder: Path, name: str) -> Path:
    shelf, sha256 = derivatives.split(name)
    return _blob(folder, sha256, shelf=shelf)


def _blob(folder: Path, sha256: str, *, shelf: str = "blobs") -> Path:
    return folder / shelf / sha256[:2] / sha256


def _digests(root: Keys) -> KeyedDigest:
    return KeyedDigest(root, Purpose.BACKUPS)


def _sealed(manifest: Manifest) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(manifest, seal=""))


def _bytes(digest: str) -> bytes:
    """Empty where it is not hexadecimal."""
    try:
        return bytes.fromhex(digest)
    except ValueError:
        return b""


def _write_whole(path: Path, pieces: Iterable[bytes]) -> str:
    """All of it or nothing, readable by us alone, and still there after a power cut; the sha256 in hex."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, part = hashlib.sha256(), path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    with part.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return digest.hexdigest()


def _digest_of(path: Path) -> str:
    """Empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
