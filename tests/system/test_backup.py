"""Backup of a whole system under load, and `bioscope restore` into a new data folder."""

import os
import subprocess
import sys
import threading

import msgspec
import psycopg
import pytest

from api.cli.client.api_client import Client
from application.derivatives import thumbnail_of
from infrastructure.container import blobs, verify_log
from infrastructure.embedded.supervisor import SupervisedStack, running_settings
from infrastructure.operations.backup import read_manifest
from projections.rebuild.digests import digests
from tests.chaos.invariants import check_invariants, settle
from tests.chaos.workload import PICTURES, Journal, Technician
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, email, event_log, made_account, prepare, stack_settings

pytestmark = pytest.mark.long

TECHNICIANS = 3
WORK = 40  # acknowledgements


class Copied:
    """A system that was backed up twice: while clients worked, and in the end. It has ended since."""

    def __init__(self, place):
        self.place, self.journal, stop = place, Journal(), threading.Event()
        self.settings = msgspec.structs.replace(stack_settings(place / "data"), access_ttl=3600)
        with SupervisedStack(self.settings, prepare=prepare) as settings:
            self.address = made_account(settings, "researcher", email("keeper"))
            with Client.sign_in(settings.base_url, self.address, PASSWORD) as client:
                token = client.credentials.access_token
            technicians = [Technician(settings.base_url, token, self.journal, seed=seed, stop=stop) for seed in range(TECHNICIANS)]
            for technician in technicians:
                technician.start()
            self._until(WORK)
            with psycopg.connect(settings.postgres_owner_url, autocommit=True) as reads:
                accepted = "select exists (select from read.images where accepted)"
                wait_until(lambda: reads.execute(accepted).fetchone()[0], within=60, explain=lambda: "no image is accepted")
            before = len(self.journal.acknowledged)
            self.said = bioscope("backup", str(place / "early"), "--data", str(self.settings.data))
            self.meanwhile = len(self.journal.acknowledged) - before
            self._until(before + WORK)
            stop.set()
            for technician in technicians:
                technician.join(30)
            assert settle(settings, within=60) is not None
            subprocess.run(["cp", "-r", str(place / "early"), str(place / "late")], check=True)
            bioscope("backup", str(place / "late"), "--data", str(self.settings.data))
            with psycopg.connect(settings.postgres_owner_url) as connection:
                self.digests = digests(connection)

    def _until(self, acknowledgements):
        wait_until(lambda: len(self.journal.acknowledged) >= acknowledgements, within=60, explain=lambda: "clients get no answers")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    return Copied(tmp_path_factory.mktemp("copied"))


def bioscope(*arguments, good=True, **given):
    """What the command said, on both streams."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("BIOSCOPE_")} | given
    done = subprocess.run([sys.executable, "-m", "api.cli", *arguments], capture_output=True, text=True, env=variables, check=False)
    assert (done.returncode == 0) == good, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def restored(copied, name, to):
    return bioscope("restore", str(copied.place / name), "--data", str(to), "--root-key", str(copied.settings.root_key_path))


def test_a_backup_under_way_holds_no_one_up(copied):
    manifest = read_manifest(copied.place / "early")
    assert copied.meanwhile > 0
    assert f"{manifest.position} events" in copied.said
    assert "root.key apart" in copied.said


def test_restored_and_rebuilt_is_the_same_as_the_original(copied, tmp_path):
    data = tmp_path / "restored data"
    said = restored(copied, "late", data)
    assert "Restored:" in said
    assert f"Start it with `bioscope up --data '{data}'`" in said
    with (
        SupervisedStack(stack_settings(data), prepare=prepare) as settings,
        psycopg.connect(settings.postgres_owner_url) as connection,
    ):
        assert digests(connection) == copied.digests
        checked = check_invariants(settings, copied.journal)
        assert checked.broken == []
        assert checked.results > 0


def test_what_was_backed_up_while_people_worked_is_whole_and_works_on(copied, tmp_path):
    """Each job that was under way at that moment ends in the restored system; people sign in with their passwords."""
    restored(copied, "early", tmp_path / "data")
    manifest = read_manifest(copied.place / "early")
    with SupervisedStack(stack_settings(tmp_path / "data"), prepare=prepare) as settings:
        assert settle(settings, within=60) is not None
        then = Journal()
        then.acknowledged = [one for one in copied.journal.acknowledged if one.position <= manifest.position]
        assert len(then.acknowledged) >= WORK
        assert check_invariants(settings, then).broken == []
        with Client.sign_in(settings.base_url, copied.address, PASSWORD) as client:
            cells = client.create_dataset("after")
            client.upload(cells, PICTURES[0])
            *_, ended = client.watch(client.run(cells, None))
            assert ended["status"] == "completed"
        log = event_log(settings)
        try:
            images = [log.decode(one) for one in log.read(0, manifest.position) if one.type == "ImageAccepted"]
            uploads = {one.stream: log.decode(one).sha256 for one in log.read(0, manifest.position) if one.type == "ImageUploaded"}
        finally:
            log.close()
        there = blobs(running_settings(settings))
        assert images
        assert all(there.get_derived(thumbnail_of(uploads[image.originator_id], image.reader)) for image in images)


def test_without_its_root_key_nothing_is_restored(copied, tmp_path):
    said = bioscope("restore", str(copied.place / "late"), "--data", str(tmp_path / "data"), good=False)
    assert "the root key of the backup is needed: name your copy with --root-key" in said
    assert not (tmp_path / "data").exists()
    other = tmp_path / "other.key"
    other.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    said = bioscope("restore", str(copied.place / "late"), "--data", str(tmp_path / "data"), "--root-key", str(other), good=False)
    assert "the root key is not that of this backup" in said
    assert not (tmp_path / "data").exists()


def test_a_system_that_holds_something_is_not_restored_into(copied):
    said = bioscope("restore", str(copied.place / "early"), "--data", str(copied.settings.data), good=False)
    assert " events: restore into a new data folder" in said
    with SupervisedStack(copied.settings, prepare=prepare) as settings, psycopg.connect(settings.postgres_owner_url) as connection:
        assert digests(connection) == copied.digests


def test_signed_heads_that_outlived_the_database_tell_what_is_lost(copied, tmp_path):
    """The blob store survived, the database did not: the newest backup is older than the newest head."""
    subprocess.run(["cp", "-r", str(copied.settings.data / "blobs"), str(tmp_path / "blobs")], check=True)
    arguments = ("--data", str(tmp_path / "data"), "--root-key", str(copied.settings.root_key_path))
    said = bioscope("restore", str(copied.place / "early"), *arguments, good=False, BIOSCOPE_BLOBS_URL=str(tmp_path / "blobs"))
    position = read_manifest(copied.place / "early").position
    assert f"restored up to position {position}, but signed heads in the blob store prove that there were later events" in said
    subprocess.run(["mv", str(tmp_path / "blobs" / "derived" / "heads"), str(tmp_path / "evidence")], check=True)
    with SupervisedStack(
        msgspec.structs.replace(stack_settings(tmp_path / "data"), blobs_url=str(tmp_path / "blobs")), prepare=prepare
    ) as settings:
        log = event_log(settings)
        try:
            assert verify_log(settings, log).problem is None
        finally:
            log.close()


def test_a_damaged_backup_is_refused_and_leaves_no_data_folder(copied, tmp_path):
    subprocess.run(["cp", "-r", str(copied.place / "late"), str(tmp_path / "backup")], check=True)
    blob = next(path for path in (tmp_path / "backup" / "blobs").rglob("*") if path.is_file())
    blob.write_bytes(blob.read_bytes()[:-1])
    arguments = ("--data", str(tmp_path / "data"), "--root-key", str(copied.settings.root_key_path))
    said = bioscope("restore", str(tmp_path / "backup"), *arguments, good=False)
    assert "the backup is not complete, so nothing was restored. Missing or damaged files: 1 of" in said
    assert f"{blob.name} is damaged" in said
    assert not (tmp_path / "data").exists()
