"""Upload validation: refusals and their texts, the same result for any division of the bytes, and its cost."""

import csv
import io
import re
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from functools import cache
from itertools import cycle
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import DamagedImage, DomainError, ImageTooLarge, UnsupportedImage
from infrastructure.images.inspection import inspect
from infrastructure.images.validation import ImageHeader, ImageLimits, ImageUploadValidator, examine
from tests.rigs.hostile_images import (
    LONG,
    SHORT,
    bare_jpeg,
    bare_png,
    chunk,
    cuts,
    frame,
    header,
    hostile_files,
    jpeg,
    page,
    picture,
    png,
    rows,
    scan,
    segment,
    tiff,
)

FORMATS = Path(__file__).parents[2] / "data" / "formats"
LIMITS = ImageLimits()
ADVICE = re.compile(r"\b(Send|Save|Export|Choose|Crop|Split|Scale|Write)\b|\bare (taken|given|accepted)\b")
FOREIGN = re.compile(r"Error|Exception|None|0x|tifffile|PIL|numpy|libtiff|IFD|\bbuffer\b")
PARTS = st.lists(st.integers(1, 97), min_size=1, max_size=40)


def samples(label):
    with (FORMATS / "manifest.csv").open() as manifest:
        return [row["file"] for row in csv.DictReader(manifest) if row["label"] == label]


def saved(kind, *, mode="RGB", **options):
    file = io.BytesIO()
    picture(40, 30, mode).save(file, kind, **options)
    return file.getvalue()


def stack(dtype=np.uint16, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, np.arange(3 * 20 * 30).reshape(3, 20, 30).astype(dtype), photometric="minisblack", **options)
    return file.getvalue()


@cache
def good_files():
    """Small ones, of every kind of structure."""
    return {
        "JPEG": jpeg(),
        "gray JPEG": jpeg(mode="L"),
        "progressive JPEG": jpeg(progressive=True),
        "JPEG with restarts": jpeg(restart_marker_blocks=3),
        "gray JPEG with restarts": jpeg(mode="L", restart_marker_blocks=3),
        "two pictures in a JPEG": jpeg()[:2] + segment(0xE2, b"MPF\0") + jpeg()[2:] + jpeg(),
        "PNG": png(),
        "palette PNG": png(mode="P"),
        "PNG of many chunks": bare_png(header(), *[chunk(b"tEXt", b"a\0b")] * 20, *pixels_in_pieces()),
        "TIFF": saved("TIFF"),
        "LZW TIFF": saved("TIFF", compression="tiff_lzw"),
        "Deflate TIFF": saved("TIFF", compression="tiff_adobe_deflate"),
        "JPEG TIFF": saved("TIFF", compression="jpeg"),
        "stack": stack(),
        "OME-TIFF": stack(ome=True, metadata={"axes": "ZYX"}),
        "BigTIFF": stack(bigtiff=True),
        "big-endian TIFF": stack(byteorder=">"),
    }


def pixels_in_pieces():
    packed = rows()
    return [chunk(b"IDAT", packed[at : at + 3]) for at in range(0, len(packed), 3)]


def named(files):
    return pytest.mark.parametrize("data", files.values(), ids=files.keys())


def pieces(data, sizes):
    at = 0
    for size in cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def answer(data, sizes=(1 << 16,)):
    """What the validator says, in a form that can be compared."""
    validator = ImageUploadValidator(limits=LIMITS)
    try:
        for part in pieces(data, sizes):
            validator.feed(part)
        return validator.finish(io.BytesIO(data))
    except DomainError as refused:
        return type(refused), refused.reason, refused.detail


def refused_by(call):
    with pytest.raises(DomainError) as caught:
        call()
    return caught.value


# ---- What is refused, and how that is said


@pytest.mark.parametrize("hostile", hostile_files(), ids=lambda it: it.name)
def test_a_hostile_file_is_refused_with_a_reason_and_advice(hostile):
    if hostile.late:
        assert isinstance(answer(hostile.data), ImageHeader)
        refused = refused_by(lambda: inspect(hostile.data, limits=LIMITS))
    else:
        refused = refused_by(lambda: examine(io.BytesIO(hostile.data), limits=LIMITS))
    assert type(refused) is hostile.error
    assert re.fullmatch(r"[a-z_]+", refused.reason)
    assert ADVICE.search(refused.detail), refused.detail
    assert not FOREIGN.search(refused.detail), refused.detail


@pytest.mark.parametrize("name", samples("error"))
def test_a_bad_sample_is_refused_by_the_gate_alone(name):
    assert issubclass(answer((FORMATS / name).read_bytes())[0], DamagedImage | UnsupportedImage | ImageTooLarge)


def test_there_are_many_hostile_files_and_each_has_a_name_of_its_own():
    names = [hostile.name for hostile in hostile_files()]
    assert len(set(names)) == len(names) > 180


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"GIF89a" + bytes(20), "a GIF image"), (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"), (b"%PDF-1.7\nmore", "a PDF document")],
)
def test_a_refusal_names_what_the_file_is(data, found):
    assert found in answer(data)[2]


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        (png(), None),
        (bare_png(header(30_000, 30_000)), 33),
        (bare_jpeg(frame(60_000, 60_000), scan(1)), 2 + 4 + 9),
        (b"\x7fELF\2\1\1" + bytes(100), 12),
    ],
    ids=["a good one", "a PNG too large", "a JPEG too large", "a program"],
)
def test_a_file_is_refused_as_soon_as_it_can_be_known(data, needed):
    validator = ImageUploadValidator(limits=LIMITS)
    for at in range(len(data)):
        try:
            validator.feed(data[at : at + 1])
        except DomainError:
            assert at + 1 == needed
            return
    assert needed is None


# ---- What passes


@pytest.mark.parametrize("name", samples("ok"))
def test_a_good_sample_passes(name):
    sniffed = answer((FORMATS / name).read_bytes())
    kinds = {".tif": "image/tiff", ".png": "image/png", ".jpg": "image/jpeg"}
    wanted = "image/jpeg" if name.endswith("jpeg_named.png") else kinds[Path(name).suffix]
    assert sniffed.media_type == wanted
    assert min(sniffed.width, sniffed.height) > 100


@named(good_files())
def test_a_good_file_passes_and_tells_its_size(data):
    sniffed = answer(data)
    assert (sniffed.width, sniffed.height) in {(64, 48), (40, 30), (8, 8), (30, 20)}


def test_the_header_gives_all_facts():
    assert answer(png(mode="RGBA")) == ImageHeader(media_type="image/png", width=40, height=30, bands=4, bits=8)
    assert answer(jpeg(mode="L")) == ImageHeader(media_type="image/jpeg", width=64, height=48, bands=1, bits=8)
    assert answer(stack()) == ImageHeader(media_type="image/tiff", width=30, height=20, bands=1, bits=16, pages=3)


def test_a_little_padding_behind_a_picture_is_taken():
    for data in (jpeg() + b"\0" * 512, png() + b"\r\n", jpeg() + b"\xff\xff"):
        assert isinstance(answer(data), ImageHeader)


def test_blocks_of_a_tiff_may_be_shared():
    """Some programs store an empty tile once, however often it appears."""
    block = bare_jpeg(frame(8, 8), scan(1), b"\0")
    strips = {"t259": (SHORT, [7]), "t278": (LONG, [8]), "t273": (LONG, [16] * 50), "t279": (LONG, [len(block)] * 50)}
    assert answer(tiff(page(8, 400, **strips), pixels=block)).height == 400


def test_the_levels_of_a_pyramid_are_no_pages():
    level = page(4, 4)
    data = tiff(page(t330=(LONG, [80 + 2 + 12 * 10 + 4])), level)
    unlinked = data[: 80 + 2 + 12 * 10] + bytes(4) + data[80 + 2 + 12 * 10 + 4 :]
    assert answer(unlinked).pages == 1


# ---- However the bytes come


@given(st.sampled_from([*good_files().values()]), PARTS)
def test_a_good_file_gets_the_same_answer_in_any_pieces(data, sizes):
    assert answer(data, sizes) == answer(data)


@given(st.sampled_from([it.data for it in hostile_files() if len(it.data) < 20_000]), PARTS)
def test_a_hostile_file_gets_the_same_answer_in_any_pieces(data, sizes):
    assert answer(data, sizes) == answer(data)


@named(good_files())
def test_a_file_that_comes_byte_by_byte_gets_the_same_answer(data):
    assert answer(data, [1]) == answer(data)


# ---- Cut off, or changed


def assert_refused_or_whole(part, data):
    """By the validator, or by inspection; or else all that was cut off were bytes that nothing refers to."""
    if isinstance(answer(part), ImageHeader):
        with suppress(DomainError):
            assert inspect(part, limits=LIMITS) == inspect(data, limits=LIMITS)


@named(good_files())
def test_a_file_that_is_cut_off_anywhere_never_gets_through_with_less(data):
    for length in range(len(data)):
        assert_refused_or_whole(data[:length], data)


@pytest.mark.parametrize("name", samples("ok"))
def test_a_sample_that_is_cut_off_never_gets_through_with_less(name):
    data = (FORMATS / name).read_bytes()
    for length in cuts(data):
        assert_refused_or_whole(data[:length], data)


@st.composite
def changed(draw):
    """A good file with some bytes changed, taken out or put in; the checksums of a PNG are mended at times."""
    data = bytearray(draw(st.sampled_from([*good_files().values()])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1) | st.integers(0, min(300, len(data)) - 1))
        length = draw(st.sampled_from([0, 1, 1, 1, 2, 4]))
        data[at : at + length] = draw(st.binary(max_size=4) | st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]))
    mended = draw(st.booleans()) and data.startswith(b"\x89PNG")
    return with_checksums(bytes(data)) if mended else bytes(data)


def with_checksums(data):
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out


@given(changed())
@settings(max_examples=400, deadline=None)
def test_a_changed_file_passes_or_is_refused_and_nothing_else_is_raised(data):
    """And where it passes, inspection says yes or no to it as well."""
    said = answer(data)
    assert isinstance(said, ImageHeader) or said[2]
    if isinstance(said, ImageHeader):
        with suppress(DomainError):
            inspect(data, limits=LIMITS)


@given(st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0*", b"II+\0"]), st.binary(max_size=300))
def test_any_bytes_pass_or_are_refused(start, data):
    said = answer(start + data)
    assert isinstance(said, ImageHeader) or said[2]


# ---- What it costs


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    calls = 0
    bytes_read = 0

    def read(self, size=-1):
        data = super().read(size)
        self.calls += 1
        self.bytes_read += len(data)
        return data


def tiffs():
    hostile = [(it.name, it.data) for it in hostile_files() if it.data[:2] in {b"II", b"MM"}]
    good = [(name, (FORMATS / name).read_bytes()) for name in samples("ok") if name.endswith(".tif")]
    return dict(hostile + good)


@named(tiffs())
def test_no_tiff_makes_the_gate_read_it_more_than_a_few_times_over(data):
    validator, file = ImageUploadValidator(limits=LIMITS), Counted(data)
    with suppress(DomainError):
        validator.feed(data)
        validator.finish(file)
    assert file.bytes_read <= 3 * len(data) + 4096
    assert file.calls <= 20 * LIMITS.directories + LIMITS.tags + LIMITS.parts


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"\xff\xd8", segment(0xFE)),
        (b"\xff\xd8" + frame(8, 8), scan(1) + b"\0"),
        (b"\xff\xd8" + segment(0xE2, b"MPF\0") + frame(8, 8) + scan(1) + b"\0\xff\xd9", bare_jpeg(frame(8, 8), scan(1), b"\0")),
        (b"\x89PNG\r\n\x1a\n" + header(), chunk(b"tEXt", b"a\0b")),
        (b"\x89PNG\r\n\x1a\n" + header(), chunk(b"IDAT")),
    ],
    ids=["comments", "passes", "pictures", "texts", "pixels"],
)
def test_a_file_of_endlessly_many_parts_is_refused_at_the_limit(start, again):
    limits = msgspec.structs.replace(LIMITS, parts=2000)
    validator = ImageUploadValidator(limits=limits)
    validator.feed(start)
    refused = refused_by(lambda: [validator.feed(again) for _ in range(limits.parts + 2)])
    assert refused.reason in {"too_many_parts", "trailing_data"}


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"\xff\xd8" + frame(8000, 8000) + scan(1), b"\x5a" * 65_536),
        (b"\xff\xd8" + frame(8000, 8000), segment(0xFE, bytes(65_533))),
        (b"\x89PNG\r\n\x1a\n" + header(9000, 9000), chunk(b"IDAT", bytes(65_524))),
        (b"\x89PNG\r\n\x1a\n" + header(9000, 9000) + chunk(b"IDAT", length=2**31 - 1)[:8], bytes(65_536)),
        (b"II*\0", bytes(65_536)),
    ],
    ids=["the pixels of a JPEG", "the comments of a JPEG", "the chunks of a PNG", "one chunk of a PNG", "a TIFF"],
)
def test_the_gate_needs_no_more_memory_for_a_longer_file(start, more):
    validator = ImageUploadValidator(limits=LIMITS)
    validator.feed(start + more)
    tracemalloc.start()
    try:
        for _ in range(500):
            validator.feed(more)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
    assert peak < 500_000


@named(
    {it.name: it.data for it in hostile_files() if it.data[:2] in {b"II", b"MM"} and it.error is ImageTooLarge and "JPEG" not in it.name}
)
def test_what_a_tiff_claims_takes_no_memory(data):
    tracemalloc.start()
    try:
        answer(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(data) + 40_000_000


def test_the_gate_brings_no_decoder_into_its_process():
    said = "import sys, infrastructure.images.validation; print(*{'numpy', 'PIL', 'tifffile', 'onnxruntime'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert not loaded.stdout.split()
