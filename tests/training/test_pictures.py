"""The training data folder: missing and changed files are named, and tuning data are not training data."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.bccd import Field, crop_around, empty_places, mirrored, overlaps, window_of
from training.pictures import DataFault, checked, data_folder, pbc8, read, split_of

DIGESTS = [hashlib.sha256(bytes([index // 256, index % 256])).hexdigest() for index in range(3000)]


def test_a_missing_file_is_named_with_the_digest_that_it_should_have(tmp_path):
    with pytest.raises(DataFault, match=r"bccd/manifest\.csv is missing: a file with sha256 [0-9a-f]{64} is expected"):
        read(tmp_path, "bccd/manifest.csv")
    with pytest.raises(DataFault, match=r"pbc8/train96\.zip is missing: a file with sha256 [0-9a-f]{64} is expected"):
        pbc8(tmp_path)


def test_a_changed_file_is_named_with_the_digest_that_it_should_have(tmp_path):
    (tmp_path / "pbc8").mkdir()
    with zipfile.ZipFile(tmp_path / "pbc8" / "train96.zip", "w") as archive:
        archive.writestr("basophil/BA_1.jpg", b"another picture")
    found = hashlib.sha256((tmp_path / "pbc8" / "train96.zip").read_bytes()).hexdigest()
    with pytest.raises(DataFault, match=rf"train96\.zip has changed: sha256 [0-9a-f]{{64}} expected, {found} found"):
        pbc8(tmp_path)


def test_an_unchanged_file_is_read(tmp_path):
    path = tmp_path / "one"
    path.write_bytes(b"as it was")
    assert checked(path, hashlib.sha256(b"as it was").hexdigest()) == b"as it was"


def test_no_data_folder_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("BIOSCOPE_TRAINING_DATA", raising=False)
    for given_folder in (None, tmp_path / "nowhere"):
        with pytest.raises(DataFault, match="name it with --data or BIOSCOPE_TRAINING_DATA"):
            data_folder(given_folder)
    monkeypatch.setenv("BIOSCOPE_TRAINING_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path


def test_a_tenth_of_the_training_pictures_is_kept_for_tuning():
    splits = [split_of("train", digest) for digest in DIGESTS]
    assert set(splits) == {"train", "tune"}
    assert 0.08 < splits.count("tune") / len(splits) < 0.12
    assert splits == [split_of("train", digest) for digest in DIGESTS]


@given(st.sampled_from(["val", "sample"]), st.sampled_from(DIGESTS))
def test_pictures_of_the_report_stay_in_the_report(split, digest):
    assert split_of(split, digest) == split


def smear(boxes):
    picture = io.BytesIO()
    Image.new("RGB", (640, 480), "pink").save(picture, "PNG")
    return Field("one.png", "train", picture.getvalue(), tuple(boxes))


def test_an_empty_place_holds_no_white_cell_and_no_platelet():
    chance = np.random.default_rng(1)
    field = smear([("WBC", (200, 150, 420, 360)), ("Platelets", (20, 20, 60, 60)), ("RBC", (500, 300, 600, 400))])
    windows = [window for _ in range(50) for window in empty_places(field, (640, 480), 5, chance)]
    assert windows
    for window in windows:
        assert not any(overlaps(box, window) for label, box in field.boxes if label != "RBC")


@given(st.integers(0, 600), st.integers(0, 440), st.integers(1, 300), st.integers(1, 300), st.floats(1, 4))
def test_a_crop_is_a_square_inside_the_picture(left, top, width, height, scale):
    picture = Image.new("RGB", (640, 480))
    window = crop_around(picture, (left, top, min(left + width, 640), min(top + height, 480)), scale)
    assert window[2] - window[0] == window[3] - window[1] > 0
    assert 0 <= window[0] < window[2] <= 640
    assert 0 <= window[1] < window[3] <= 480


@given(st.integers(0, 630), st.integers(0, 470))
def test_a_window_has_its_cell_in_the_middle_even_at_the_edge_of_the_field(left, top):
    picture = Image.new("RGB", (640, 480), "white")
    picture.paste("purple", (left, top, left + 10, top + 10))
    window = mirrored(picture, 100).crop(window_of((left, top, left + 10, top + 10), 200))
    assert window.size == (200, 200)
    assert window.getpixel((100, 100)) == (128, 0, 128)
    assert window.getpixel((96, 96)) == (128, 0, 128)
