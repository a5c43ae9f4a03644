"""Whether an image fits a model, by its metadata: what is certain is refused in words, what is possible is not."""

import io
import subprocess
import sys
from uuid import uuid4

import msgspec
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from domain.classification import PlaneSelection, Projection
from domain.image import Image, Inspection
from domain.model import Version
from domain.values import ImageWarning
from infrastructure.images.inspection import inspect
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.input_check import check_input
from infrastructure.inference.packages.input_fitting import InputMismatch, fit
from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.packages.operators import NamedArray
from tests.given import NOW
from tests.infrastructure.inference.packages.making import manifest
from tests.rigs.scenario import LABELS, SHA256

OLDER_FORM = {"preprocessing": {"size": [4, 4], "filter": "box", "colour": "rgb", "mean": [0.0] * 3, "std": [1.0] * 3}}
SEVERAL_CHANNELS = (ImageWarning("first_channel_only", "Channel 1 of 3 is shown and classified"),)
OTHER_SAMPLES = (ImageWarning("extra_samples_ignored", "2 samples per pixel beside the colours are not used"),)


def record(*, axes="bcyx", channels=("red", "green", "blue"), size=32, depth=1, dtype="float32", **rules):
    """A manifest; sizes are numbers, or (min, step)."""

    def sized(letter, size):
        return {"type": "space", "id": letter, "size": size if isinstance(size, int) else dict(zip(("min", "step"), size, strict=True))}

    known = {"b": {"type": "batch"}, "c": {"type": "channel", "channel_names": list(channels)}, "z": sized("z", depth)}
    wire = [known.get(letter) or sized(letter, size) for letter in axes]
    tensor = {"id": "image", "axes": wire, "data": {"type": dtype}}
    return manifest(inputs=[tensor], config={"bioscope": {"input": rules}})


def version(document, *, package="cd" * 32):
    text = msgspec.json.encode(document).decode()
    return Version(number=1, sha256=SHA256, size=1, labels=LABELS, review_below=0.5, record=text, digest=SHA256, package=package)


def image(inspection, media_type="image/tiff"):
    return Image(
        id=uuid4(),
        version=2,
        dataset_id=uuid4(),
        device_id=None,
        filename="cell",
        sha256=SHA256,
        size=1,
        media_type=media_type,
        uploaded_by=uuid4(),
        uploaded_at=NOW,
        accepted=inspection is not None,
        inspection=inspection,
    )


def inspected(media_type="image/png", **changes):
    """An image of 32 x 32 pixels in RGB, but for what `changes`."""
    about = {"width": 32, "height": 32, "bands": 3, "dtype": "uint8", "pages": 1, "axes": "YXS", "pixel_size_um": None}
    return image(Inspection(**about | {"reader": 2, "warnings": ()} | changes), media_type)


def grey(media_type="image/tiff", *, axes="YX", **changes):
    return inspected(media_type, bands=1, axes=axes, **changes)


def found(document, about, **planes):
    return [(one.axis, one.expected, one.found) for one in check_input(version(document), about, PlaneSelection(**planes))]


def words(document, about, **planes):
    return [one.message for one in check_input(version(document), about, PlaneSelection(**planes))]


# ---- what is refused -----------------------------------------------------------------------------------------------------------------
def test_an_image_that_fits_is_not_refused():
    assert found(record(), inspected()) == []
    assert found(record(channels=("dapi",)), grey()) == []
    assert found(record(axes="byx"), grey()) == []


@pytest.mark.parametrize(
    ("document", "about", "message"),
    [
        (record(), grey(), "The model takes 3 (red, green, blue) channels, and the image has 1"),
        (
            record(channels=("dapi",)),
            inspected(),
            "The model takes 1 (dapi) channels, and the image has 3. Choose 1 of them with planes, such as c=0",
        ),
        (record(axes="byx"), inspected(), "The model takes 1 channels, and the image has 3. Choose 1 of them with planes, such as c=0"),
        (record(size=64), inspected(width=64), "The model takes at least 64 pixels in height, and the image has 32"),
        (record(size=64), inspected(height=64), "The model takes at least 64 pixels in width, and the image has 32"),
        (
            record(size=32, crop=0.5),
            inspected(height=64),
            "The model takes at least 32 pixels in width, and the image has 16 within the part that the model looks at",
        ),
        (record(dtype="uint8"), inspected(dtype="uint16"), "The model takes numbers of the type uint8, and the image has uint16"),
        (record(bit_depths=[12, 16]), inspected(), "The model takes 12 or 16 bits in each number, and the image has 8"),
        (
            record(pixel_size_um=0.25),
            inspected(pixel_size_um=0.5),
            "The model takes a pixel size of 0.25 um within 20%, and the image has 0.5 um",
        ),
        (
            record(axes="bczyx", channels=("dapi",), depth=8),
            grey(axes="ZYX", pages=5),
            "The model takes 8 focal planes, and the image has 5",
        ),
        (
            record(axes="bczyx", channels=("dapi",), depth=(8, 4)),
            grey(axes="ZYX", pages=10),
            "The model takes 8 and any number of times 4 more focal planes, and the image has 10",
        ),
    ],
)
def test_a_mismatch_is_said_in_words(document, about, message):
    assert words(document, about) == [message]
    assert check_input(version(document), about, None)[0].field == ("image_id",)


def test_all_mismatches_are_listed():
    document = record(size=64, dtype="uint8", pixel_size_um=0.25)
    about = grey(width=16, height=16, dtype="uint16", pixel_size_um=2.0)
    assert [axis for axis, _, _ in found(document, about)] == ["channel", "dtype", "y", "pixel size"]


# ---- what metadata leave open --------------------------------------------------------------------------------------------------------
def test_a_picture_may_be_stored_turned():
    document = record(axes="bcyx")
    wide = msgspec.json.decode(msgspec.json.encode(document))
    wide["inputs"][0]["axes"][3]["size"] = 64
    assert found(wide, inspected(width=64)) == []
    assert found(wide, inspected(height=64)) == []
    assert found(wide, inspected()) == [("x", "at least 64", "32")]


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_a_camera_of_12_bits_stores_16(dtype):
    assert found(record(bit_depths=[12]), inspected(dtype=dtype)) == []
    assert found(record(bit_depths=[8]), inspected(dtype=dtype)) == [("bit depth", "8", "16")]


def test_cmyk_becomes_rgb_in_8_bits():
    document = record(dtype="uint8", bit_depths=[8])
    assert found(document, inspected("image/tiff", bands=4, dtype="uint16")) == []
    assert [axis for axis, _, _ in found(document, inspected("image/tiff", dtype="uint16"))] == ["bit depth", "dtype"]


def test_an_image_without_a_pixel_size_may_have_any():
    assert found(record(pixel_size_um=0.25), inspected()) == []


@pytest.mark.parametrize(
    ("about", "possible"),
    [
        (grey(), {1}),
        (grey("image/png"), {1}),
        (inspected("image/png"), {3}),
        (inspected("image/png", bands=2), {1}),
        (inspected("image/png", bands=4), {3}),
        (inspected("image/jpeg"), {3}),
        (inspected("image/jpeg", bands=4), {3}),
        (inspected("image/tiff"), {3}),
        (inspected("image/tiff", bands=4), {3}),
        (inspected("image/tiff", bands=2), {1}),
        (inspected("image/tiff", bands=5), {3}),
        (inspected("image/tiff", bands=5, warnings=SEVERAL_CHANNELS), {4, 5}),
        (inspected("image/tiff", bands=2, warnings=SEVERAL_CHANNELS), {2}),
        (inspected("image/tiff", bands=3, warnings=OTHER_SAMPLES), {1}),
        (inspected("image/tiff", bands=5, warnings=OTHER_SAMPLES), {1, 3}),
        (inspected("image/tiff", bands=5, warnings=(*OTHER_SAMPLES, *SEVERAL_CHANNELS)), {2, 3, 4}),
        (inspected("image/tiff", bands=4, reader=1), {1, 2, 3, 4}),
        (grey(axes="CYX", pages=4), {4}),
        (grey(axes="ZCYX", pages=12), {2, 3, 4, 6}),
        (grey(axes="TZCYX", pages=12), {2, 3}),
        (grey(axes="IYX", pages=4), {1}),
        (inspected("image/tiff", axes="CYXS", pages=2, warnings=SEVERAL_CHANNELS), {4, 6}),
    ],
)
def test_an_image_has_the_channels_that_its_metadata_allow(about, possible):
    fits = {number for number in range(1, 13) if found(record(channels=[f"c{one}" for one in range(number)]), about) == []}
    assert fits == possible


def test_a_grey_image_may_serve_as_three_channels_where_the_manifest_says_so():
    document = record(repeat_grey=True)
    assert found(document, grey()) == []
    assert found(document, grey(axes="CYX", pages=2)) == [("channel", "3 (red, green, blue)", "2")]
    assert found(document, inspected(), c=(1,)) == []


# ---- the choice of planes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("planes", [{"c": (2, 0, 1)}, {"z": 0}, {"t": 0}, {"z": Projection.MAX}, {"z": Projection.MEAN, "c": (0, 1, 2)}])
def test_planes_that_the_image_has_are_taken(planes):
    assert found(record(), inspected(), **planes) == []


@pytest.mark.parametrize(
    ("planes", "field", "message"),
    [
        ({"c": (0, 1, 3)}, "c", "The image has no c=3: it has 3 channels, counted from 0"),
        ({"z": 1}, "z", "The image has no z=1: it has 1 focal plane, counted from 0"),
        ({"t": 1}, "t", "The image has no t=1: it has 1 point in time, counted from 0"),
        ({"c": (0,)}, "c", "The model takes 3 (red, green, blue) channels, and the choice has 1"),
    ],
)
def test_planes_that_the_image_has_not_or_the_model_does_not_take_are_refused(planes, field, message):
    refused = check_input(version(record()), inspected(), PlaneSelection(**planes))
    assert [(one.field, one.message) for one in refused] == [(("planes", field), message)]


def test_a_plane_of_several_stacks_is_refused_only_where_no_division_of_the_pages_has_it():
    document, stacks = record(channels=("dapi",)), grey(axes="TZYX", pages=12)
    assert found(document, stacks, z=5, t=5) == []
    assert found(document, stacks, z=6) == [("z", "z=6", "at most 6")]


def test_pages_of_unknown_meaning_are_focal_planes():
    pages = grey(axes="IYX", pages=3)
    assert found(record(channels=("dapi",)), pages, z=2) == []
    assert found(record(channels=("dapi",)), pages, z=3) == [("z", "z=3", "3")]
    assert found(record(axes="bczyx", channels=("dapi",), depth=3), pages) == []


def test_one_channel_of_several_fits_a_model_of_one():
    document, stained = record(channels=("dapi",)), grey(axes="CYX", pages=4)
    assert found(document, stained, c=(3,)) == []
    assert found(document, stained) == [("channel", "1 (dapi)", "4")]


@pytest.mark.parametrize("plane", [1, Projection.MAX, Projection.MEAN])
def test_one_plane_of_a_stack_is_not_a_stack(plane):
    document = record(axes="bczyx", channels=("dapi",), depth=5)
    assert found(document, grey(axes="ZYX", pages=5)) == []
    assert found(document, grey(axes="ZYX", pages=5), z=plane) == [("z", "5", "1")]


@pytest.mark.parametrize("about", [None, image(None)])
def test_of_an_image_that_nobody_has_inspected_only_the_choice_is_compared_with_the_model(about):
    assert found(record(), about) == []
    assert found(record(), about, c=(7, 8, 9), z=99) == []
    assert found(record(), about, c=(0,)) == [("channel", "3 (red, green, blue)", "1")]


# ---- versions of which nothing is certain --------------------------------------------------------------------------------------------
OLDER = [version(record(), package=""), version(manifest(config={"bioscope": OLDER_FORM}))]


@pytest.mark.parametrize("older", OLDER)
def test_the_older_form_takes_a_picture_of_every_image(older):
    for about in (None, grey(width=1, height=1, dtype="float32", axes="TZCYX", pages=12), inspected(bands=4)):
        assert list(check_input(older, about, None)) == list(check_input(older, about, PlaneSelection())) == []


@pytest.mark.parametrize("older", OLDER)
def test_the_older_form_takes_a_picture_of_the_planes_that_are_chosen(older):
    stained = grey(axes="ZCYX", pages=8)
    for planes in ({"z": 1}, {"z": Projection.MAX}, {"c": (1,)}, {"c": (0, 1, 2)}):
        assert list(check_input(older, stained, PlaneSelection(**planes))) == []
    (two,) = check_input(older, None, PlaneSelection(c=(0, 1)))
    assert (two.field, two.message) == (("planes", "c"), "The model takes pictures of 1 or 3 channels, and the choice has 2")
    (absent,) = check_input(older, stained, PlaneSelection(z=4))
    assert absent.message == "The image has no z=4: it has at most 4 focal planes, counted from 0"


NESTED = '{"other": %s}' % ("[" * 100_000 + "]" * 100_000)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "{}", '{"config": 1}', '{"config": {"bioscope": []}}', '{"type": "dataset"}', pytest.param(NESTED, id="nested")]
)
def test_a_manifest_that_cannot_be_read_is_left_to_the_worker(text):
    unreadable = msgspec.structs.replace(version(record()), record=text)
    assert list(check_input(unreadable, grey(), None)) == []


@pytest.mark.parametrize("dtype", ["", "uint1", "object", "x" * 100])
def test_a_type_of_numbers_that_is_unknown_is_left_to_the_worker(dtype):
    assert found(record(), inspected(dtype=dtype)) == []


def test_the_web_process_loads_numpy_only_for_a_model_that_needs_it():
    code = """
import sys
from infrastructure import container
from infrastructure.inference.input_check import check_input
from domain.model import Version
about = {"number": 1, "sha256": "", "size": 1, "labels": (), "review_below": 0.5}
check_input(Version(**about, record="{}"), None, None)
check_input(Version(**about, record='{"config": {"bioscope": {"preprocessing": {}}}}', package="a"), None, None)
assert "numpy" not in sys.modules
check_input(Version(**about, record="{}", package="a"), None, None)
assert "numpy" in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- real files ----------------------------------------------------------------------------------------------------------------------
def tiff(values, axes, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata={"axes": axes}, **options)
    return file.getvalue()


def picture(values, form):
    file = io.BytesIO()
    Picture.fromarray(values).save(file, form)
    return file.getvalue()


SIZES = st.integers(2, 5)
DTYPES = st.sampled_from(["uint8", "uint16", "float32"])


@st.composite
def files(draw):
    """A file, and its pixels as a model sees them."""
    height, width, kind = draw(SIZES), draw(SIZES), draw(st.sampled_from(["grey", "colours", "alpha", "stack"]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if kind == "stack":
        axes = draw(st.sampled_from(["CYX", "ZYX", "ZCYX", "TCYX", "TZCYX"]))
        dtype = draw(DTYPES)
        values = random.integers(0, 200, [*(draw(SIZES) for _ in axes[:-2]), height, width]).astype(dtype)
        data = tiff(values, axes, ome=draw(st.booleans()), photometric="minisblack")
        names = {"C": "channel", "Z": "z", "T": "time", "Y": "y", "X": "x"}
        return data, NamedArray(values, tuple(names[axis] for axis in axes))
    if kind == "grey":
        values = random.integers(0, 200, (height, width)).astype(draw(st.sampled_from(["uint8", "uint16"])))
        form = draw(st.sampled_from(["PNG", "TIFF"]))
        data = picture(values, form) if form == "PNG" else tiff(values, "YX", photometric="minisblack")
        return data, NamedArray(values, ("y", "x"))
    values = random.integers(0, 200, (height, width, 3 if kind == "colours" else 4), np.uint8)
    extra = {} if kind == "colours" else {"extrasamples": ["unassalpha"]}
    data = picture(values, "PNG") if draw(st.booleans()) else tiff(values, "YXS", photometric="rgb", **extra)
    return data, NamedArray(values[..., :3], ("y", "x", "channel"))


@st.composite
def documents(draw, pixels, channels):
    """A manifest that often takes the image, of which so many channels are used."""

    def often(right, others):
        return right if draw(st.integers(0, 4)) else draw(others)

    height, _ = (pixels.values.shape[pixels.axes.index(axis)] for axis in ("y", "x"))
    stack = pixels.values.shape[pixels.axes.index("z")] if "z" in pixels.axes else 1
    size = often(height, SIZES | st.tuples(SIZES, st.integers(1, 3)))
    rules = {"resize": "stretch"} if draw(st.booleans()) else {}
    names = [f"c{number}" for number in range(often(channels, st.integers(1, 4)))]
    axes = draw(st.sampled_from(["bcyx", "byxc", "bczyx", "byx"] if len(names) == 1 else ["bcyx", "byxc", "bczyx"]))
    if len(names) == 3 and draw(st.booleans()):
        rules["repeat_grey"] = True
    dtype = often(str(pixels.values.dtype), DTYPES)
    return record(axes=axes, channels=names, size=size, depth=often(stack, SIZES), dtype=dtype, **rules)


@st.composite
def pairs(draw, *, chooses_planes):
    """A file with its pixels, a choice of planes, and a manifest."""
    data, pixels = draw(files())
    channels = pixels.values.shape[pixels.axes.index("channel")] if "channel" in pixels.axes else 1
    planes = PlaneSelection()
    if chooses_planes:
        chosen = draw(st.none() | st.lists(st.integers(0, channels), min_size=1, max_size=4, unique=True))
        z = draw(st.none() | st.integers(0, 5) | st.just(Projection.MAX))
        planes = PlaneSelection(z=z, c=None if chosen is None else tuple(chosen))
    return data, pixels, planes, draw(documents(pixels, channels if planes.c is None else len(planes.c)))


def as_uploaded(data):
    about = inspect(data, limits=ImageLimits())
    return image(msgspec.convert(about, Inspection, from_attributes=True), about.media_type)


def as_chosen(array, planes, tensor):
    """The first time, and the channels and the plane that are chosen, or the projection of all. Raises IndexError."""
    if "time" in array.axes:
        array = without("time", array, np.take(array.values, 0, axis=array.axes.index("time")))
    if planes.c is not None:
        if "channel" not in array.axes:
            array = NamedArray(array.values[..., None], (*array.axes, "channel"))
        array = NamedArray(np.take(array.values, planes.c, axis=array.axes.index("channel")), array.axes)
    if planes.z is None and ("z" not in array.axes or "z" in tensor.axis_ids):
        return array
    if "z" not in array.axes:
        array = NamedArray(array.values[None], ("z", *array.axes))
    dimension = array.axes.index("z")
    return without(
        "z", array, array.values.max(dimension) if planes.z is Projection.MAX else np.take(array.values, planes.z or 0, dimension)
    )


def without(axis, array, values):
    return NamedArray(values, tuple(one for one in array.axes if one != axis))


@settings(max_examples=300, deadline=None)
@given(pairs(chooses_planes=True))
def test_an_image_that_fits_when_it_is_decoded_is_never_refused(pair):
    data, pixels, planes, document = pair
    refused = check_input(version(document), as_uploaded(data), planes)
    tensor = parse_manifest(document).input
    try:
        fit(as_chosen(pixels, planes, tensor), tensor)
    except (InputMismatch, IndexError):
        return
    assert list(refused) == []


@settings(max_examples=300, deadline=None)
@given(pairs(chooses_planes=False))
def test_an_image_of_one_plane_that_does_not_fit_is_always_refused(pair):
    """But for pictures that may be stored turned."""
    data, pixels, _, document = pair
    known = as_uploaded(data)
    about = known.inspection
    is_certain = set(about.axes) <= set("YXS") and about.width == about.height
    try:
        fit(pixels, parse_manifest(document).input)
    except InputMismatch:
        assert not is_certain or list(check_input(version(document), known, None))
