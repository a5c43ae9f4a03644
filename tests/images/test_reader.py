"""Files that other programs write and our encoder does not: each is read as other decoders read it, or refused at upload."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest

from domain.errors import DamagedImage, ImageTooLarge, UnsupportedImage
from infrastructure.images.inspection import inspect
from infrastructure.images.reader import open_image
from infrastructure.images.tiff.ome import MAX_PLANES, OmeImage
from infrastructure.images.validation import ImageLimits, examine
from infrastructure.inference.preprocessing import rendered
from tests.images.profiles import icc
from tests.rigs.hostile_images import (
    ASCII,
    BYTE,
    DOUBLE,
    IFD,
    LONG,
    RATIONAL,
    SHORT,
    bare_png,
    chunk,
    ends_early,
    header,
    jpeg,
    page,
    segment,
    tiff,
)

LIMITS = ImageLimits()
NONE, LZW, DEFLATE, PACKBITS, ZSTANDARD = 1, 5, 8, 32773, 50000
PACK = {
    LZW: imagecodecs.lzw_encode,
    DEFLATE: zlib.compress,
    PACKBITS: imagecodecs.packbits_encode,
    ZSTANDARD: imagecodecs.zstd_encode,
}
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def pixels_of(data):
    """Of the first plane, after the whole file was decoded."""
    inspect(data, limits=LIMITS)
    with open_image(data, limits=LIMITS) as image:
        return image.plane().pixels


def refused(data, error):
    """What the validator says."""
    with pytest.raises(error) as raised:
        examine(io.BytesIO(data), limits=LIMITS)
    return raised.value.detail


def packed_page(packed, compression, **more):
    return tiff(page(t259=(SHORT, [compression]), t279=(LONG, [len(packed)]), **more), pixels=packed)


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("excess", [b"\0", b"a row that the image has no place for"])
def test_what_a_strip_holds_beyond_its_rows_is_left_out(compression, excess):
    packed = PACK[compression](RAMP.tobytes() + excess)
    np.testing.assert_array_equal(pixels_of(packed_page(packed, compression))[:, :, 0], RAMP)


def test_rubbish_behind_the_last_lzw_code_is_left_out():
    packed = PACK[LZW](RAMP.tobytes())[:-1] + bytes(range(200, 250))
    np.testing.assert_array_equal(pixels_of(packed_page(packed, LZW))[:, :, 0], RAMP)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></x:xmpmeta>'
UPSIDE_DOWN = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, 3, 0)


def png_of(*before, after=()):
    """The grey ramp, with other chunks before and after its pixels."""
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RAMP))
    return bare_png(header(8, 8), *before, chunk(b"IDAT", pixels), *after)


@pytest.mark.parametrize("name", [b"acTL", b"fcTL", b"fdAT", b"gAMA", b"sBIT", b"iCCP", b"eXIf", b"zTXt", b"pHYs"])
def test_a_broken_note_in_a_png_hides_no_pixel(name):
    broken = chunk(name, b"\xff" * 8)
    np.testing.assert_array_equal(pixels_of(png_of(broken, after=[broken]))[:, :, 0], RAMP)


def test_animation_chunks_out_of_order_hide_no_pixel():
    animated = png_of(chunk(b"acTL", b"\0" * 4 + b"\xff" * 4), after=[chunk(b"fcTL", bytes(26)), chunk(b"fdAT", bytes(30))])
    np.testing.assert_array_equal(pixels_of(animated)[:, :, 0], RAMP)


@pytest.mark.parametrize("turned", [png_of(chunk(b"eXIf", UPSIDE_DOWN)), png_of(after=[chunk(b"eXIf", UPSIDE_DOWN)])])
def test_exif_data_turn_a_png_wherever_they_stand(turned):
    np.testing.assert_array_equal(pixels_of(turned)[:, :, 0], RAMP[::-1, ::-1])


LONG_TEXT = chunk(b"zTXt", b"Description\0\0" + zlib.compress(bytes(2 << 20)))
WIDE_PROFILE = b"a name\0\0" + zlib.compress(icc("wide"))


@pytest.mark.parametrize(
    "note", [LONG_TEXT, *(chunk(name, b"\xff" * 3) for name in (b"acTL", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"zTXt"))]
)
def test_no_other_note_in_a_png_hides_its_orientation(note):
    np.testing.assert_array_equal(pixels_of(png_of(note, chunk(b"eXIf", UPSIDE_DOWN)))[:, :, 0], RAMP[::-1, ::-1])


def coloured_png(*notes):
    return bare_png(header(3, 1, 8, 2), *notes, chunk(b"IDAT", zlib.compress(b"\0" + bytes([200, 60, 30] * 3))))


def test_no_other_note_in_a_png_hides_its_profile():
    with_text, alone = (rendered(coloured_png(*notes, chunk(b"iCCP", WIDE_PROFILE)), use_profile=True) for notes in ([LONG_TEXT], []))
    np.testing.assert_array_equal(with_text.rgb, alone.rgb)
    assert [one.code for one in with_text.warnings] == ["colour_profile_converted"]


@pytest.mark.parametrize(
    "packed", [b"no profile", zlib.compress(icc("wide").replace(b"RGB ", b"\xffGB ", 1)), zlib.compress(icc("wide") + bytes(5 << 20))]
)
def test_a_profile_of_a_png_that_cannot_be_used_gives_a_warning(packed):
    found = rendered(coloured_png(chunk(b"iCCP", b"a name\0\0" + packed)), use_profile=True)
    assert [one.code for one in found.warnings] == ["colour_profile_ignored"]


def test_a_profile_of_a_tiff_that_is_too_long_gives_a_warning():
    tags = {"t258": (SHORT, [8] * 3), "t262": (SHORT, [2]), "t277": (SHORT, [3]), "t34675": (BYTE, bytes(5 << 20))}
    found = rendered(tiff(page(4, 4, **tags, t279=(LONG, [48]))), use_profile=True)
    assert [one.code for one in found.warnings] == ["colour_profile_ignored"]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("note", [segment(0xE2, b"ICC_PROFILE\0"), segment(0xED, b"Photoshop 3.0\x008BIM\0\1")])
def test_no_broken_note_in_a_jpeg_hides_what_the_others_say(progressive, note):
    """Adobe's marker says that the inks are inverted, and EXIF data that the picture is upside down."""
    plain = jpeg(40, 20, mode="CMYK", progressive=progressive)
    noted = plain[:2] + note + segment(0xE1, b"Exif\0\0" + UPSIDE_DOWN) + plain[2:]
    np.testing.assert_array_equal(pixels_of(noted), pixels_of(plain)[::-1, ::-1])


def test_xmp_turns_no_picture_as_browsers_show_it():
    png = png_of(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))
    np.testing.assert_array_equal(pixels_of(png)[:, :, 0], RAMP)
    plain = jpeg(40, 20)
    xmp = plain[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) + plain[2:]
    assert pixels_of(xmp).shape == pixels_of(plain).shape == (20, 40, 3)


def test_a_tag_that_is_repeated_with_the_same_value_does_no_harm():
    data = bytearray(tiff(page(), pixels=RAMP.tobytes()))
    directory = 16 + RAMP.size
    orientation = struct.pack("<HHIHH", 274, 3, 1, 1, 0)
    data[directory : directory + 2] = struct.pack("<H", 11)
    data[directory + 2 + 9 * 12 : directory + 2 + 9 * 12] = orientation * 2
    np.testing.assert_array_equal(pixels_of(bytes(data))[:, :, 0], RAMP)


def test_strips_beyond_the_last_row_are_left_out():
    more = tiff(page(t278=(LONG, [4]), t273=(LONG, [16, 48, 16]), t279=(LONG, [32, 32, 32])), pixels=RAMP.tobytes())
    np.testing.assert_array_equal(pixels_of(more)[:, :, 0], RAMP)


@pytest.mark.parametrize("compression", [NONE, LZW])
def test_a_sparse_file_is_refused_and_not_filled_with_other_bytes(compression):
    sparse = page(t278=(LONG, [4]), t259=(SHORT, [compression]), t273=(LONG, [16, 0]), t279=(LONG, [32, 0]))
    assert "Save it with all pixels" in refused(tiff(sparse), UnsupportedImage)


def test_an_empty_strip_is_found_at_upload():
    packed = PACK[LZW](RAMP[:4].tobytes())
    strips = {"t278": (LONG, [4]), "t273": (LONG, [16, 16]), "t279": (LONG, [len(packed), 0])}
    assert "empty" in refused(tiff(page(t259=(SHORT, [LZW]), **strips), pixels=packed), DamagedImage)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_horizontal_differences_of_floating_point_are_those_of_their_bits(dtype, order):
    numbers = (RAMP / 7 - 10).astype(dtype)
    bits = numbers.view(f"uint{8 * numbers.itemsize}")
    differences = np.diff(bits, axis=1, prepend=bits.dtype.type(0)).astype(bits.dtype)
    packed = zlib.compress(differences.astype(bits.dtype.newbyteorder(order)).tobytes())
    tags = {"t258": (SHORT, [8 * numbers.itemsize]), "t317": (SHORT, [2]), "t339": (SHORT, [3])}
    file = tiff(page(t259=(SHORT, [DEFLATE]), t279=(LONG, [len(packed)]), **tags), pixels=packed, order=order)
    np.testing.assert_array_equal(pixels_of(file)[:, :, 0], numbers)


@pytest.mark.parametrize("tag", ["t32997", "t32998"])
def test_a_volume_in_one_page_is_refused(tag):
    assert "Save each of its planes as a page" in refused(tiff(page(**{tag: (LONG, [4])})), UnsupportedImage)


def test_notes_below_a_page_are_no_picture():
    """Cameras keep a JPEG thumbnail in a directory without a size."""
    pixels = RAMP.tobytes()
    notes = struct.pack("<H", 1) + struct.pack("<HHII", 513, 4, 1, 16) + bytes(4)
    file = tiff(page(t330=(IFD, [16 + len(pixels)])), pixels=pixels + notes)
    np.testing.assert_array_equal(pixels_of(file)[:, :, 0], RAMP)


@pytest.mark.parametrize("broken", [segment(0xE0, b"JFIF\0"), segment(0xEE, b"Adobe"), segment(0xE0, b"JFIF"), segment(0xEE, b"Adobe\0d")])
def test_a_marker_that_is_too_short_is_passed_over(broken):
    plain = jpeg(40, 20)
    np.testing.assert_array_equal(pixels_of(plain[:2] + broken + plain[2:]), pixels_of(plain))


def test_components_may_share_a_name_where_one_scan_holds_them_all():
    """An encoder of CMYK names them 1, 2, 3, 1."""
    plain = jpeg(40, 20, mode="CMYK")
    frame = plain.index(b"\xff\xc0")
    scan = plain.index(b"\xff\xda")
    renamed = bytearray(plain)
    renamed[frame + 10 + 9] = plain[frame + 10]
    renamed[scan + 5 + 6] = plain[scan + 5]
    np.testing.assert_array_equal(pixels_of(bytes(renamed)), pixels_of(plain))


def sampled(*factors):
    """A JPEG whose header claims these sampling factors for its three components."""
    data = bytearray(jpeg(40, 20))
    for place, factor in enumerate(factors):
        data[data.index(b"\xff\xc0") + 11 + 3 * place] = factor
    return bytes(data)


def test_sampling_that_no_decoder_knows_is_refused_at_upload():
    assert "Save it as an ordinary" in refused(sampled(0x31, 0x21, 0x11), UnsupportedImage)
    assert "broken" in refused(sampled(0x44, 0x11, 0x11), DamagedImage)


@pytest.mark.parametrize("progressive", [False, True])
def test_fill_bytes_before_the_end_marker_are_passed_over(progressive):
    plain = jpeg(40, 20, progressive=progressive)
    np.testing.assert_array_equal(pixels_of(plain[:-2] + b"\xff\xff" + plain[-2:]), pixels_of(plain))


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"t258": (SHORT, [12])}, "grey pixels as unsigned integers of 12 bits"),
        ({"t258": (SHORT, [64]), "t339": (SHORT, [3])}, "grey pixels as floating-point numbers of 64 bits"),
        (
            {"t258": (SHORT, [8] * 4), "t277": (SHORT, [4]), "t262": (SHORT, [5]), "t339": (SHORT, [2])},
            "CMYK pixels as signed integers of 8",
        ),
        ({"t339": (SHORT, [6])}, "other numbers of 8 bits"),
    ],
)
def test_a_refusal_names_the_numbers_that_are_not_supported(tags, named):
    detail = refused(tiff(page(**tags)), UnsupportedImage)
    assert named in detail
    assert "Save it as unsigned integers of 8 or 16 bits" in detail


@pytest.mark.parametrize("part", [0.4, 0.8])
def test_a_jpeg_tile_whose_data_end_early_is_refused_and_not_shown_grey(part):
    tile = ends_early(jpeg(64, 48, mode="L"), part)
    with pytest.raises(DamagedImage) as refused:
        inspect(tiff_of_jpeg(tile), limits=ImageLimits())
    assert refused.value.reason == "incomplete"
    assert inspect(tiff_of_jpeg(jpeg(64, 48, mode="L")), limits=ImageLimits()).width == 64


def tiff_of_jpeg(data):
    """One page, one strip of 64 x 48 grey pixels."""
    return tiff(page(64, 48, t259=(SHORT, [7]), t262=(SHORT, [1]), t279=(LONG, [len(data)])), pixels=data)


def palette_png(*before):
    return bare_png(header(8, 8, colour=3), *before, chunk(b"IDAT", zlib.compress(bytes(72))))


def test_a_second_palette_is_found_at_upload():
    palette = chunk(b"PLTE", bytes(768))
    assert pixels_of(palette_png(palette)).shape == (8, 8, 3)
    assert "palette" in refused(palette_png(palette, palette), DamagedImage)


def test_a_palette_is_not_forgotten_over_many_notes():
    notes = [chunk(b"no" + bytes([65 + place]) + b"e", b"") for place in range(20)]
    assert pixels_of(palette_png(chunk(b"PLTE", bytes(768)), *notes)).shape == (8, 8, 3)


COLOURS = np.array(
    [[[0, 0, 0], [255, 255, 255], [200, 30, 60], [20, 140, 90]], [[90, 90, 90], [10, 20, 250], [240, 230, 20], [128, 0, 128]]]
)


def ycbcr_page(luma, reference):
    """COLOURS, as TIFF 6.0 mixes them for these parts of red, green and blue, and these codes of black and white."""
    (red, _, blue), (black, white, no_blue, full_blue, no_red, full_red) = luma, reference
    y = COLOURS @ luma
    chroma_blue = (COLOURS[:, :, 2] - y) / (2 - 2 * blue) * (full_blue - no_blue) / 127 + no_blue
    chroma_red = (COLOURS[:, :, 0] - y) / (2 - 2 * red) * (full_red - no_red) / 127 + no_red
    stored = np.rint(np.stack([y * (white - black) / 255 + black, chroma_blue, chroma_red], axis=2)).astype(np.uint8)
    ratios = {"t529": (RATIONAL, ratios_of(luma)), "t532": (RATIONAL, ratios_of(reference))}
    tags = {"t258": (SHORT, [8] * 3), "t262": (SHORT, [6]), "t277": (SHORT, [3]), "t279": (LONG, [24]), "t530": (SHORT, [1, 1])}
    return tiff(page(4, 2, **tags, **ratios), pixels=stored.tobytes())


@pytest.mark.parametrize(
    "note",
    [
        {"t296": (ASCII, b"2\0")},
        {"t296": (DOUBLE, [2])},
        {"t305": (ASCII, b"a program with very much to say " * 200_000 + b"\0")},
        {"t270": (ASCII, b'{"shape": [1e999, 8, 8], "axes": "ZYX"}\0')},
        {"t270": (ASCII, b'{"shape": [-1, -1, 8, 8], "axes": "TZYX"}\0')},
    ],
)
def test_a_note_of_a_tiff_that_makes_no_sense_hides_no_pixel(note):
    resolution = {282: (LONG, [1])}
    np.testing.assert_array_equal(pixels_of(tiff({**page(**note), **resolution}, pixels=RAMP.tobytes()))[:, :, 0], RAMP)


def test_a_description_that_is_too_long_is_refused_at_upload_whatever_the_number_of_pages():
    described = page(t270=(ASCII, b"x" * (5 << 20)))
    assert all("description" in refused(tiff(described, *others), DamagedImage) for others in ([], [page()]))


def test_a_tag_without_values_counts_as_missing():
    with open_image(tiff(page(t262=(SHORT, [])), pixels=RAMP.tobytes()), limits=LIMITS) as image:
        plane = image.plane()
    np.testing.assert_array_equal(plane.pixels[:, :, 0], RAMP)
    assert [one.code for one in plane.warnings] == ["photometric_assumed"]


@pytest.mark.parametrize("marker", [0x42, 0xC8, 0xDE, 0xF7])
def test_a_jpeg_segment_that_no_decoder_passes_over_is_refused_at_upload(marker):
    plain = jpeg(40, 20)
    assert "uses a rare coding" in refused(plain[:2] + segment(marker, b"some words") + plain[2:], UnsupportedImage)


ALPHA = {"t258": (SHORT, [32] * 4), "t262": (SHORT, [2]), "t277": (SHORT, [4]), "t338": (SHORT, [2]), "t339": (SHORT, [3] * 4)}


@pytest.mark.parametrize(("opacity", "shown"), [(1.0, 102), (255.0, 102), (np.nan, 102), (0.5, 178), (0.0, 255), (-1.0, 255)])
def test_an_opacity_in_floating_point_is_kept_between_none_and_full(opacity, shown):
    pixels = np.array([[[1.0, 1.0, 1.0, 0.0], [0.4, 0.4, 0.4, opacity]]], np.float32).tobytes()
    np.testing.assert_array_equal(rendered(tiff(page(2, 1, **ALPHA, t279=(LONG, [32])), pixels=pixels)).rgb[0, 1], [shown] * 3)


def test_a_transparent_colour_counts_for_the_memory_that_a_png_takes():
    limits = ImageLimits(decoding_bytes=1000 * 13)
    notes = [[], [chunk(b"tRNS", bytes(6))]]
    plain, transparent = (bare_png(header(100, 10, 16, 2), *note, chunk(b"IDAT", bytes(9))) for note in notes)
    assert examine(io.BytesIO(plain), limits=limits)[0].bits == 16
    with pytest.raises(ImageTooLarge, match="Decoding this image needs"):
        examine(io.BytesIO(transparent), limits=limits)


def test_the_places_that_an_ome_text_names_are_bounded():
    entries = '<TiffData IFD="0" PlaneCount="256"/>' * 1000
    image = OmeImage(f'<OME><Image><Pixels DimensionOrder="XYZCT" SizeZ="256">{entries}</Pixels></Image></OME>')
    assert len(list(image.placed({"Z": 256, "C": 1, "T": 1}))) == MAX_PLANES


def ratios_of(numbers):
    """Each as one number, whose lower half is divided by its upper half."""
    return [round(number * 10_000) + (10_000 << 32) for number in numbers]


@pytest.mark.parametrize("luma", [(0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722)])
@pytest.mark.parametrize("reference", [(0, 255, 128, 255, 128, 255), (16, 235, 128, 240, 128, 240)])
def test_ycbcr_is_mixed_as_the_page_says(luma, reference):
    assert np.abs(pixels_of(ycbcr_page(luma, reference)).astype(int) - COLOURS).max() <= 2


@pytest.mark.parametrize("luma", [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0.5, 0.5)])
def test_colours_that_are_mixed_without_sense_are_refused(luma):
    assert "Save it as RGB" in refused(ycbcr_page(luma, (0, 255, 128, 255, 128, 255)), UnsupportedImage)


def test_a_division_by_zero_is_refused_too():
    data = ycbcr_page((0.299, 0.587, 0.114), (0, 255, 128, 255, 128, 255))
    assert "Save it as RGB" in refused(data.replace(struct.pack("<I", 10_000), bytes(4)), UnsupportedImage)


def test_black_and_white_of_one_code_are_refused():
    assert "Save it as RGB" in refused(ycbcr_page((0.299, 0.587, 0.114), (16, 16, 128, 240, 128, 240)), UnsupportedImage)
