"""A copy of all that cannot be made again: the log with what stands beside it, and the blobs that it names. Never the root key."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier

from application.ports import Blobs
from domain.errors import NotFound

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
SNAPSHOT: Final = "begin isolation level repeatable read, read only"
TABLES: Final = "select table_name from information_schema.tables where table_schema = 'es' and table_type = 'BASE TABLE' order by 1"
COLUMNS: Final = """select column_name from information_schema.columns
  where table_schema = 'es' and table_name = %s and is_generated = 'NEVER' order by ordinal_position"""
NAMED: Final = """select distinct match[1] from es.events,
    regexp_matches(convert_from(state, 'UTF8'), '"sha256":"([0-9a-f]{64})"', 'g') match
  where topic in ('ImageUploaded', 'ModelVersionAdded')"""
PIECE: Final = 1 << 20


class NoBackup(Exception):
    """The folder holds no backup that can be restored here; the text says why."""


class TableFile(msgspec.Struct, frozen=True):
    name: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds: the log up to `position` with the chain's `hash`, tables, and blobs by their sha256.

    `missing`: blobs that the log names and the store has no more, since their images were deleted.
    """

    format: int
    made_at: datetime
    migration: int
    position: int
    hash: str
    tables: tuple[TableFile, ...]
    blobs: tuple[str, ...]
    missing: tuple[str, ...]


Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)`"""


def backup(owner_url: str, blobs: Blobs, folder: Path, *, progress: Progress = lambda *_: None) -> Manifest:
    """Write a backup into `folder` while everything runs; blobs that lie there already are kept. Raises Unavailable, OSError.

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
        connection.execute("commit")
    missing = tuple(_copied(named, blobs, folder, progress))
    manifest = Manifest(
        format=FORMAT,
        made_at=datetime.now(UTC),
        migration=migration,
        position=position,
        hash=digest,
        tables=tuple(tables),
        blobs=tuple(sha256 for sha256 in named if sha256 not in set(missing)),
        missing=missing,
    )
    _write_whole(folder / MANIFEST, [msgspec.json.format(msgspec.json.encode(manifest), indent=1)])
    return manifest


def restore(owner_url: str, blobs: Blobs, folder: Path, *, progress: Progress = lambda *_: None) -> Manifest:
    """Bring a backup into a migrated database whose log is empty, and into the blob store. All of the database, or nothing.

    Raises NoBackup. The chain is for the caller to verify, the read models for him to rebuild.
    """
    manifest = read_manifest(folder)
    _check_tables(manifest, folder)
    for number, sha256 in enumerate(manifest.blobs):
        progress("blobs", number, len(manifest.blobs))
        if not blobs.exists(sha256):
            _put(blobs, sha256, folder)
    with psycopg.connect(owner_url, options="-c timezone=UTC") as connection:
        (position,) = connection.execute("select position from es.head").fetchone() or (0,)
        (migration,) = connection.execute("select max(number) from ops.migrations").fetchone() or (0,)
        if migration < manifest.migration:
            raise NoBackup(f"the backup is of migration {manifest.migration}, this version knows {migration}: use a newer one")
        if position:
            raise NoBackup(f"the log here has {position} events already: restore into a new data folder or an empty database")
        connection.execute("alter table es.events disable trigger append_only")
        for number, table in enumerate(manifest.tables):
            progress("tables", number, len(manifest.tables))
            _filled(connection, table, folder)
        connection.execute("alter table es.events enable trigger append_only")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Raises NoBackup."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NoBackup(f"{folder} holds no {MANIFEST}: it is no backup, or one that was cut off") from None
    except msgspec.MsgspecError:
        raise NoBackup(f"{folder / MANIFEST} cannot be read: it is damaged") from None
    if manifest.format != FORMAT:
        raise NoBackup(f"the backup has format {manifest.format}; this version reads {FORMAT}")
    return manifest


def _dumped(connection: psycopg.Connection, name: str, folder: Path, progress: Progress, number: int, total: int) -> TableFile:
    progress("tables", number, total)
    columns = tuple(column for (column,) in connection.execute(COLUMNS, (name,)).fetchall())
    rows = 0

    def pieces() -> Iterator[bytes]:
        nonlocal rows
        query = SQL("copy es.{} ({}) to stdout").format(Identifier(name), SQL(", ").join(map(Identifier, columns)))
        with connection.cursor().copy(query) as copied:
            for piece in copied:
                rows += 1  # the server sends a row a message
                yield bytes(piece)

    return TableFile(name, columns, sha256=_write_whole(folder / f"{name}.copy", pieces()), rows=rows)


def _filled(connection: psycopg.Connection, table: TableFile, folder: Path) -> None:
    name, columns = Identifier(table.name), SQL(", ").join(map(Identifier, table.columns))
    connection.execute(SQL("delete from es.{}").format(name))
    with (
        connection.cursor().copy(SQL("copy es.{} ({}) from stdin").format(name, columns)) as copied,
        _file(folder, table).open("rb") as file,
    ):
        while piece := file.read(PIECE):
            copied.write(piece)


def _check_tables(manifest: Manifest, folder: Path) -> None:
    for table in manifest.tables:
        path = _file(folder, table)
        if not path.is_file() or _digest_of(path) != table.sha256:
            raise NoBackup(f"{path} is missing or damaged: it is not what was backed up")


def _file(folder: Path, table: TableFile) -> Path:
    return folder / f"{table.name}.copy"


def _copied(named: list[str], blobs: Blobs, folder: Path, progress: Progress) -> Iterator[str]:
    """Copy what is not there yet; yields the blobs that the store does not have."""
    for number, sha256 in enumerate(named):
        progress("blobs", number, len(named))
        path = _blob(folder, sha256)
        if path.exists():
            continue
        try:
            data = blobs.read(sha256)
        except NotFound:
            yield sha256
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, [data])


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


def _blob(folder: Path, sha256: str) -> Path:
    return folder / "blobs" / sha256[:2] / sha256


def _write_whole(path: Path, pieces: Iterable[bytes]) -> str:
    """All of it or nothing, readable by us alone; the sha256 in hex."""
    digest, part = hashlib.sha256(), path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    with part.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
    part.replace(path)
    return digest.hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
