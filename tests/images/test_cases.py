"""Files modelled on public bug reports: each is read as it should be."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from infrastructure.images.inspection import inspect
from infrastructure.images.reader import open_image
from infrastructure.images.rendering import render
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.models.bundled import models
from infrastructure.inference.models.manifest import load_manifest, manifest_as_json
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.preprocessing import prepare
from training.measure import interpret_picture

CASES = Path(__file__).parents[1] / "data" / "cases"
LIMITS = ImageLimits()
COLOUR = {
    "be_bigtiff_rgb8.tif": 0.5,
    "cmyk16.tif": 1,
    "icc_wide_gamut.jpg": 3,
    "icc_wide_gamut.tif": 1,
    "palette_8bit_map.tif": 2,
    "rgb16_12bit.png": 2,
    "rgb16_12bit_deflate.tif": 2,
    "rgb16_12bit_lzw.tif": 2,
    "rgb16_orient6.tif": 2,
    "samsung_trailer.jpg": 4,
}
"""The neutrophil in colour, and by how many of 255 levels it may differ on average."""
STRETCHED_GREY = ["be_f32_lzw.tif", "minwhite16.tif", "minwhite16_be.tif"]
GREY = ["bytecount_zero.tif", "no_photometric.tif", "ome_says_utf16.ome.tif", "res_inch.tif"]


def data(name):
    return (CASES / name).read_bytes()


def rendering(name):
    with open_image(data(name), limits=LIMITS) as image:
        return render(image.plane())


def pixels(name):
    return rendering(name).rgb.astype(int)


def warnings(name):
    return {warning.code for warning in rendering(name).warnings}


def preview(name):
    found = inspect(data(name), limits=LIMITS)
    return np.asarray(Image.open(io.BytesIO(found.preview or found.thumbnail)).convert("RGB")).astype(int)


@cache
def neutrophil():
    """The cell that all of these files hold, read by another decoder."""
    return tifffile.imread(CASES / "be_bigtiff_rgb8.tif").astype(int)


@cache
def network():
    import onnxruntime

    record = load_manifest(models() / "pbc8")
    return record, onnxruntime.InferenceSession(models() / "pbc8" / record.weights.file)


def judged(name):
    record, session = network()
    tensor = prepare(data(name), record.preprocessing)
    outputs = session.run(list(record.output_names), {record.input_name: tensor[None]})
    return interpret_picture(tensor, [output[0] for output in outputs], parse_record(manifest_as_json(models() / "pbc8")))


@pytest.mark.parametrize(("name", "tolerance"), COLOUR.items())
def test_the_cell_in_colour_is_upright_and_in_its_colours(name, tolerance):
    assert np.abs(pixels(name) - neutrophil()).mean() <= tolerance
    assert np.abs(preview(name) - neutrophil()).mean() <= tolerance + 2


@pytest.mark.parametrize("name", COLOUR)
def test_the_model_recognises_the_neutrophil_in_colour(name):
    found = judged(name)
    assert (found.label, found.status) == ("neutrophil", "accepted")
    assert found.confidence == pytest.approx(0.998, abs=0.003)


@pytest.mark.parametrize("name", STRETCHED_GREY)
def test_a_stretched_grey_cell_is_dark_on_bright_whatever_white_is_stored_as(name):
    assert np.abs(pixels(name) - pixels(STRETCHED_GREY[1])).mean() < 1
    assert np.corrcoef(pixels(name).mean(axis=2).ravel(), neutrophil().mean(axis=2).ravel())[0, 1] > 0.95
    assert judged(name).label == "neutrophil"


@pytest.mark.parametrize("name", GREY)
def test_a_grey_cell_of_8_bits_is_shown_as_stored(name):
    assert (pixels(name) == pixels("res_inch.tif")).all()
    assert np.abs(preview(name) - pixels("res_inch.tif")).mean() < 2


def test_what_the_file_leaves_out_is_stated():
    assert warnings("no_photometric.tif") == {"photometric_assumed"}
    assert warnings("bytecount_zero.tif") == {"byte_counts_assumed"}
    assert warnings("samsung_trailer.jpg") == {"trailing_data_ignored"}


@pytest.mark.parametrize("name", ["ome_says_utf16.ome.tif", "res_inch.tif"])
def test_the_pixel_size_is_read_whatever_the_unit_and_the_declared_encoding(name):
    assert inspect(data(name), limits=LIMITS).pixel_size_um == pytest.approx(0.325, rel=1e-4)


def test_an_imagej_stack_with_one_directory_has_all_its_planes():
    found = inspect(data("ij_one_ifd.tif"), limits=LIMITS)
    assert (found.pages, found.axes) == (10, "ZCYX")
    assert {"first_plane_only", "first_channel_only"} <= {warning.code for warning in found.warnings}
    with open_image(data("ij_one_ifd.tif"), limits=LIMITS) as image:
        planes = [image.plane(c=c, z=z).pixels for z in range(5) for c in range(2)]
    assert len({plane.tobytes() for plane in planes}) == 10


def test_the_stretch_sees_every_column():
    shown = preview("lines_each_4th_column.tif")
    assert shown.mean() > 40
    assert len(np.unique(shown)) > 2


def test_transparent_grey_lies_on_white_in_thumbnail_and_tensor_alike():
    assert (pixels("gray_trns.png") == 255).mean() > 0.3
    assert np.abs(preview("gray_trns.png") - pixels("gray_trns.png")).mean() < 3


def test_grey_of_4_bits_fills_the_range():
    assert set(np.unique(pixels("gray4.png"))) <= set(range(0, 256, 17))
