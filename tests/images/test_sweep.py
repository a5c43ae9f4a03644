"""The sweep finds differences. It uses the decoders that are installed; tifffile and Pillow always are."""

import csv

import numpy as np
import pytest

from infrastructure.images.rendering import Colours, Plane
from tests.images.sweep.__main__ import main
from tests.images.sweep.comparison import compare
from tests.images.sweep.oracles import Picture
from tests.rigs.hostile_images import LONG, SHORT, jpeg, page, png, tiff

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)


def plane(pixels, alpha=None, bits=8):
    return Plane(pixels=pixels, colours=Colours.GREY, bits=bits, alpha=alpha)


def picture(pixels, full=255, alpha=None):
    return Picture(pixels=pixels, alpha=alpha, full=full)


def agrees(ours, theirs, *, lossy=False):
    return compare("another decoder", ours, theirs, lossy=lossy).agrees


def test_numbers_are_compared_in_parts_of_full_brightness():
    assert agrees(plane(RAMP), picture(RAMP.astype(np.uint16) * 257, full=65535))
    assert not agrees(plane(RAMP), picture(RAMP.astype(np.uint16), full=65535))


def test_an_exact_coding_may_differ_by_one_level_and_a_lossy_one_by_two_on_average():
    one_pixel = RAMP.copy()
    one_pixel[3, 3] += 10
    assert agrees(plane(RAMP), picture(RAMP + 1))
    assert not agrees(plane(RAMP), picture(RAMP + 2))
    assert not agrees(plane(RAMP), picture(one_pixel))
    assert agrees(plane(RAMP), picture(one_pixel), lossy=True)
    assert not agrees(plane(RAMP), picture(RAMP + 3), lossy=True)


def test_a_turned_an_inverted_and_a_transparent_picture_differ():
    wide = RAMP[:4]
    assert not agrees(plane(wide), picture(np.swapaxes(wide, 0, 1)))
    assert not agrees(plane(RAMP), picture(255 - RAMP))
    assert not agrees(plane(RAMP, alpha=np.zeros((8, 8), np.uint8)), picture(RAMP))


def test_floating_point_is_compared_as_it_is():
    floats = RAMP.astype(np.float32) * 1000
    floats[0, 0] = np.nan
    assert agrees(plane(floats), picture(floats, full=None))
    assert not agrees(plane(floats), picture(floats * 1.001, full=None))
    assert not agrees(plane(floats), picture(np.nan_to_num(floats), full=None))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "good.jpg").write_bytes(jpeg())
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "good.png").write_bytes(png())
    (tmp_path / "good.tif").write_bytes(tiff(page()))
    (tmp_path / "fax.tif").write_bytes(tiff(page(t258=(SHORT, [1]), t259=(SHORT, [4]), t279=(LONG, [8]))))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_sweep_leaves_nothing_in_the_temporary_folder(folder, monkeypatch, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    assert main([str(folder)]) == 0
    assert not list(temporary.glob("sweep-*"))


def test_a_sweep_compares_every_image_below_a_folder(folder, capsys):
    assert main([str(folder), "--csv", str(folder / "all.csv")]) == 0
    assert "4 files" in capsys.readouterr().out
    with (folder / "all.csv").open() as file:
        rows = {row["file"]: (row["outcome"], row["reason"], row["verdict"]) for row in csv.DictReader(file)}
    accepted = ("accepted", "", "same")
    refused = ("unsupported_image", "unsupported_compression", "")
    assert rows == {"good.jpg": accepted, "deeper/good.png": accepted, "good.tif": accepted, "fax.tif": refused}
