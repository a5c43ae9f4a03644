"""The encoder, checked with decoders that share no code with it."""

import io

import imagecodecs
import msgspec
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.images import Encoding, Written, cell, encoding_strategy, encodings, written
from tests.images.encodings import ImageJ, JpegEncoding, Ome, PngEncoding, TiffEncoding
from tests.images.orientations import stored, upright
from tests.images.samples import stored_samples
from tests.images.tiff_descriptions import planes

SEED, COUNT = 1, 200
ENCODINGS = encodings(SEED, COUNT)
TIFFS = [it for it in ENCODINGS if isinstance(it, TiffEncoding)]
PNGS = [it for it in ENCODINGS if isinstance(it, PngEncoding)]
JPEGS = [it for it in ENCODINGS if isinstance(it, JpegEncoding)]
SIZES = ((119, 120), (61, 47))


def held(encoding: Encoding) -> NDArray[np.uint8]:
    return np.ascontiguousarray(stored(cell(), encoding.orientation))


def difference(one: NDArray, other: NDArray) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean())


# ---- the list


def test_the_same_seed_gives_the_same_encodings_and_another_seed_gives_others():
    assert encodings(SEED, COUNT) == ENCODINGS
    assert encodings(SEED + 1, COUNT) != ENCODINGS


def test_a_longer_list_begins_with_the_shorter_one():
    assert encodings(SEED, 50) == ENCODINGS[:50]


def test_two_hundred_encodings_hold_every_value_of_every_field():
    few, many = ({value for it in encodings(SEED, count) for value in field_values(it)} for count in (COUNT, 1000))
    assert many - few == set()


def field_values(encoding: Encoding) -> set[tuple[str, str, object]]:
    """But for the metadata of TIFF, which has fields of its own."""
    container = type(encoding).__name__
    return {(container, name, getattr(encoding, name)) for name in encoding.__struct_fields__ if name != "metadata"}


def test_every_way_to_describe_a_stack_comes_up():
    described = {it.metadata for it in TIFFS}
    assert {ImageJ(), ImageJ(one_directory=True)} <= described
    assert {it.order for it in described if isinstance(it, Ome)} == {"XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"}


def test_an_encoding_is_named_by_what_is_special_in_it():
    assert str(TiffEncoding(photometric="white", dtype="int16", full=4095, compression="zstd")) == "tiff zstd full 4095 int16 white"
    assert len({str(it) for it in ENCODINGS}) == len(set(ENCODINGS))


@given(encoding=encoding_strategy())
@settings(max_examples=50)
def test_any_drawn_encoding_can_be_written(encoding):
    small = cell(31, 23)
    file = written(small, encoding)
    assert file.data
    assert file.expected.shape == small.shape


# ---- the files


def test_orientations_are_undone():
    for orientation in range(1, 9):
        assert np.array_equal(upright(stored(cell(), orientation), orientation), cell())


@pytest.mark.parametrize("encoding", JPEGS, ids=str)
def test_orientation_is_as_pillow_understands_it(encoding):
    plain = msgspec.structs.replace(encoding, colour="rgb", profile="none", subsampling=(1, 1))
    file = written(cell(), plain)
    with Image.open(io.BytesIO(file.data)) as picture:
        assert picture.size == (file.width, file.height)
        assert difference(np.asarray(ImageOps.exif_transpose(picture)), cell()) < 2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tifffile_reads_the_samples_that_were_written(size):
    compared = 0
    for encoding in TIFFS:
        if not read_by_tifffile(encoding):
            continue
        here = np.ascontiguousarray(stored(cell(*size), encoding.orientation))
        wanted = here if encoding.colour == "ycbcr" else stored_samples(here, encoding).samples
        found = first_plane(written(cell(*size), encoding), encoding)
        lossy = encoding.compression == "jpeg"
        assert found.shape == wanted.shape, encoding
        assert difference(found, wanted) < 6 if lossy else np.array_equal(found, wanted, equal_nan=wanted.dtype.kind == "f"), encoding
        compared += 1
    assert compared > 100


def read_by_tifffile(encoding: TiffEncoding) -> bool:
    """Not: missing byte counts, YCbCr without JPEG, and JPEG tables for separate planes."""
    return (
        encoding.byte_counts == "stated"
        and not (encoding.colour == "ycbcr" and encoding.compression != "jpeg")
        and not (encoding.tables and encoding.separate)
    )


def first_plane(file: Written, encoding: TiffEncoding) -> NDArray:
    """(height, width, bands)."""
    with tifffile.TiffFile(io.BytesIO(file.data)) as tiff:
        found = tiff.pages[first_page(encoding)].asarray()
    bands_last = np.moveaxis(found, 0, -1) if encoding.separate else found
    return np.atleast_3d(bands_last).astype(np.uint8 if encoding.bits < 8 else found.dtype)


def first_page(encoding: TiffEncoding) -> int:
    if encoding.pages == "stack" and isinstance(encoding.metadata, Ome):
        return [plane.is_first for plane in planes(encoding)].index(True)
    return int(encoding.pages == "thumbnail first")


@pytest.mark.parametrize("encoding", [it for it in TIFFS if it.pages == "stack"], ids=str)
def test_tifffile_counts_the_planes_of_a_stack(encoding):
    file = written(cell(), encoding)
    with tifffile.TiffFile(io.BytesIO(file.data)) as tiff:
        (series,) = tiff.series
    lengths = dict(zip(series.axes, series.shape, strict=True))
    assert {axis: lengths.get(axis, 1) for axis in "TZC"} == {
        "T": encoding.sizes.times,
        "Z": encoding.sizes.depths,
        "C": encoding.sizes.channels,
    }
    assert file.pages == encoding.sizes.planes


@pytest.mark.parametrize("encoding", [it for it in PNGS if it.colour != "palette" and not it.transparent], ids=str)
def test_libpng_reads_the_samples_of_a_png(encoding):
    levels, bands = 2**encoding.bits - 1, 3 if encoding.colour == "rgb" else 1
    plain = msgspec.structs.replace(encoding, profile="none", full=levels)
    found = np.atleast_3d(imagecodecs.png_decode(written(cell(), plain).data))[..., :bands]
    here = held(encoding) if bands == 3 else held(encoding) @ [[0.299], [0.587], [0.114]]
    full = 65535 if encoding.bits == 16 else 255
    assert np.abs(found - here / 255 * full).max() <= full / levels / 2 + 1e-6


@pytest.mark.parametrize("encoding", [it for it in PNGS if it.colour == "palette" or (it.colour == "rgb" and it.bits == 8)], ids=str)
def test_pillow_shows_a_png_on_white_as_expected(encoding):
    """It mistakes the transparent value of grey with 2 and 4 bits."""
    file = written(cell(), msgspec.structs.replace(encoding, profile="none"))
    with Image.open(io.BytesIO(file.data)) as picture:
        colours = picture.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        shown = Image.alpha_composite(white, colours).convert("RGB")
    assert difference(upright(np.asarray(shown), encoding.orientation), file.expected) <= file.tolerance


@pytest.mark.parametrize("encoding", [it for it in JPEGS if it.profile == "none"], ids=str)
def test_libjpeg_reads_a_jpeg_within_the_tolerance(encoding):
    file = written(cell(), encoding)
    with Image.open(io.BytesIO(file.data)) as picture:
        mode, found = picture.mode, np.asarray(ImageOps.exif_transpose(picture))
    if mode == "CMYK":
        inverted = 255 - found if encoding.colour == "cmyk" else found  # Pillow takes all of them for inverted
        found = np.rint((255 - inverted[..., :3].astype(float)) * (255 - inverted[..., 3:].astype(float)) / 255)
    assert difference(np.broadcast_to(np.atleast_3d(found), file.expected.shape), file.expected) <= file.tolerance
