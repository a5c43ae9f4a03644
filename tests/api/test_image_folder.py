"""A folder of images: what is uploaded from it, under which names, and what is skipped."""

import os
import stat
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.client.image_folder import folder_name, image_file, scan, shown, skipped_files, upload_name
from domain.values import relative_path


def made(folder, *names):
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names_in(folder):
    return [image.name for image in scan(folder).images]


def test_images_are_named_by_their_paths_below_the_folder(tmp_path):
    made(tmp_path, "b.png", "A2/img.tif", "A1/img.tif", "A1/deep/er/x.JPEG")
    assert names_in(tmp_path) == ["A1/deep/er/x.JPEG", "A1/img.tif", "A2/img.tif", "b.png"]


HIDDEN = (
    ".hidden.tif",
    "._img.tif",
    ".git/img.png",
    "__MACOSX/A1/img.tif",
    "@eaDir/img.jpg/thumb.jpg",
    "Thumbs.db",
    ".DS_Store",
    "desktop.ini",
)


def test_hidden_files_and_those_of_operating_systems_are_ignored(tmp_path):
    found = scan(made(tmp_path, "img.tif", *HIDDEN, *(f"A1/{name}" for name in HIDDEN)))
    assert [image.name for image in found.images] == ["img.tif"]
    assert found.skipped == {}


def test_other_files_are_counted_by_type_but_for_the_manifest(tmp_path):
    found = scan(made(tmp_path, "manifest.csv", "A1/manifest.csv", "a.CSV", "b.txt", "README", "notes.of 3 May", "img.tif"))
    assert found.skipped == {".csv": 2, ".txt": 1, "without extension": 2}
    assert skipped_files(found.skipped) == "skipped 5 files: 2 .csv, 2 without extension, 1 .txt"


@pytest.mark.parametrize(
    ("skipped", "summary"),
    [
        ({}, ""),
        ({".csv": 1}, "skipped 1 file: 1 .csv"),
        ({".csv": 8, ".txt": 3, "without extension": 1}, "skipped 12 files: 8 .csv, 3 .txt, 1 without extension"),
        ({"broken link": 2, "linked folder": 1}, "skipped 3 files: 2 broken links, 1 linked folder"),
    ],
)
def test_skipped_files_are_reported_by_type(skipped, summary):
    assert skipped_files(skipped) == summary


@given(st.dictionaries(st.text("abcd", min_size=1, max_size=3).map(lambda name: f".{name}"), st.integers(1, 99), max_size=30))
def test_the_report_counts_every_skipped_file_once(skipped):
    body = skipped_files(Counter(skipped))
    numbers = [int(word) for word in body.replace(":", " ").split() if word.isdecimal()]
    assert sum(numbers[1:]) == sum(numbers[:1]) == sum(skipped.values())


def test_links_that_lead_back_or_nowhere_do_not_hang_the_walk(tmp_path):
    made(tmp_path, "A1/img.tif")
    (tmp_path / "A1" / "loop").symlink_to(tmp_path)
    (tmp_path / "itself.tif").symlink_to("itself.tif")
    (tmp_path / "gone.tif").symlink_to("nowhere.tif")
    (tmp_path / "linked.tif").symlink_to("A1/img.tif")
    found = scan(tmp_path)
    assert [image.name for image in found.images] == ["A1/img.tif", "linked.tif"]
    assert found.skipped == {"broken link": 2, "linked folder": 1}


def test_what_is_no_regular_file_is_skipped(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    assert stat.S_ISFIFO((tmp_path / "pipe.tif").stat().st_mode)
    assert scan(tmp_path).skipped == {"unreadable file": 1}


def test_a_folder_that_cannot_be_listed_is_counted(tmp_path):
    assert scan(tmp_path / "gone").skipped == {"unreadable folder": 1}


def test_a_name_that_is_not_utf8_is_uploaded_repaired_and_shown_with_a_replacement(tmp_path):
    (image,) = scan(made(tmp_path, b"A1/caf\xe9.jpg")).images
    assert (image.name, image.shown) == ("A1/café.jpg", "A1/caf\ufffd.jpg")
    assert image.path.is_file()


def test_control_characters_of_a_name_are_never_printed(tmp_path):
    (image,) = scan(made(tmp_path, b"a\x1b[31m\nb.jpg")).images
    assert (image.name, image.shown) == ("a[31mb.jpg", "a\ufffd[31m\ufffdb.jpg")


def test_a_folder_whose_name_is_not_utf8_names_its_dataset(tmp_path):
    made(tmp_path, b"caf\xe9/x.jpg")
    assert folder_name(next(tmp_path.iterdir())) == "café"
    assert folder_name(Path("/")) == "image"


FILE_NAMES = st.binary(min_size=1, max_size=60).filter(lambda raw: not {0, ord("/")} & set(raw) and raw not in {b".", b".."})


@given(st.lists(FILE_NAMES, min_size=1, max_size=12))
def test_every_path_of_a_disk_has_a_name_that_the_server_takes_and_one_that_can_be_printed(parts):
    image = image_file(Path("/data", os.fsdecode(b"/".join([*parts, b"x.tif"]))), Path("/data"))
    assert relative_path(image.name) == image.name
    assert upload_name(image.name) == image.name
    assert image.name.endswith("x.tif")
    assert image.shown.isprintable()
    assert image.shown.encode()


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=50))
def test_a_name_in_utf8_is_shown_as_it_is_but_for_what_cannot_be_printed(name):
    expected = [
        character if character.isprintable() else " " if unicodedata.category(character) == "Zs" else "\ufffd" for character in name
    ]
    assert shown(Path(name)) == ("".join(expected) if name != "." else ".")
