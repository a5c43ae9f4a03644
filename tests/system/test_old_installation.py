"""A data folder of release 9978d0f works under this release, and a recheck corrects what that release decoded wrongly."""

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import psycopg
import pytest
from PIL import Image

from api.cli.client.api_client import Client
from domain.image import NOT_READABLE
from infrastructure.embedded.supervisor import SupervisedStack
from infrastructure.inference.models.bundled import micrographs
from infrastructure.postgres.schema import migrations
from projections.rebuild.digests import digests
from tests.archives import extract
from tests.chaos.invariants import settle
from tests.system.conftest import PASSWORD, prepare, stack_settings

pytestmark = pytest.mark.long

ARCHIVE = Path(__file__).parents[1] / "data" / "installation-9978d0f.tar.xz"
ADMIN = "admin@example.org"
CELL = micrographs() / "neutrophil" / "SNE_209892.jpg"
WRONG = {"rgb16_12bit_lzw.tif", "minwhite16.tif"}
RIGHT = "cell.jpg"
REJECTED = "be_bigtiff_rgb8.tif"


def unpack(folder):
    """As it was made: closed to others, and the database owned by whoever runs it."""
    folder.mkdir(mode=0o700)
    extract(ARCHIVE, folder)
    folder.chmod(0o700)
    if os.geteuid() == 0:  # Postgres does not run as root
        for path in (folder / "postgres", *(folder / "postgres").rglob("*")):
            shutil.chown(path, "nobody")


def bioscope(data, *arguments):
    """Exit code, standard output, standard error."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("BIOSCOPE_")}
    command = [sys.executable, "-m", "api.cli", *arguments, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    return done.returncode, done.stdout, done.stderr


class Installation:
    """The old installation, started by this release; what it holds before and after a recheck."""

    def __init__(self, data, settings, client):
        self.data, self.settings, self.client = data, settings, client
        self.before, self.results_before = self.images(), self.results()
        self.planned = bioscope(data, "images", "recheck", "--dry-run", "--csv")
        self.images_after_dry_run = self.images()
        self.rechecked = bioscope(data, "images", "recheck", "--csv")
        assert settle(settings, within=30) is not None
        self.after, self.results_after = self.images(), self.results()

    def images(self):
        return {one["filename"]: one for one in self.client.get("/api/images/", page_size=100)}

    def results(self):
        """By file name."""
        names = {one["id"]: name for name, one in self.images().items()}
        return {names[one["image_id"]]: one for one in self.client.get("/api/classification-results/")}

    def picture(self, name, kind):
        address = self.client.get(f"/api/images/{self.after[name]['id']}/{kind}")
        answer = httpx.get(address["url"])
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), float)


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    data = tmp_path_factory.mktemp("old") / "data"
    unpack(data)
    with SupervisedStack(stack_settings(data), prepare=prepare) as settings, Client.sign_in(settings.base_url, ADMIN, PASSWORD) as client:
        yield Installation(data, settings, client)


def listed(output):
    return list(csv.DictReader(io.StringIO(output)))


def test_every_migration_is_applied_and_the_record_is_intact(installation):
    with psycopg.connect(installation.settings.postgres_owner_url) as connection:
        applied = {number for (number,) in connection.execute("select number from ops.migrations")}
    assert applied == set(migrations())
    code, output, _ = bioscope(installation.data, "audit", "verify")
    assert (code, output.split(":")[0]) == (0, "intact")


def test_what_was_stored_is_still_there(installation):
    assert {name: one["status"] for name, one in installation.before.items()} == {
        **dict.fromkeys({*WRONG, RIGHT}, "accepted"),
        REJECTED: "rejected",
    }
    assert {name: one["label"] for name, one in installation.results_before.items()} == {
        **dict.fromkeys(WRONG, "other"),
        RIGHT: "neutrophil",
    }
    assert all(one["warnings"] == [] for one in (*installation.before.values(), *installation.results_before.values()))


def test_a_dry_run_lists_the_same_and_changes_nothing(installation):
    assert sorted(map(str, listed(installation.planned[1]))) == sorted(map(str, listed(installation.rechecked[1])))
    assert installation.images_after_dry_run == installation.before
    assert "Nothing was written" in installation.planned[2]


def test_a_file_that_could_not_be_read_is_accepted(installation):
    assert installation.rechecked[0] == 0, installation.rechecked
    cell = installation.after[REJECTED]
    assert (cell["status"], cell["reason"], cell["detail"], cell["dtype"], cell["bands"]) == ("accepted", None, None, "uint8", 3)


@pytest.mark.parametrize("name", sorted(WRONG | {REJECTED}))
@pytest.mark.parametrize("kind", ["preview", "thumbnail"])
def test_pictures_show_the_cell(installation, name, kind):
    """Dark on bright: the middle is darker than the border, and the picture uses more than half of the range of grey values."""
    picture = installation.picture(name, kind)
    height, width = picture.shape[:2]
    middle = picture[height // 3 : -height // 3, width // 3 : -width // 3]
    border = np.concatenate([picture[:8].reshape(-1, 3), picture[-8:].reshape(-1, 3)])
    assert border.mean() - middle.mean() > 30
    assert np.ptp(picture) > 128


def test_the_results_of_wrong_pixels_are_listed_and_say_so_and_the_right_one_does_not(installation):
    other = [row for row in listed(installation.rechecked[1]) if row["kind"] == "other_pixels"]
    names = {one["id"]: name for name, one in installation.after.items()}
    assert {names[row["image_id"]] for row in other} == WRONG
    assert {(row["model"], row["label"], row["label_now"]) for row in other} == {("pbc8 version 1", "other", "neutrophil")}
    codes = {name: [warning["code"] for warning in one["warnings"]] for name, one in installation.results_after.items()}
    assert codes == {RIGHT: []} | {name: ["other_pixels"] for name in WRONG}
    shown = installation.client.get("/api/classification-results/today/statistics")["last_10_results"]
    assert all(one["warnings"] == installation.results_after[names[one["image_id"]]]["warnings"] for one in shown)


def test_no_image_became_unreadable(installation):
    assert not [one for one in installation.after.values() if NOT_READABLE in str(one["warnings"])]


def test_read_models_made_again_are_the_same(installation):
    code, output, problem = bioscope(installation.data, "rebuild", "--check")
    assert code == 0, output + problem


def test_a_second_recheck_changes_nothing(installation):
    with psycopg.connect(installation.settings.postgres_owner_url) as connection:
        before = digests(connection)
        code, output, summary = bioscope(installation.data, "images", "recheck", "--csv")
        assert digests(connection) == before
    assert code == 0
    assert {row["kind"] for row in listed(output)} == {"other_pixels"}
    assert "pictures of 0 made again, 0 corrected, 0 recorded; 2 results were computed from other pixels" in " ".join(summary.split())


def test_new_uploads_are_classified_and_so_are_the_images_that_were_corrected(installation):
    client = installation.client
    dataset = installation.after[RIGHT]["dataset_id"]
    assert not client.upload(dataset, CELL).refused
    *_, ended = client.watch(client.run(dataset, "pbc8"))
    assert (ended["status"], ended["succeeded"], ended["failed"]) == ("completed", 5, 0)
    found = client.results(ended["id"])
    assert {one["label"] for one in found} == {"neutrophil"}
    assert not [one for one in found if "other_pixels" in str(one["warnings"])]
