"""`bioscope classify` on a realistic folder: equal names, old encodings, system files, a manifest from a spreadsheet."""

import csv
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from rich.console import Console

from api.cli.client import terminal
from api.cli.client.api_client import Client
from api.cli.client.image_folder import scan
from tests.archives import extract
from tests.chaos.workload import PICTURES
from tests.system.releases import until

CASES = Path(__file__).parents[1] / "data" / "cases"
SHOWN = ["=1+1.jpg", "A1/img.jpg", "A2/img.jpg", "A3/img.jpg", "b.jpg", "caf\ufffd.jpg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Größe")
    with zipfile.ZipFile(CASES / "folder_same_names_bom.zip") as same_names:
        same_names.extractall(folder)
    extract(CASES / "folder_name_not_utf8.tar", folder)
    (folder / "A3").mkdir()
    shutil.copy(folder / "A1" / "img.jpg", folder / "A3" / "img.jpg")
    shutil.copy(PICTURES[0], folder / "=1+1.jpg")
    for name in ("._b.jpg", ".DS_Store", "Thumbs.db", "A1/notes.txt", "A1/plate.csv", "A2/plate.csv", "README"):
        (folder / name).write_bytes(b"not an image")
    (folder / "A3" / "loop").symlink_to(folder)
    with (folder / "manifest.csv").open("a") as manifest:
        manifest.write("A9\\gone.jpg,monocyte\n")
    return folder


@pytest.fixture(scope="module")
def classified(researcher, stack, folder):
    """Run the command on the folder; it has to end well."""

    def classified(*options, **variables):
        given = {"BIOSCOPE_URL": stack.base_url, "BIOSCOPE_TOKEN": researcher.credentials.access_token, **variables}
        command = [Path(sys.executable).with_name("bioscope"), "classify", folder, *options]
        done = subprocess.run(command, env=os.environ | given, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done

    return classified


@pytest.fixture(scope="module")
def as_csv(classified):
    return classified("--csv", "--dataset", "as CSV")


def test_every_image_is_named_by_its_path_and_no_cell_is_a_formula(as_csv):
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout.decode(), newline="")))
    assert [row["file"] for row in rows] == ["'=1+1.jpg", *SHOWN[1:]]
    assert all(row["label"] and not row["error"] for row in rows)
    assert len({row["image_id"] for row in rows}) == len(rows)


def test_the_labels_of_a_manifest_with_a_byte_order_mark_are_filled_in(as_csv):
    rows = {row["file"]: row for row in csv.DictReader(io.StringIO(as_csv.stdout.decode(), newline=""))}
    assert (rows["A1/img.jpg"]["truth"], rows["A2/img.jpg"]["truth"], rows["A3/img.jpg"]["truth"]) == ("platelet", "monocyte", "")


def test_what_was_not_used_is_reported_apart_from_the_results(as_csv):
    said = as_csv.stderr.decode()
    assert "skipped 5 files: 2 .csv, 1 .txt, 1 linked folder, 1 without extension" in said
    assert "manifest.csv names a file that is not among the images: A9/gone.jpg" in said


def test_the_server_knows_the_paths_and_repaired_names(as_csv, researcher):
    (dataset,) = [one["id"] for one in researcher.get("/api/datasets/") if one["name"] == "as CSV"]
    images = researcher.get("/api/images/", dataset_id=dataset, page_size=200)
    assert sorted(image["path"] for image in images) == [*SHOWN[:5], "café.jpg"]
    assert all(image["filename"] == image["path"].rpartition("/")[2] for image in images)
    assert [image["path"] for image in researcher.get("/api/images/", dataset_id=dataset, q="a1/IMG")] == ["A1/img.jpg"]


def test_a_table_is_printed_where_the_terminal_lacks_a_character(classified, researcher, folder):
    shown = classified(PYTHONIOENCODING="latin-1", COLUMNS="200").stdout.decode("latin-1")
    assert all(name in shown for name in ["caf?.jpg", *SHOWN[:5]])
    assert folder.name in [dataset["name"] for dataset in researcher.get("/api/datasets/")]


def test_json_holds_what_the_table_holds(classified):
    report = json.loads(classified("--json").stdout)
    assert [line["file"] for line in report["lines"]] == SHOWN
    assert (report["model_name"], report["model_version"]) == ("pbc8", 1)


class InspectedClient(Client):
    """Starts the job after the inspection of all images has ended."""

    def run(self, dataset, model=None, **choices):
        until(lambda: all(image["status"] != "pending" for image in self.images(dataset)))
        return super().run(dataset, model, **choices)


def damaged_png(path):
    """A PNG whose structure is right and whose pixels cannot be decompressed."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0), b"IDAT" + b"no zlib stream" * 8, b"IEND")
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def test_an_image_rejected_before_the_job_is_planned_keeps_its_reason(researcher, tmp_path):
    damaged_png(tmp_path / "damaged.png")
    shutil.copy(PICTURES[0], tmp_path / "good.jpg")
    console = Console(file=io.StringIO())
    with InspectedClient(researcher.credentials) as client:
        report = terminal.classify(client, scan(tmp_path).images, dataset_name="damaged", truth={}, console=console)
        (rejected,) = [image for image in client.images(dataset_of(client, report)) if image["status"] == "rejected"]
    damaged, good = report.lines
    assert (damaged.image_id, damaged.error) == (rejected["id"], rejected["detail"])
    assert rejected["detail"]
    assert good.label
    assert not good.error


def dataset_of(client, report):
    return client.get(f"/api/classifications/{report.job_id}")["dataset_id"]
