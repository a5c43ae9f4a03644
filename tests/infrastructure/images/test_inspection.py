"""Inspection: metadata, renditions and memory for every kind of image."""

import csv
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from domain.errors import DamagedImage, DomainError, ImageTooLarge, UnsupportedImage
from infrastructure.images.inspection import inspect
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.preprocessing import decoded
from tests.rigs.hostile_images import (
    ASCII,
    LAUGHS,
    bare_png,
    chunk,
    ends_early,
    hostile_files,
    jpeg,
    page,
    picture,
    png,
    tiff,
)

FORMATS = Path(__file__).parents[2] / "data" / "formats"
LIMITS = ImageLimits()
FACTS = {
    "real/ht29_dna_u8_packbits.tif": (512, 512, 1, "uint8", 1, "YX", None),
    "real/drosophila_gfp_rgb_bad_exif_ifd.tif": (542, 264, 3, "uint8", 1, "YXS", None),
    "real/cell_phase_gray.png": (550, 660, 1, "uint8", 1, "YX", None),
    "derived/histology_pyramid.ome.tif": (1536, 1536, 3, "uint8", 1, "YXS", 0.499),
    "derived/histology_pyramid_bigtiff.ome.tif": (1024, 1024, 3, "uint8", 1, "YXS", 0.499),
    "derived/worms_f32_lzw.tif": (256, 256, 1, "float32", 1, "YX", None),
    "derived/worms_u16.png": (256, 256, 1, "uint16", 1, "YX", None),
    "derived/cell_exif_rot6.jpg": (360, 363, 3, "uint8", 1, "YXS", None),
    "derived/cell_cmyk.jpg": (360, 363, 4, "uint8", 1, "YXS", None),
    "derived/cell_palette.png": (360, 363, 3, "uint8", 1, "YXS", None),
    "derived/cell_rgba.png": (360, 363, 4, "uint8", 1, "YXS", None),
    "derived/cell_progressive.jpg": (360, 363, 3, "uint8", 1, "YXS", None),
    "bad/jpeg_named.png": (360, 363, 3, "uint8", 1, "YXS", None),
}
SIZE = "PhysicalSizeX"
UNIT = "PhysicalSizeXUnit"


def samples(label):
    with (FORMATS / "manifest.csv").open() as manifest:
        return [row["file"] for row in csv.DictReader(manifest) if row["label"] == label]


def seen(data):
    return inspect(data, limits=LIMITS)


def refusal(data, limits=LIMITS):
    with pytest.raises(DomainError) as caught:
        inspect(data, limits=limits)
    return type(caught.value), caught.value.reason


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def stack(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def ramp(*shape, dtype=np.uint16, top=4000):
    """From dark (left) to bright (right), the same in each plane."""
    return np.broadcast_to(np.linspace(3, top, shape[-1]), shape).astype(dtype)


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded))).astype(int)


def rises(encoded):
    """Whether it is a gray picture of the whole range that gets brighter to the right."""
    middle = pixels(encoded)[pixels(encoded).shape[0] // 2]
    return middle.ndim == 1 and middle[0] < 12 and middle[-1] > 243 and (np.diff(middle) >= -3).all()


# ---- Real files


@pytest.mark.parametrize("name", samples("ok"))
def test_a_good_sample_is_accepted_with_its_facts(name):
    found = seen(FORMATS / name)
    assert (found.width, found.height, found.bands, found.dtype, found.pages, found.axes, found.pixel_size_um) == FACTS[name]


@pytest.mark.parametrize("name", samples("ok"))
def test_the_pictures_of_a_sample_show_what_it_shows(name):
    """Compared with the decoder that the networks see through, which is another one."""
    found = seen(FORMATS / name)
    wanted = decoded((FORMATS / name).read_bytes())
    assert found.thumbnail
    for encoded in filter(None, (found.thumbnail, found.preview)):
        made = Image.open(io.BytesIO(encoded)).convert("RGB")
        small = wanted.resize(made.size, Image.Resampling.BOX)
        assert abs(wanted.width / wanted.height - made.width / made.height) < 0.02
        assert np.abs(np.asarray(made).astype(int) - np.asarray(small)).mean() < 6


@pytest.mark.parametrize("name", samples("error"))
def test_a_bad_sample_is_refused(name):
    error, reason = refusal(FORMATS / name)
    assert error in {DamagedImage, UnsupportedImage, ImageTooLarge}
    assert reason


def test_every_sample_of_the_manifest_is_there_and_is_met():
    assert set(samples("ok")) == set(FACTS)
    listed = {FORMATS / name for name in samples("ok") + samples("error")}
    assert {path for path in FORMATS.rglob("*") if path.is_file() and path.parent != FORMATS} == listed


# ---- JPEG and PNG


@pytest.mark.parametrize(
    ("mode", "bands", "dtype"), [("L", 1, "uint8"), ("RGB", 3, "uint8"), ("P", 3, "uint8"), ("RGBA", 4, "uint8"), ("LA", 2, "uint8")]
)
def test_a_png_of_any_mode_needs_no_preview(mode, bands, dtype):
    found = seen(png(mode=mode))
    assert (found.width, found.height, found.bands, found.dtype) == (40, 30, bands, dtype)
    assert found.axes == ("YX" if bands == 1 else "YXS")
    assert found.preview is None


@pytest.mark.parametrize(("mode", "has_preview"), [("L", False), ("RGB", False), ("CMYK", True)])
def test_a_jpeg_needs_a_preview_only_for_its_inks(mode, has_preview):
    found = seen(jpeg(mode=mode))
    assert (found.bands, found.dtype) == (len(Image.new(mode, (1, 1)).getbands()), "uint8")
    assert (found.preview is not None) == has_preview


def test_a_16_bit_png_is_stretched_for_the_eye():
    found = seen(saved(Image.fromarray(ramp(60, 200)), "PNG"))
    assert found.dtype == "uint16"
    assert rises(found.thumbnail)
    assert rises(found.preview)


def deep_png(colour, bands):
    """16 bits a band, which Pillow cannot write: black, then bright."""
    opaque = b"\xff\xff" if colour in {4, 6} else b""
    values = bands - bool(opaque)
    row = b"\0" + (b"\x10\0" * values + opaque) * 20 + (b"\xf0\0" * values + opaque) * 20
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 16, colour, 0, 0, 0))
    return bare_png(head, chunk(b"IDAT", zlib.compress(row * 30)))


@pytest.mark.parametrize(("colour", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_deep_colour_in_a_png_is_reported_and_shown(colour, bands):
    found = seen(deep_png(colour, bands))
    assert (found.bands, found.dtype) == (bands, "uint16")
    shown = pixels(found.preview)
    assert shown[15, 5].max() + 100 < shown[15, 35].min()


def test_an_interlaced_png_is_decoded_whole():
    noise = np.random.default_rng(1).integers(0, 256, (21, 13), np.uint8)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(b"\0" + row.tobytes() for x, y, across, down in passes for row in noise[y::down, x::across])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 13, 21, 8, 0, 0, 0, 1))
    assert seen(bare_png(head, chunk(b"IDAT", zlib.compress(rows)))).width == 13
    assert refusal(bare_png(head, chunk(b"IDAT", zlib.compress(rows[:-1])))) == (DamagedImage, "incomplete")


@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_upright_and_sizes_are_those_of_the_file(turn):
    upright = Image.fromarray(ramp(100, 200, dtype=np.uint8, top=250))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if turn == 1 else upright.transpose(Image.Transpose(back[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    found = seen(saved(stored, "PNG", exif=exif))
    assert (found.width, found.height) == stored.size
    assert pixels(found.thumbnail).shape == (100, 200)
    assert rises(found.thumbnail)


def test_what_is_transparent_lies_on_white():
    for image in (Image.new("RGBA", (30, 30), (0, 0, 0, 0)), Image.new("LA", (30, 30), (0, 0))):
        assert pixels(seen(saved(image, "PNG")).thumbnail).min() == 255


def test_spoilt_exif_data_spoils_no_picture():
    spoilt = jpeg()[:2] + b"\xff\xe1\0\x10Exif\0\0rubbish!" + jpeg()[2:]
    assert seen(spoilt).acquired_with is None


def test_the_camera_is_reported():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Nikon\0", "DS-Fi3\n camera"
    assert seen(saved(picture(40, 30), "JPEG", exif=exif)).acquired_with == "Nikon DS-Fi3 camera"


# ---- Pictures that are made


@pytest.mark.parametrize(
    ("size", "thumbnail", "preview"),
    [((5000, 1000), (256, 51), (2048, 410)), ((300, 900), (85, 256), (300, 900)), ((50, 20), (50, 20), (50, 20)), ((1, 1), (1, 1), (1, 1))],
)
def test_pictures_keep_their_shape_and_are_never_enlarged(size, thumbnail, preview):
    found = seen(stack(ramp(size[1], size[0]), compression="zlib", rowsperstrip=100))
    for encoded, wanted in ((found.thumbnail, thumbnail), (found.preview, preview)):
        made = Image.open(io.BytesIO(encoded))
        assert made.format == "JPEG"
        assert np.abs(np.subtract(made.size, wanted)).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "L", "RGB", "P", "LA"])
def test_very_large_pictures_are_thinned_before_they_are_made_small(mode):
    image = Image.fromarray(ramp(40, 9000)) if mode == "I;16" else Image.fromarray(ramp(40, 9000, dtype=np.uint8, top=255)).convert(mode)
    row = pixels(seen(saved(image, "PNG")).thumbnail)[0]
    assert len(row) == 256
    assert (row[-1] > row[0] + 200).all()


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1)])
def test_a_line_of_pixels_is_a_picture_too(shape):
    for data in (stack(ramp(*shape, dtype=np.uint8, top=200)), saved(Image.fromarray(ramp(*shape, dtype=np.uint8, top=200)), "PNG")):
        found = seen(data)
        assert max(Image.open(io.BytesIO(found.thumbnail)).size) <= 256


# ---- TIFF: numbers, layouts, compressions


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_of_every_type_are_stretched_to_the_eye(dtype, order):
    top = 120 if dtype.endswith("8") else 4000
    found = seen(stack(ramp(60, 200, dtype=dtype, top=top), byteorder=order))
    assert found.dtype == dtype
    if dtype != "uint8":  # these are shown as they are
        assert rises(found.preview)


def test_pixels_that_are_no_number_are_black_and_spoil_nothing():
    values = ramp(60, 200, dtype=np.float32).copy()
    values[:5] = np.nan
    values[-5:] = np.inf
    found = seen(stack(values))
    assert rises(found.preview)
    assert refusal(stack(np.full((20, 20), np.nan, np.float32))) == (DamagedImage, "no_finite_values")


def test_where_white_is_zero_the_picture_is_turned_round():
    assert rises(seen(stack(4003 - ramp(60, 200), photometric="miniswhite")).preview)
    assert rises(seen(stack(255 - ramp(60, 200, dtype=np.uint8, top=255), photometric="miniswhite")).preview)


LAYOUTS = {
    "strips": {"rowsperstrip": 7},
    "one strip": {},
    "tiles": {"tile": (16, 32)},
    "BigTIFF": {"bigtiff": True},
    "separate bands": {"planarconfig": "separate"},
    "separate bands in tiles": {"planarconfig": "separate", "tile": (32, 16)},
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_colours_come_through_in_every_layout(options, compression, dtype):
    values = np.zeros((50, 70, 3), dtype)
    values[:, :35] = (200, 100, 0)
    planes = np.moveaxis(values, -1, 0) if "planarconfig" in options else values
    data = stack(planes, photometric="rgb", compression=compression, **options)
    found = seen(data)
    assert (found.width, found.height, found.bands, found.dtype) == (70, 50, 3, dtype)
    assert found.axes == ("SYX" if "planarconfig" in options else "YXS")
    shown = pixels(found.preview)
    red, green, blue = shown[25, 10]
    assert red > green + 60 > blue + 120
    assert shown[25, 60].max() < 12


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_compression_that_is_taken_is_decoded(compression, mode):
    image = Image.fromarray(ramp(60, 200, dtype=np.uint8, top=255)).convert(mode)
    shown = pixels(seen(saved(image, "TIFF", compression=compression)).preview)
    assert np.abs(shown - np.asarray(image.convert("L"))).mean() < 2


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("options", [*LAYOUTS.values(), {"compression": "zlib"}, {"compression": "zlib", "planarconfig": "separate"}])
def test_what_is_accepted_can_be_seen_by_a_network_too(dtype, bands, options):
    """So nobody is told "accepted" of an image, and then that it cannot be classified."""
    separate = "planarconfig" in options and bands > 1
    values = np.broadcast_to(ramp(40, 64, dtype=dtype, top=100)[:, :, None], (40, 64, bands))
    planes = np.moveaxis(values, -1, 0) if separate else values
    how = options if separate else {**options, "planarconfig": "contig"} if bands > 1 else {**options, "planarconfig": None}
    data = stack(planes if bands > 1 else values[:, :, 0], photometric="minisblack", **how)
    assert (seen(data).bands, seen(data).dtype) == (bands, dtype)
    row = np.asarray(decoded(data)).astype(int)[20]
    assert row.shape == (64, 3)
    assert (row[-1] - row[0] > 90).all()
    assert (np.diff(row, axis=0) >= 0).all()


@pytest.mark.parametrize("bands", [2, 4, 5, 32])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_of_many_bands_one_or_three_are_shown(bands, dtype):
    values = np.repeat(ramp(60, 200, dtype=dtype, top=250)[:, :, None], bands, axis=2)
    found = seen(stack(values, photometric="minisblack", planarconfig="contig", compression="zlib", extrasamples=[0] * (bands - 1)))
    assert (found.bands, found.axes) == (bands, "YXS")
    shown = pixels(found.preview)
    assert (shown[30, 190] > shown[30, 10] + 150).all()


# ---- TIFF: pages, axes, what is noted


def test_every_page_is_decoded():
    """The last one is broken, and nobody would ever look at it."""
    whole = bytearray(
        stack(np.random.default_rng(1).integers(0, 999, (9, 40, 50), np.uint16), compression="zlib", photometric="minisblack")
    )
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        offset = file.pages[8].dataoffsets[0]
    assert seen(bytes(whole)).pages == 9
    whole[offset : offset + 30] = bytes(30)
    assert refusal(bytes(whole)) == (DamagedImage, "decode_failed")


def test_the_first_page_is_shown():
    values = ramp(3, 60, 200).copy()
    values[1:] = values[1:, :, ::-1]
    assert rises(seen(stack(values, photometric="minisblack", compression="zlib")).preview)


def test_pages_that_are_alike_are_a_stack_and_others_are_not():
    pages = [Image.new("L", (40, 30)), Image.new("L", (40, 30)), Image.new("L", (20, 10))]
    alike = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:2])
    various = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert (seen(alike).pages, seen(alike).axes) == (2, "IYX")
    assert (seen(various).pages, seen(various).axes) == (3, "YX")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 3, 4, 20, 30), "TZCYX"), ((3, 2, 20, 30), "CZYX"), ((5, 20, 30), "TYX"), ((20, 30), "YX"), ((2, 20, 30, 3), "ZYXS")],
)
def test_the_axes_of_an_ome_tiff_are_reported(shape, axes):
    options = {"photometric": "rgb"} if axes.endswith("S") else {"photometric": "minisblack"}
    found = seen(stack(np.zeros(shape, np.uint8), ome=True, metadata={"axes": axes}, **options))
    planes = int(np.prod(shape)) // (20 * 30 * (3 if axes.endswith("S") else 1))
    assert (found.axes, found.pages) == (axes, planes)


@pytest.mark.parametrize(("noted", "axes"), [("ZYX", "ZYX"), ("\0YX", "IYX"), ("\u202eYX", "IYX"), ("\ud800YX", "IYX"), ("zYX", "IYX")])
def test_axes_are_taken_from_a_text_only_when_they_are_letters(noted, axes):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as written:
        for number in range(3):
            said = json.dumps({"shape": [3, 16, 16], "axes": noted}) if number == 0 else None
            written.write(np.full((16, 16), number, np.uint8), contiguous=False, description=said, metadata=None)
    assert seen(file.getvalue()).axes == axes


@pytest.mark.parametrize("axes", ["ZYX", "CYX", "TYX"])
def test_the_axes_of_an_imagej_stack_are_reported(axes):
    assert seen(stack(np.zeros((4, 20, 30), np.uint16), imagej=True, metadata={"axes": axes})).axes == axes


@pytest.mark.parametrize(
    ("size", "unit", "micrometres"),
    [(0.5, "µm", 0.5), (65, "nm", 0.065), (0.002, "mm", 2.0), (0.5, None, 0.5), (3, "pixel", None), (-1, "µm", None), ("NaN", "µm", None)],
)
def test_the_pixel_size_of_an_ome_tiff_is_reported_in_micrometres(size, unit, micrometres):
    noted = {"axes": "YX", SIZE: size} | ({UNIT: unit} if unit else {})
    found = seen(stack(np.zeros((20, 30), np.uint8), ome=True, metadata=noted)).pixel_size_um
    assert found == (None if micrometres is None else pytest.approx(micrometres))


def ome(inner, about="<Microscope Manufacturer='Zeiss' Model='Axio'/><Objective ID='o' NominalMagnification='40'/>"):
    sizes = "DimensionOrder='XYZCT' SizeX='8' SizeY='8' SizeZ='1' SizeC='1' SizeT='1'"
    text = f"<OME><Instrument>{about}</Instrument><Image><Pixels {sizes}>{inner}</Pixels></Image></OME>"
    return tiff(page(t270=(ASCII, text.encode() + b"\0")))


def test_the_microscope_and_its_objective_are_reported():
    found = seen(ome(""))
    assert (found.acquired_with, found.magnification) == ("Zeiss Axio", 40)


@pytest.mark.parametrize("text", ["<OME><Image>", "<", "<a/><b/>", "<OME><Image><Pixels SizeZ='many'/></Image></OME>", "\ufeff<OME/>"])
def test_metadata_that_are_no_ome_spoil_nothing(text):
    assert seen(tiff(page(t270=(ASCII, text.encode() + b"\0")))).axes == "YX"


def test_metadata_that_declare_entities_are_refused():
    assert refusal(tiff(page(t270=(ASCII, LAUGHS.encode() + b"\0")))) == (DamagedImage, "unsafe_metadata")


def test_a_slide_scanner_gives_pixel_size_and_magnification():
    text = b"Aperio Image Library v11.2.1\r\n46000x32914 -> 8x8|AppMag = 20|StripeWidth = 2040|MPP = 0.4990|Left = 25.6\0"
    found = seen(tiff(page(t270=(ASCII, text))))
    assert (found.pixel_size_um, found.magnification, found.acquired_with) == (0.499, 20, "Aperio")


def test_imagej_gives_its_pixel_size():
    data = stack(np.zeros((20, 30), np.uint16), imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    assert seen(data).pixel_size_um == pytest.approx(0.25)


def test_a_resolution_for_paper_is_no_pixel_size():
    assert seen(stack(np.zeros((20, 30), np.uint8), resolution=(72, 72), resolutionunit="INCH")).pixel_size_um is None
    assert seen(stack(np.zeros((20, 30), np.uint8), resolution=(28, 28), resolutionunit="CENTIMETER")).pixel_size_um is None
    fine = stack(np.zeros((20, 30), np.uint8), resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    assert seen(fine).pixel_size_um == pytest.approx(0.5)


# ---- What is refused, and what that needs


@pytest.mark.parametrize("part", [0.4, 0.6, 0.8, 0.97])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"subsampling": 0}])
@pytest.mark.parametrize("size", [(64, 48), (700, 500)])
def test_a_jpeg_whose_picture_ends_early_is_refused_however_whole_it_looks(options, part, size):
    assert refusal(ends_early(jpeg(*size, **options), part)) == (DamagedImage, "incomplete")


def test_what_is_refused_depends_on_the_limits():
    assert refusal(png(), ImageLimits(pixels=1199)) == (ImageTooLarge, "too_many_pixels")
    assert refusal(tiff(page(), page()), ImageLimits(pages=1)) == (ImageTooLarge, "too_many_pages")
    assert refusal(jpeg(progressive=True), ImageLimits(decoding_bytes=5000)) == (ImageTooLarge, "too_much_memory")
    assert seen(png()).pages == 1


def in_a_child(code, *arguments):
    start = (
        "import resource, sys; from pathlib import Path; from domain.errors import DomainError\n"
        "from infrastructure.images.inspection import inspect; from infrastructure.images.validation import ImageLimits\n"
    )
    told = subprocess.run([sys.executable, "-c", start + code, *map(str, arguments)], capture_output=True, check=True, text=True)
    return told.stdout.split()


def test_an_image_that_takes_more_memory_than_there_is_is_refused(tmp_path):
    (tmp_path / "large.tif").write_bytes(stack(np.zeros((8000, 10_000), np.uint8), compression="zlib", rowsperstrip=100))
    code = (
        "most = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (50 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "try: inspect(Path(sys.argv[1]), limits=ImageLimits())\n"
        "except DomainError as refused: print(refused.reason)"
    )
    assert in_a_child(code, tmp_path / "large.tif") == ["too_much_memory"]


def test_no_hostile_file_needs_more_than_a_little_memory(tmp_path):
    for number, hostile in enumerate(hostile_files()):
        (tmp_path / f"{number:03}").write_bytes(hostile.data)
    code = (
        "before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: inspect(path, limits=ImageLimits())\n"
        "    except DomainError: refused += 1\n"
        "print(refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)"
    )
    refused, mebibytes = map(int, in_a_child(code, tmp_path))
    assert refused == len(hostile_files())
    assert mebibytes < 256
