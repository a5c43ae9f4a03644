"""Backup and restore: complete, or refused with a reason; never half restored."""

import base64
import hashlib
import json
from datetime import datetime
from functools import partial

import msgspec
import psycopg
import pytest

from application import datasets, images, model_checks, models
from application.derivatives import thumbnail_of
from domain import image, model
from domain.access import Role
from domain.errors import Refused
from infrastructure.audit.log_verification import verify_log
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.operations.backup import MANIFEST, NoBackup, backup, checked, read_manifest, restore
from infrastructure.operations.backup_files import PREVIOUS, TableFile
from infrastructure.operations.log_ranges import POSITIONS_PER_RANGE
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import RootKey
from tests.adversaries.test_worker import a_job, judged
from tests.conftest import TEMPLATE
from tests.given import NOW, actor, add_model, command, register
from tests.partitions import made_small
from tests.rigs.scenario import REPORT
from tests.twins.blobs import MemoryBlobs

ROOT = RootKey(bytes(range(32)))
RESEARCHER = actor(Role.RESEARCHER)
SYSTEM = actor(None, kind="system")
MOST = 100_000  # bytes that an image may have


@pytest.fixture
def store():
    return MemoryBlobs()


@pytest.fixture
def log(app_url):
    log = RecorderEventStore(PostgresRecorder(app_url, ROOT), ROOT)
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
def made(request, owner_url, log, store, tmp_path):
    """A backup of three images in a dataset, and its folder."""
    cells = datasets.create(name="cells", description="of a patient", command=command(RESEARCHER), log=log).id
    for number in range(3):
        sha256 = store.keep(f"pixels {number}".encode())
        store.put_derived(thumbnail_of(sha256, 2), f"small {number}".encode(), "image/jpeg")
        about = {"media_type": "image/jpeg", "width": 3, "height": 3, "filename": f"{number}.jpg", "device_id": None}
        done = images.upload(dataset_id=cells, sha256=sha256, size=8, **about, command=command(RESEARCHER), log=log)
        accept(log, done.id)
    positions_per_range = getattr(request, "param", POSITIONS_PER_RANGE)
    backup(owner_url, store, tmp_path / "backup", root=ROOT, positions_per_range=positions_per_range)
    return tmp_path / "backup"


def accept(log, image_id):
    about = {"width": 3, "height": 3, "bands": 3, "dtype": "uint8", "pages": 1, "axes": "YXS", "pixel_size_um": None}
    state = log.load(image_id, image.evolve)
    log.append(command(RESEARCHER), *image.accept(state, image.Inspection(**about, reader=2, warnings=()), by=RESEARCHER.id, at=NOW))


def rows(url):
    with psycopg.connect(url) as connection:
        tables = (
            "es.events",
            "es.head",
            "es.commands",
            "es.claims",
            "es.secrets",
            "es.streams",
            "ops.heads",
            "ops.access_log",
            "ops.access_addresses",
        )
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
    restored = RecorderEventStore(PostgresRecorder(elsewhere, ROOT), ROOT)
    try:
        assert verified_by(settings, restored).finding is None
        assert restored.decode(restored.read(0, 1)[0]).description == "of a patient"
        assert datasets.create(name="more", description=None, command=command(RESEARCHER), log=restored).position == 8
    finally:
        restored.close()


def test_mails_of_restored_events_are_not_sent_again(made, elsewhere):
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    with psycopg.connect(elsewhere) as connection:
        assert connection.execute("select c.position = h.position, h.position from ops.mail_checkpoint c, es.head h").fetchone() == (
            True,
            7,
        )


def verified_by(settings, log):
    path = settings.root_key_path.with_name("this.key")
    path.write_text(base64.b64encode(bytes(range(32))).decode())
    return verify_log(msgspec.structs.replace(settings, root_key_file=path), log, blobs=MemoryBlobs())


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


def add_package(log, store, data):
    """A package is uploaded; returns its check."""
    sha256 = store.keep(data)
    register(RESEARCHER, log=log)
    done = model_checks.upload(filename="cells.zip", sha256=sha256, size=len(data), command=command(RESEARCHER), log=log)
    return sha256, done.id


def test_an_external_classifier_has_no_file_that_a_backup_could_lack(made, owner_url, log, store):
    about = {"name": "vesicles", "description": "", "labels": ("round",), "label_texts": {}, "review_below": 0.5}
    models.add_external(**about, command=command(RESEARCHER), log=log)
    manifest = backup(owner_url, store, made, root=ROOT)
    assert (manifest.missing, set(manifest.blobs)) == ((), set(store.kept))


def test_packages_are_kept_for_versions_and_for_checks_to_come(made, owner_url, elsewhere, log, store):
    """Also a package that is larger than an image may be. The weights in it, a refused package, and another one of a known version, are no
    blobs that anything needs: the sweeper deletes them.
    """
    package, check = add_package(log, store, bytes(MOST + 1))
    waiting, _ = add_package(log, store, b"pending")
    refused, refused_check = add_package(log, store, b"refused")
    weights = store.keep(b"weights in the package")
    about = {"labels": ("round",), "review_below": 0.0, "record": '{"sha256": "%s"}' % ("f" * 64), "digest": weights, "package": package}
    found = model_checks.CheckedModel("cells", "", model.Version(number=1, sha256=weights, size=9, **about), REPORT)
    model_checks.record_passed(check, found, command=command(SYSTEM), log=log)
    model_checks.record_failed(refused_check, model_checks.PackageRefusal("labels", "are missing"), None, command=command(SYSTEM), log=log)
    zipped_again, again = add_package(log, store, b"zipped again")
    model_checks.record_passed(again, found, command=command(SYSTEM), log=log)
    earlier = store.keep(b"weights of an earlier release")
    old = {"name": "shipped", "sha256": earlier, "size": 9, "labels": ("round",), "review_below": 0.0, "record": "{}"}
    add_model(**old, command=command(actor(Role.ADMIN)), log=log)
    manifest = backup(owner_url, store, made, root=ROOT)
    assert manifest.missing == ()
    assert {package, waiting, earlier} <= set(manifest.blobs)
    assert {weights, refused, zipped_again} & set(manifest.blobs) == set()
    restored = MemoryBlobs(maximum=MOST)
    restore(elsewhere, restored, made, checked(made, ROOT))
    assert restored.read(package) == bytes(MOST + 1)


def test_the_package_of_a_check_that_is_answered_during_the_copy_is_kept(made, owner_url, log, store):
    """The restored log holds no answer, so the check awaits it, with the package."""
    passes, passed_check = add_package(log, store, b"passes")
    fails, failed_check = add_package(log, store, b"fails")

    def meanwhile(what, done, _):
        if what == "log" and done == 0:
            about = {"labels": ("round",), "review_below": 0.0, "record": "{}", "digest": passes, "package": passes}
            found = model_checks.CheckedModel("cells", "", model.Version(number=1, sha256=passes, size=9, **about), REPORT)
            assert model_checks.record_passed(passed_check, found, command=command(SYSTEM), log=log)
            refusal = model_checks.PackageRefusal("labels", "are missing")
            assert model_checks.record_failed(failed_check, refusal, None, command=command(SYSTEM), log=log)

    manifest = backup(owner_url, store, made, root=ROOT, progress=meanwhile)
    assert manifest.position < log.head()
    assert {passes, fails} <= set(manifest.blobs)
    later = backup(owner_url, store, made, root=ROOT)
    assert {passes, fails} & set(later.blobs) == {passes}


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


def first_range(made):
    return made / "events" / "000000000001.copy"


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


REFUSALS = {
    "no manifest": (lambda made: (made / MANIFEST).unlink(), "not a backup, or an incomplete one"),
    "a manifest that is no JSON": (lambda made: (made / MANIFEST).write_text("{"), "damaged"),
    "a manifest of another position": (lambda made: changed(made, position=1), "was changed"),
    "a manifest that leaves a table out": (lambda made: changed(made, tables=[]), "was changed"),
    "a manifest of another format": (lambda made: changed(made, format=4), "format 4"),
    "a manifest that leaves a range out": (lambda made: changed(made, ranges=[]), "was changed"),
    "a range that is missing": (lambda made: first_range(made).unlink(), "000000000001.copy is missing"),
    "a range that is damaged": (lambda made: damage(first_range(made)), "000000000001.copy is damaged"),
    "a table that is missing": (lambda made: (made / "es.claims.copy").unlink(), "es.claims.copy is missing"),
    "a table that is damaged": (lambda made: damage(made / "es.secrets.copy"), "es.secrets.copy is damaged"),
    "a table that was cut off": (lambda made: (made / "es.commands.copy").write_bytes(b""), "es.commands.copy is damaged"),
    "a blob that is missing": (lambda made: blob_files(made)[1].unlink(), "is missing"),
    "a blob that is damaged": (lambda made: damage(blob_files(made)[1]), "is damaged"),
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


def test_every_missing_or_damaged_file_is_named(made):
    missing, damaged, *_ = blob_files(made)
    missing.unlink()
    damage(damaged)
    damage(first_range(made))
    with pytest.raises(NoBackup) as refused:
        checked(made, ROOT)
    summary, *named = str(refused.value).split("\n")
    assert "files: 3 of" in summary
    assert named == [f"{first_range(made)} is damaged", f"{missing} is missing", f"{damaged} is damaged"]


def test_more_files_than_fit_a_message_are_counted(made):
    files = [*blob_files(made), first_range(made)]
    for path in files:
        path.unlink()
    with pytest.raises(NoBackup) as refused:
        checked(made, ROOT, max_named_files=len(files) - 2)
    _, *named, more = str(refused.value).split("\n")
    assert len(named) == len(files) - 2
    assert more == "and 2 more"


def test_another_root_key_is_refused(made):
    with pytest.raises(NoBackup, match="the root key is not that of this backup"):
        checked(made, RootKey(bytes(32)))


def test_a_log_that_holds_something_is_left_as_it_is(made, owner_url, store):
    before, there = rows(owner_url), MemoryBlobs()
    with pytest.raises(NoBackup, match="the log already has 7 events"):
        restore(owner_url, there, made, checked(made, ROOT))
    assert rows(owner_url) == before
    assert there.kept == {}


def test_a_backup_of_a_newer_version_is_refused(made, elsewhere):
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute("delete from ops.migrations where number > 1")
    with pytest.raises(NoBackup, match="use a newer release"):
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


def interrupted(owner_url, store, made, at, after, **how):
    def interrupt(what, done, _):
        if (what, done) == (at, after):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(owner_url, store, made, root=ROOT, progress=interrupt, **how)


@pytest.mark.parametrize("at", ["tables", "commands", "log", "names", "blobs", "thumbnails"])
def test_a_backup_that_is_cut_off_is_none(owner_url, store, made, at):
    interrupted(owner_url, store, made, at, 0)
    with pytest.raises(NoBackup, match="incomplete"):
        checked(made, ROOT)


# ---- the log in ranges ---------------------------------------------------------------------------------------------------------------
backup_in_threes = partial(backup, root=ROOT, positions_per_range=3)
in_threes = pytest.mark.parametrize("made", [3], indirect=True)


def described(made):
    return [(one.first, one.last, one.rows) for one in read_manifest(made).ranges]


def files(made):
    """When each file of the log was written."""
    return {path.name: path.stat().st_ino for path in (made / "events").iterdir()}


def more(log, count=1):
    for number in range(count):
        datasets.create(name=f"more {number}", description=None, command=command(RESEARCHER), log=log)


@in_threes
def test_a_log_in_ranges_and_small_partitions_comes_back_as_it_was(made, owner_url, elsewhere):
    assert described(made) == [(1, 3, 3), (4, 6, 3), (7, 7, 1)]
    with psycopg.connect(elsewhere, autocommit=True) as owner:
        made_small(owner, 2)
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    assert rows(elsewhere) == rows(owner_url)


@in_threes
def test_a_second_backup_writes_only_the_ranges_that_the_folder_lacks(made, owner_url, log, store, elsewhere):
    before = files(made)
    more(log, 3)
    backup_in_threes(owner_url, store, made)
    after = files(made)
    assert described(made) == [(1, 3, 3), (4, 6, 3), (7, 9, 3), (10, 10, 1)]
    assert sorted(name for name in after if after[name] == before.get(name)) == ["000000000001.copy", "000000000004.copy"]
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    assert rows(elsewhere) == rows(owner_url)


@in_threes
def test_a_range_that_was_damaged_in_the_folder_is_written_again(made, owner_url, store):
    whole = first_range(made).read_bytes()
    damage(first_range(made))
    assert first_range(made).read_bytes() != whole
    backup_in_threes(owner_url, store, made)
    checked(made, ROOT)
    assert first_range(made).read_bytes() == whole


@in_threes
def test_a_backup_after_one_that_was_cut_off_keeps_the_ranges_of_the_last_whole_one(made, owner_url, store):
    before = files(made)
    interrupted(owner_url, store, made, "log", 1, positions_per_range=3)
    with pytest.raises(NoBackup, match="incomplete"):
        checked(made, ROOT)
    backup_in_threes(owner_url, store, made)
    assert {name: files(made)[name] for name in ("000000000001.copy", "000000000004.copy")} == {
        name: before[name] for name in ("000000000001.copy", "000000000004.copy")
    }
    checked(made, ROOT)
    assert not (made / PREVIOUS).exists()


@in_threes
def test_nothing_of_another_log_in_the_folder_is_taken_for_a_part_of_this_one(made, elsewhere, store):
    other = RecorderEventStore(PostgresRecorder(elsewhere, ROOT), ROOT)
    more(other, 5)
    other.close()
    backup_in_threes(elsewhere, store, made)
    assert described(made) == [(1, 3, 3), (4, 5, 2)]
    assert sorted(files(made)) == ["000000000001.copy", "000000000004.copy"]
    with (
        psycopg.connect(elsewhere) as connection,
        connection.cursor().copy("copy (select * from es.events where notification_id < 4) to stdout") as all_of_it,
    ):
        assert b"".join(map(bytes, all_of_it)) == first_range(made).read_bytes()


@in_threes
def test_what_happens_while_the_log_is_copied_is_not_in_the_backup_and_nothing_of_it_is(made, owner_url, log, store, elsewhere):
    """Commands among them: a row of one that is not in the log would be named by an audit."""

    def meanwhile(what, done, _):
        if done == 0:
            more(log)

    position = log.head()
    manifest = backup_in_threes(owner_url, store, made, progress=meanwhile)
    assert position <= manifest.position < log.head()
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    with psycopg.connect(elsewhere) as connection:
        newest = (
            "select (select max(position) from es.commands), (select max(notification_id) from es.events), (select position from es.head)"
        )
        assert connection.execute(newest).fetchone() == (manifest.position,) * 3


@in_threes
def test_no_snapshot_is_held_while_the_log_and_the_commands_are_copied(made, owner_url, store):
    """With one, no append could clear up behind the ones before it."""
    held = []

    def look(what, *_):
        with psycopg.connect(owner_url, autocommit=True) as connection:
            old = """select count(*) from pg_stat_activity
              where backend_xmin is not null and pid <> pg_backend_pid() and datname = current_database()
                and backend_type = 'client backend'"""
            held.append((what, *connection.execute(old).fetchone()))

    backup_in_threes(owner_url, store, made, progress=look)
    assert {what for what, count in held if count} == {"tables"}
    assert {"log", "commands", "names"} <= {what for what, _ in held}


class ManifestOfBefore(msgspec.Struct, kw_only=True):
    """As formats 1 and 2 had it."""

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


@pytest.mark.parametrize("number", [1, 2])
def test_a_backup_of_an_earlier_format_is_restored(made, owner_url, elsewhere, number):
    manifest = read_manifest(made)
    log_table = made / "es.events.copy"
    first_range(made).replace(log_table)
    table = TableFile("es.events", manifest.columns, manifest.position, hashlib.sha256(log_table.read_bytes()).hexdigest())
    fields = {name: getattr(manifest, name) for name in ManifestOfBefore.__struct_fields__}
    earlier = ManifestOfBefore(**fields | {"format": number, "tables": (*manifest.tables, table), "seal": ""})
    earlier.seal = KeyedDigest(ROOT, Purpose.BACKUPS).of(msgspec.json.encode(earlier)).hex()
    (made / MANIFEST).write_bytes(msgspec.json.encode(earlier))
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    assert rows(elsewhere) == rows(owner_url)


def written_types(url):
    with psycopg.connect(url) as connection:
        return connection.execute("select topic, schema_version, since from ops.written_types order by 1, 2").fetchall()


def test_which_types_are_written_is_known_after_a_restore(owner_url, elsewhere, made, store):
    """Also a type that may be written, and of which the log holds no event yet."""
    with psycopg.connect(owner_url) as owner:
        owner.execute("insert into ops.written_types (topic, schema_version) values ('ImageTagged', 3)")
    backup(owner_url, store, made, root=ROOT)
    restore(elsewhere, MemoryBlobs(), made, checked(made, ROOT))
    assert written_types(elsewhere) == written_types(owner_url)


def test_what_an_earlier_backup_holds_counts_as_written_after_a_restore(owner_url, elsewhere, made):
    manifest = read_manifest(made)
    manifest = msgspec.structs.replace(manifest, tables=tuple(one for one in manifest.tables if one.name != "ops.written_types"))
    with psycopg.connect(elsewhere, autocommit=True) as owner:
        owner.execute("delete from ops.written_types where topic <> 'ImageDeleted'")
    restore(elsewhere, MemoryBlobs(), made, manifest)
    assert [(topic, version) for topic, version, _ in written_types(elsewhere)] == [
        ("DatasetCreated", 1),
        ("ImageAccepted", 1),
        ("ImageDeleted", 1),
        ("ImageUploaded", 1),
    ]


def test_what_was_planned_before_the_backup_can_be_answered_after_the_restore(log, owner_url, elsewhere, store, tmp_path):
    job = a_job(log)
    backup(owner_url, store, tmp_path / "backup", root=ROOT)
    restore(elsewhere, store, tmp_path / "backup", checked(tmp_path / "backup", ROOT))
    restored = RecorderEventStore(PostgresRecorder(elsewhere, ROOT), ROOT)
    restored.append(command(), judged(restored, job))
    with pytest.raises(Refused):
        restored.append(command(), judged(restored, job, 777))
    restored.close()
