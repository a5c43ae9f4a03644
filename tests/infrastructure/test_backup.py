"""A backup and what becomes of it: whole, or refused with a sentence, and never half restored."""

import base64
import json

import msgspec
import psycopg
import pytest

from application import datasets, images
from application.derivatives import thumbnail_of
from domain import image
from domain.access import Role
from domain.errors import Refused
from infrastructure.backup import MANIFEST, NoBackup, backup, checked, read_manifest, restore
from infrastructure.event_store import EventLog
from infrastructure.heads import verified
from infrastructure.keys import RootKey
from infrastructure.memory_blobs import MemoryBlobs
from infrastructure.recorder import PostgresRecorder
from tests.adversaries.test_worker import a_job, judged
from tests.conftest import TEMPLATE
from tests.given import NOW, actor, command

ROOT = RootKey(bytes(range(32)))
RESEARCHER = actor(Role.RESEARCHER)


@pytest.fixture
def store():
    return MemoryBlobs()


@pytest.fixture
def log(app_url):
    log = EventLog(PostgresRecorder(app_url, ROOT), ROOT)
    yield log
    log.close()


@pytest.fixture
def elsewhere(postgres, database):
    """The owner's URL of another database, migrated and empty."""
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {database}_restored template {TEMPLATE}")
        yield postgres.url(user="postgres", database=f"{database}_restored")
        connection.execute(f"drop database {database}_restored with (force)")


@pytest.fixture
def made(owner_url, log, store, tmp_path):
    """A backup of three images in a dataset, and its folder."""
    cells = datasets.create(name="cells", description="of a patient", command=command(RESEARCHER), log=log).id
    for number in range(3):
        sha256 = store.keep(f"pixels {number}".encode())
        store.put_derived(thumbnail_of(sha256, 2), f"small {number}".encode(), "image/jpeg")
        about = {"media_type": "image/jpeg", "width": 3, "height": 3, "filename": f"{number}.jpg", "device_id": None}
        done = images.upload(dataset_id=cells, sha256=sha256, size=8, **about, command=command(RESEARCHER), log=log)
        accept(log, done.id)
    backup(owner_url, store, tmp_path / "backup", root=ROOT)
    return tmp_path / "backup"


def accept(log, image_id):
    about = {"width": 3, "height": 3, "bands": 3, "dtype": "uint8", "pages": 1, "axes": "YXS", "pixel_size_um": None}
    state = log.load(image_id, image.evolve)
    log.append(command(RESEARCHER), *image.accept(state, image.Inspection(**about, reader=2, warnings=()), by=RESEARCHER.id, at=NOW))


def rows(url):
    with psycopg.connect(url) as connection:
        tables = ("es.events", "es.head", "es.commands", "es.claims", "es.secrets", "ops.heads")
        digest = "select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from {} t"
        return {table: connection.execute(digest.format(table)).fetchone() for table in tables}


def blob_files(folder):
    return sorted(path for path in (folder / "blobs").rglob("*") if path.is_file())


def test_what_is_restored_is_what_was_there(made, owner_url, elsewhere, store):
    there = MemoryBlobs()
    restore(elsewhere, there, made, checked(made, ROOT))
    assert rows(elsewhere) == rows(owner_url)
    assert there.kept == store.kept
    assert {there.get_derived(thumbnail_of(sha256, 2)) for sha256 in store.kept} == {b"small 0", b"small 1", b"small 2"}


def test_the_restored_log_verifies_reads_and_takes_commands(made, elsewhere, settings):
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    restored = EventLog(PostgresRecorder(elsewhere, ROOT), ROOT)
    try:
        assert verified_by(settings, restored).finding is None
        assert restored.decode(restored.read(0, 1)[0]).description == "of a patient"
        assert datasets.create(name="more", description=None, command=command(RESEARCHER), log=restored).position == 8
    finally:
        restored.close()


def verified_by(settings, log):
    path = settings.root_key_path.with_name("this.key")
    path.write_text(base64.b64encode(bytes(range(32))).decode())
    return verified(msgspec.structs.replace(settings, root_key_file=path), log, blobs=MemoryBlobs())


def test_the_log_stays_append_only_after_a_restore(made, elsewhere):
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    with psycopg.connect(elsewhere) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute("delete from es.events")


def test_no_clear_text_and_no_key_is_in_it(made):
    everything = b"".join(path.read_bytes() for path in made.rglob("*") if path.is_file())
    assert b"of a patient" not in everything
    assert bytes(range(32)) not in everything
    assert all(path.stat().st_mode & 0o077 == 0 for path in made.rglob("*") if path.is_file())


def test_a_second_backup_into_the_folder_copies_only_what_is_new(made, owner_url, log, store):
    before = {path: path.stat().st_ino for path in blob_files(made)}
    datasets.create(name="more", description=None, command=command(RESEARCHER), log=log)
    again = backup(owner_url, store, made, root=ROOT)
    assert again.position == log.head()
    assert {path: path.stat().st_ino for path in blob_files(made)} == before
    assert checked(made, ROOT) == again


def test_what_was_damaged_in_the_folder_is_copied_again(made, owner_url, store):
    damaged, *_ = blob_files(made)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = backup(owner_url, store, made, root=ROOT)
    assert checked(made, ROOT) == again


def test_what_the_store_has_lost_is_named(owner_url, log, store, made):
    lost = next(iter(store.kept))
    del store.kept[lost]
    for path in blob_files(made):
        path.unlink()
    again = backup(owner_url, store, made, root=ROOT)
    assert again.missing == (lost,)
    assert lost not in again.blobs


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


REFUSALS = {
    "no manifest": (lambda made: (made / MANIFEST).unlink(), "no backup, or one that was cut off"),
    "a manifest that is no JSON": (lambda made: (made / MANIFEST).write_text("{"), "damaged"),
    "a manifest of another position": (lambda made: changed(made, position=1), "was changed"),
    "a manifest that leaves a table out": (lambda made: changed(made, tables=[]), "was changed"),
    "a manifest of another format": (lambda made: changed(made, format=3), "format 3"),
    "a table that is missing": (lambda made: (made / "es.events.copy").unlink(), "es.events.copy is missing or damaged"),
    "a table that is damaged": (lambda made: damage(made / "es.events.copy"), "es.events.copy is missing or damaged"),
    "a table that was cut off": (lambda made: (made / "es.commands.copy").write_bytes(b""), "es.commands.copy is missing or damaged"),
    "a blob that is missing": (lambda made: blob_files(made)[1].unlink(), "is missing or damaged"),
    "a blob that is damaged": (lambda made: damage(blob_files(made)[1]), "is missing or damaged"),
}


def changed(made, **fields):
    path = made / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("what", REFUSALS)
def test_a_damaged_backup_is_refused_by_name_before_anything_is_written(made, what):
    spoil, said = REFUSALS[what]
    spoil(made)
    with pytest.raises(NoBackup, match=said):
        checked(made, ROOT)


def test_another_root_key_is_refused(made):
    with pytest.raises(NoBackup, match="not the one that this backup was made with"):
        checked(made, RootKey(bytes(32)))


def test_a_log_that_holds_something_is_left_as_it_is(made, owner_url, store):
    before, there = rows(owner_url), MemoryBlobs()
    with pytest.raises(NoBackup, match="the log here has 7 events already"):
        restore(owner_url, there, made, checked(made, ROOT))
    assert rows(owner_url) == before
    assert there.kept == {}


def test_a_backup_of_a_newer_version_is_refused(made, elsewhere):
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute("delete from ops.migrations where number > 1")
    with pytest.raises(NoBackup, match="use a newer one"):
        restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))


def test_a_restore_that_is_cut_off_leaves_an_empty_log_and_may_be_repeated(made, elsewhere):
    class Gone(Exception):
        pass

    def interrupt(what, done, _):
        if what == "tables" and done == 3:
            raise Gone

    empty = rows(elsewhere)
    with pytest.raises(Gone):
        restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT), progress=interrupt)
    assert rows(elsewhere) == empty
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    assert read_manifest(made).position == 7


def test_a_backup_that_is_cut_off_is_none(owner_url, store, made):
    def interrupt(what, done, _):
        if what == "tables" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(owner_url, store, made, root=ROOT, progress=interrupt)
    with pytest.raises(NoBackup, match="cut off"):
        checked(made, ROOT)


def test_what_was_planned_before_the_backup_can_be_answered_after_the_restore(log, owner_url, elsewhere, store, tmp_path):
    job = a_job(log)
    backup(owner_url, store, tmp_path / "backup", root=ROOT)
    restore(elsewhere, store, tmp_path / "backup", checked(tmp_path / "backup", ROOT))
    restored = EventLog(PostgresRecorder(elsewhere, ROOT), ROOT)
    restored.append(command(), judged(restored, job))
    with pytest.raises(Refused):
        restored.append(command(), judged(restored, job, 777))
    restored.close()
