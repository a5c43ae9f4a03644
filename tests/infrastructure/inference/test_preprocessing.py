"""Preprocessing: from a file to the tensor that a network sees, and refusals of hostile files."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from domain.errors import DamagedImage, ImageTooLarge, UnsupportedImage
from infrastructure.inference.preprocessing import Preprocessing, colours, decoded, digest, normalised, prepare, resized
from tests.rigs.hostile_images import bare_png, chunk, ends_early, header, hostile_files, jpeg, rows

HERE = Path(__file__).parent
FILES = HERE.parents[1] / "data" / "images"
CELL = HERE.parents[2] / "examples" / "micrographs" / "basophil" / "BA_129641.jpg"
HOW = Preprocessing(size=80, centre_crop=5 / 6, mean=(0.87, 0.75, 0.72), std=(0.16, 0.18, 0.09))
PLAIN = Preprocessing(size=32)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def test_a_picture_becomes_a_channel_first_float_tensor():
    tensor = prepare(CELL.read_bytes(), HOW)
    assert tensor.shape == (3, 80, 80)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg", "quality": 100})],
)
def test_the_same_picture_gives_the_same_tensor_in_every_container(kind, options):
    picture = decoded(CELL.read_bytes())
    tensor = prepare(encoded(picture, kind, **options), HOW)
    allowed = 0.5 if options.get("compression") == "jpeg" else 0
    assert np.abs(tensor - prepare(CELL.read_bytes(), HOW)).max() <= allowed


def test_a_picture_stored_at_the_training_size_gives_nearly_the_native_tensor():
    native = decoded(CELL.read_bytes())
    small = native.resize((96, 96), Image.Resampling.BOX)
    difference = resized(native, HOW).astype(int) - resized(small, HOW)
    assert np.abs(difference).max() <= 1


def test_the_training_size_passes_untouched_through_the_centre_crop():
    pixels = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    assert (resized(Image.fromarray(pixels), HOW) == pixels[8:88, 8:88]).all()


@pytest.mark.parametrize(
    "name", ["cell_cmyk.jpg", "cell_exif_rot6.jpg", "cell_palette.png", "cell_progressive.jpg", "worms_u16.png", "cell_phase_gray.png"]
)
def test_real_files_of_many_kinds_decode(name):
    tensor = prepare((FILES / name).read_bytes(), HOW)
    assert np.isfinite(tensor).all()
    assert tensor.std() > 0.05


@pytest.mark.parametrize(
    ("name", "said"),
    [("truncated_half.jpg", "incomplete"), ("header_only.jpg", "incomplete"), ("corrupt_entropy.jpg", "ends before the end")],
)
def test_half_a_picture_is_refused(name, said):
    with pytest.raises(DamagedImage, match=said):
        prepare((FILES / name).read_bytes(), HOW)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_half_a_picture_is_refused_even_if_its_file_looks_whole(options, part):
    with pytest.raises(DamagedImage, match="missing"):
        prepare(ends_early(jpeg(200, 150, **options), part), PLAIN)


@pytest.mark.parametrize("height", [9, 50])
def test_a_picture_whose_last_rows_never_came_is_refused(height):
    with pytest.raises(DamagedImage, match="missing"):
        prepare(bare_png(header(8, height), chunk(b"IDAT", rows(8, 8))), PLAIN)


def test_a_picture_that_is_really_black_or_gray_is_taken():
    for shade in (0, 127, 128):
        for kind in ("PNG", "JPEG"):
            assert np.ptp(prepare(encoded(Image.new("RGB", (40, 40), (shade,) * 3), kind), PLAIN)) == 0


@pytest.mark.parametrize("hostile", [it for it in hostile_files() if len(it.data) < 20_000], ids=lambda it: it.name)
def test_a_hostile_file_ends_in_no_error_of_a_library(hostile):
    def outcome():
        try:
            return prepare(hostile.data, PLAIN).shape
        except (DamagedImage, UnsupportedImage, ImageTooLarge) as refused:
            return refused.detail

    assert outcome() == (3, 32, 32) or isinstance(outcome(), str)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_a_file_cut_anywhere_is_refused(kind):
    whole = encoded(decoded(CELL.read_bytes()), kind)
    for part in (0, 1, 3, 50, len(whole) // 4, len(whole) // 2, len(whole) * 9 // 10):
        with pytest.raises((DamagedImage, UnsupportedImage)):
            prepare(whole[:part], HOW)


def test_a_tiff_directory_that_points_past_the_end_is_refused():
    whole = bytearray(tiff(np.zeros((64, 64), np.uint8), description="blood film " * 20, byteorder="<"))
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        entry = file.pages[0].tags["ImageDescription"].offset
    assert prepare(bytes(whole), PLAIN).shape == (3, 32, 32)
    whole[entry + 8 : entry + 12] = (len(whole) + 100).to_bytes(4, "little")
    with pytest.raises(DamagedImage, match="incomplete"):
        prepare(bytes(whole), PLAIN)


def test_the_first_page_of_a_stack_counts():
    pages = [Image.fromarray(np.full((64, 64), shade, np.uint8)) for shade in (10, 20, 30)]
    stack = decoded(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert np.asarray(stack).max() == 10


def test_exif_orientation_is_honoured():
    picture = decoded(CELL.read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decoded(encoded(picture, "PNG", exif=exif))
    assert turned.size == (picture.height, picture.width)
    assert (np.asarray(turned) == np.asarray(picture.transpose(Image.Transpose.ROTATE_270))).all()


def test_gray_becomes_three_equal_channels():
    pixels = np.asarray(decoded((FILES / "cell_phase_gray.png").read_bytes()))
    assert (pixels[:, :, 0] == pixels[:, :, 1]).all()
    assert (pixels[:, :, 1] == pixels[:, :, 2]).all()


def test_transparent_pixels_lie_on_white():
    assert np.asarray(decoded(encoded(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG"))).min() == 255


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float16, np.float32, np.int8])
def test_deep_pixels_are_stretched_whatever_their_type(dtype):
    ramp = np.linspace(3, 120, 64 * 64).reshape(64, 64).astype(dtype)
    pixels = np.asarray(decoded(tiff(ramp)))
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert abs(int(pixels[32, 0, 0]) - 127) < 4


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float64])
def test_numbers_of_more_bits_than_the_reader_takes_are_refused(dtype):
    with pytest.raises(UnsupportedImage, match=r"not supported\. Save it as unsigned integers of 8 or 16 bits"):
        decoded(tiff(np.ones((8, 8), dtype)))


def test_deep_colour_keeps_its_balance():
    values = np.zeros((40, 40, 3), np.uint16)
    values[:20] = (4095, 2048, 1024)
    assert np.asarray(decoded(tiff(values, photometric="rgb")))[0, 0].tolist() == [255, 128, 64]


def test_no_finite_value_is_no_picture():
    with pytest.raises(DamagedImage, match="finite"):
        decoded(tiff(np.full((32, 32), np.nan, np.float32)))


def test_other_types_are_refused_by_their_bytes_not_their_name():
    for data in (b"<svg/>", encoded(Image.new("RGB", (8, 8)), "BMP"), encoded(Image.new("RGB", (8, 8)), "GIF")):
        with pytest.raises(UnsupportedImage, match="JPEG, PNG and TIFF"):
            prepare(data, HOW)


def test_a_huge_claim_is_refused_before_a_pixel_is_unpacked():
    header = encoded(Image.new("1", (20_000, 6_000)), "PNG")
    with pytest.raises(ImageTooLarge, match="20000 x 6000"):
        prepare(header, HOW)


def test_the_digest_changes_with_every_field():
    others = [
        Preprocessing(size=81),
        Preprocessing(size=80, filter="bilinear"),
        Preprocessing(size=80, centre_crop=0.5),
        Preprocessing(size=80, colour="bgr"),
        Preprocessing(size=80, mean=(0.1, 0, 0)),
        Preprocessing(size=80, std=(1, 1, 0.9)),
    ]
    assert len({digest(how) for how in [Preprocessing(size=80), *others]}) == 7
    assert digest(Preprocessing(size=80)) == digest(Preprocessing(size=80))


@given(arrays.arrays(np.uint8, (16, 16, 3)), st.sampled_from(["rgb", "bgr"]))
def test_the_colours_of_a_tensor_are_those_of_the_picture(pixels, colour):
    how = Preprocessing(size=16, colour=colour, mean=(0.87, 0.75, 0.72), std=(0.16, 0.18, 0.09))
    assert np.abs(colours(normalised(pixels, how), how) - pixels).max() < 1e-3


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0"]))
def test_no_bytes_whatever_end_in_an_error_of_a_library(data, start):
    with pytest.raises((DamagedImage, UnsupportedImage, ImageTooLarge)):
        prepare(start + data, PLAIN)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 60), st.integers(1, 60), st.just(3))), st.floats(0.2, 1.0))
def test_any_size_and_crop_fits_the_network(pixels, crop):
    how = Preprocessing(size=24, centre_crop=crop)
    assert prepare(encoded(Image.fromarray(pixels), "PNG"), how).shape == (3, 24, 24)
