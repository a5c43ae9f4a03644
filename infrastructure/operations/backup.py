"""Backup and restore of the log, the tables beside it and the blobs that it names. The root key is never included.

Refresh tokens are not included, so that no used token becomes valid again; users sign in again after a restore. The devices' last status
reports are not included either, since they are not part of the log.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Final

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from application import derivatives
from application.ports import BlobStore
from domain.errors import CorruptBlob, NotFound
from infrastructure.operations.backup_files import (
    FORMAT,
    MANIFEST,
    PREVIOUS,
    Manifest,
    NoBackup,
    Progress,
    TableFile,
    blob_file,
    checked,
    derivative_file,
    digest_of,
    invalidate_manifest,
    range_file,
    read_manifest,
    sealed,
    table_file,
    write_hashed,
    write_manifest,
)
from infrastructure.operations.log_ranges import POSITIONS_PER_RANGE, columns_of, copy_command, copy_ranges, is_same_log, names_in
from infrastructure.postgres.profiles import OWNER
from infrastructure.security.keys import Keys

__all__ = ["MANIFEST", "Manifest", "NoBackup", "backup", "checked", "read_manifest", "restore"]

# The log is copied in ranges, command ids in pages. The table of streams is derived from the log.
TABLES: Final = """select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and not c.relispartition
    and (n.nspname = 'es' and c.relname not in ('refresh_tokens', 'streams', 'commands')
      or n.nspname = 'ops' and c.relname in ('heads', 'written_types', 'access_addresses', 'access_head', 'access_heads', 'access_log'))
  order by 1"""
# For backups without this table, it is filled from the log.
WRITTEN_TYPES: Final = """insert into ops.written_types (topic, schema_version)
  select distinct topic, schema_version from es.events on conflict do nothing"""
# Mails of the restored events were sent when these were recorded.
MAILS_SENT: Final = "update ops.mail_checkpoint set position = (select position from es.head)"
MAY_CHANGE_ACCESS_LOG: Final = "select set_config('ops.access_change', 'on', true)"
COMMANDS: Final = "es.commands"
COMMANDS_PAGES: Final = "select pg_relation_size('es.commands') / current_setting('block_size')::bigint + 1"
PAGES_PER_TRANSACTION: Final = 12_800  # of es.commands; 100 MiB
PIECE_BYTES: Final = 1 << 20


def backup(
    owner_url: str,
    blobs: BlobStore,
    folder: Path,
    *,
    root: Keys,
    progress: Progress = lambda *_: None,
    positions_per_range: int = POSITIONS_PER_RANGE,
) -> Manifest:
    """Write a backup into `folder` while the system runs. Intact files of an earlier backup there are kept. Raises Unavailable, OSError.

    Small tables are copied first, in one snapshot, whose head is the last position of the backup. The log up to there does not change, so
    its ranges, and command ids, are copied in short transactions; a long snapshot would slow down appends. Blobs are copied last. Each was
    stored before the log named it, so none is missed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    previous = invalidate_manifest(folder, root)
    with OWNER.connect_unmonitored(owner_url) as connection:
        position, digest, migration, tables = _dump_tables(connection, folder, progress)
        tables.append(_dump_commands(connection, position, folder, progress))
        columns = columns_of(connection, "es.events")
        reusable = previous.ranges if previous and previous.columns == columns and is_same_log(connection, previous) else ()
        ranges = tuple(
            copy_ranges(
                connection, position, columns, folder, reusable=reusable, progress=progress, positions_per_range=positions_per_range
            )
        )
        blob_names, renditions = names_in(connection, position, progress)
    missing = set(_copy_blobs(blob_names, blobs, folder, progress))
    manifest = Manifest(
        format=FORMAT,
        made_at=datetime.now(UTC),
        migration=migration,
        position=position,
        hash=digest,
        key="",
        tables=tuple(tables),
        blobs=tuple(sha256 for sha256 in blob_names if sha256 not in missing),
        derived=dict(_copy_renditions(renditions, blobs, folder, progress)),
        missing=tuple(sorted(missing)),
        columns=columns,
        ranges=ranges,
    )
    manifest = sealed(manifest, root)
    write_manifest(folder, manifest)
    _delete_outdated(folder, manifest)
    return manifest


def restore(owner_url: str, blobs: BlobStore, folder: Path, manifest: Manifest, *, progress: Progress = lambda *_: None) -> None:
    """Restore a `checked` backup into a migrated database with an empty log, and into the blob store. Raises NoBackup.

    The database is restored in one transaction. The caller must verify the hash chain and rebuild the read models.
    """
    with OWNER.connect_unmonitored(owner_url, autocommit=False) as connection:
        _refuse_unless_empty(connection, manifest)
        for number, sha256 in enumerate(manifest.blobs):
            progress("blobs", number, len(manifest.blobs))
            if not blobs.exists(sha256):
                _put_blob(blobs, sha256, folder)
        for name in manifest.derived:
            blobs.put_derived(name, derivative_file(folder, name).read_bytes(), derivatives.MEDIA_TYPE)
        connection.execute("call es.prepare_partitions(%s)", (manifest.position,))
        connection.execute("alter table es.events disable trigger append_only")
        for number, table in enumerate(manifest.tables):
            progress("tables", number, len(manifest.tables))
            connection.execute(MAY_CHANGE_ACCESS_LOG)
            connection.execute(SQL("delete from {}").format(Identifier(*table.name.split("."))))
            _copy_in(connection, table.name, table.columns, table_file(folder, table.name))
        for number, range_ in enumerate(manifest.ranges):
            progress("log", number, len(manifest.ranges))
            _copy_in(connection, "es.events", manifest.columns, range_file(folder, range_.first))
        connection.execute("alter table es.events enable trigger append_only")
        connection.execute("call es.fill_streams()")
        connection.execute("call ops.fill_open_chunks()")
        connection.execute(WRITTEN_TYPES)
        connection.execute(MAILS_SENT)


def _refuse_unless_empty(connection: psycopg.Connection, manifest: Manifest) -> None:
    """Raises NoBackup if the database does not suit. The lock on the head blocks appends until the transaction ends."""
    (position,) = connection.execute("select position from es.head for update").fetchone() or (0,)
    (migration,) = connection.execute("select max(number) from ops.migrations").fetchone() or (0,)
    if migration < manifest.migration:
        raise NoBackup(f"the backup has migration {manifest.migration}, this release only {migration}: use a newer release")
    if position:
        raise NoBackup(f"the log already has {position} events: restore into a new data folder or an empty database")


def _dump_tables(connection: psycopg.Connection, folder: Path, progress: Progress) -> tuple[int, str, int, list[TableFile]]:
    """Dump the small tables in one snapshot. Returns its last position, the hash there, the newest migration, and the files."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        position, digest = connection.execute("select position, encode(hash, 'hex') from es.head").fetchone() or (0, "")
        (migration,) = connection.execute("select max(number) from ops.migrations").fetchone() or (0,)
        names = [name for (name,) in connection.execute(TABLES).fetchall()]
        tables = [_dump_table(connection, name, folder, progress, number, len(names)) for number, name in enumerate(names)]
    return position, digest, migration, tables


def _dump_table(connection: psycopg.Connection, name: str, folder: Path, progress: Progress, number: int, total: int) -> TableFile:
    progress("tables", number, total)
    columns = columns_of(connection, name)
    query = SQL("select {} from {}").format(SQL(", ").join(map(Identifier, columns)), Identifier(*name.split(".")))
    rows, digest = copy_command(connection, [query], table_file(folder, name))
    return TableFile(name, columns, sha256=digest, rows=rows)


def _dump_commands(connection: psycopg.Connection, position: int, folder: Path, progress: Progress) -> TableFile:
    """Dump command ids. Rows are only added with later positions, or pruned, so the copy matches the log up to `position`."""
    columns = columns_of(connection, COMMANDS)
    (pages,) = connection.execute(COMMANDS_PAGES).fetchone() or (0,)

    def queries() -> Iterator[SQL | Composed]:
        for page in range(0, pages, PAGES_PER_TRANSACTION):
            progress("commands", page // PAGES_PER_TRANSACTION, -(-pages // PAGES_PER_TRANSACTION))
            yield SQL("select {} from es.commands where ctid >= {} and ctid < {} and position <= {}").format(
                SQL(", ").join(map(Identifier, columns)), f"({page},0)", f"({page + PAGES_PER_TRANSACTION},0)", position
            )

    rows, digest = copy_command(connection, queries(), table_file(folder, COMMANDS))
    return TableFile(COMMANDS, columns, sha256=digest, rows=rows)


def _copy_in(connection: psycopg.Connection, table: str, columns: Sequence[str], path: Path) -> None:
    into = SQL("copy {} ({}) from stdin").format(Identifier(*table.split(".")), SQL(", ").join(map(Identifier, columns)))
    with connection.cursor().copy(into) as copied, path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            copied.write(piece)


def _delete_outdated(folder: Path, manifest: Manifest) -> None:
    """Delete files of earlier backups that the manifest does not name. Blobs stay."""
    (folder / PREVIOUS).unlink(missing_ok=True)
    needed = {table_file(folder, table.name) for table in manifest.tables}
    needed |= {range_file(folder, range_.first) for range_ in manifest.ranges}
    for path in {*folder.glob("*.copy"), *(folder / "events").glob("*.copy")} - needed:
        path.unlink()


def _copy_blobs(blob_names: list[str], blobs: BlobStore, folder: Path, progress: Progress) -> Iterator[str]:
    """Copy blobs that the folder lacks; yield the names of those that the store lacks."""
    for number, sha256 in enumerate(blob_names):
        progress("blobs", number, len(blob_names))
        path = blob_file(folder, sha256)
        if digest_of(path) == sha256:
            continue
        try:
            file = blobs.open_locally(sha256)
        except (NotFound, CorruptBlob):
            yield sha256
            continue
        with file:
            write_hashed(path, iter(partial(file.read, PIECE_BYTES), b""))


def _copy_renditions(names: list[str], blobs: BlobStore, folder: Path, progress: Progress) -> Iterator[tuple[str, str]]:
    """Copy renditions; yield the name and sha256 of each."""
    for number, name in enumerate(names):
        progress("thumbnails", number, len(names))
        if (data := blobs.get_derived(name)) is not None:
            yield name, write_hashed(derivative_file(folder, name), [data])


def _put_blob(blobs: BlobStore, sha256: str, folder: Path) -> None:
    try:
        with blob_file(folder, sha256).open("rb") as file:
            stored = _put_file(blobs, file)
    except OSError as error:
        raise NoBackup(f"the blob {sha256} cannot be read ({error.strerror})") from None
    if stored != sha256:
        raise NoBackup(f"the blob {sha256} is damaged: its content does not match its name")


def _put_file(blobs: BlobStore, file: IO[bytes]) -> str:
    """The sha256 under which it is stored. It may be larger than an upload."""
    writer = blobs.begin(max_bytes=os.fstat(file.fileno()).st_size)
    try:
        while piece := file.read(PIECE_BYTES):
            writer.write(piece)
        return writer.commit()[0]
    finally:
        writer.abort()
