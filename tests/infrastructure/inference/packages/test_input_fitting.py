import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from infrastructure.inference.packages.input_fitting import ImageFacts, InputMismatch, fit, mismatches
from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.packages.operators import NamedArray
from infrastructure.inference.preprocessing import Preprocessing, resized
from tests.infrastructure.inference.packages.making import fed, manifest

PLANES = ("y", "x", "channel")
DTYPES = st.sampled_from(["uint8", "int8", "uint16", "int16", "float32"])


def described(*, axes="bcyx", height=8, width=8, channels=3, dtype="float32", preprocessing=(), **rules):
    """An input tensor; sizes are numbers, or (min, step)."""
    sizes = {"y": height, "x": width, "z": 1}
    wire = []
    for letter in axes:
        if letter == "b":
            wire.append({"type": "batch"})
        elif letter == "c":
            wire.append({"type": "channel", "channel_names": [f"c{index}" for index in range(channels)]})
        else:
            size = sizes[letter]
            wire.append(
                {"type": "space", "id": letter, "size": size if isinstance(size, int) else dict(zip(("min", "step"), size, strict=True))}
            )
    tensor = {"id": "image", "axes": wire, "data": {"type": dtype}, "preprocessing": list(preprocessing)}
    return parse_manifest(manifest(inputs=[tensor], config={"bioscope": {"input": rules}})).input


def picture(height=8, width=8, channels=3, dtype="uint8", seed=1):
    values = np.random.default_rng(seed).integers(0, 120, (height, width, channels)).astype(dtype)
    return NamedArray(values, PLANES)


# ---- properties --------------------------------------------------------------------------------------------------------------------
@given(
    axes=st.permutations("bcyx").map("".join),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.integers(1, 4),
    stored=DTYPES,
    order=st.permutations(range(3)),
)
def test_an_image_of_the_right_size_only_changes_its_order(axes, height, width, channels, stored, order):
    image = picture(height, width, channels, stored)
    turned = NamedArray(image.values.transpose(order), tuple(PLANES[index] for index in order))
    tensor = described(axes=axes, height=height, width=width, channels=channels, dtype=stored)
    fitted = fit(turned, tensor)
    assert fitted.axes == tensor.axis_ids
    assert fitted.values.dtype == stored
    back = fitted.values.transpose([fitted.axes.index(axis) for axis in ("batch", *PLANES)])[0]
    assert np.array_equal(back, image.values)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    to=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    resize=st.sampled_from(["stretch", "cover", "contain"]),
    crop=st.floats(0.2, 1),
    stored=DTYPES,
)
def test_every_picture_is_resized_within_its_own_range(height, width, to, resize, crop, stored):
    image = picture(height, width, 1, stored)
    fitted = fit(image, described(height=to[0], width=to[1], channels=1, dtype=stored, resize=resize, crop=crop)).values
    assert fitted.shape == (1, 1, *to)
    assert image.values.min() <= fitted.min()
    assert fitted.max() <= image.values.max()


@given(height=st.integers(1, 60), width=st.integers(1, 60), least=st.integers(1, 20), step=st.integers(1, 9))
def test_a_flexible_size_is_the_largest_that_the_picture_has(height, width, least, step):
    tensor = described(height=(least, step), width=(least, step), channels=1)
    image = picture(height, width, 1)
    if min(height, width) < least:
        with pytest.raises(InputMismatch):
            fit(image, tensor)
        return
    for size, found in zip(fit(image, tensor).values.shape[2:], (height, width), strict=True):
        assert found - step < size <= found
        assert (size - least) % step == 0


@given(arrays.arrays(np.uint16, (4, 5, 2)), st.sampled_from(["uint8", "uint16", "int16", "float32"]))
def test_the_whole_range_of_a_type_becomes_that_of_another(values, dtype):
    image = NamedArray(values, PLANES)
    fitted = fit(image, described(height=4, width=5, channels=2, dtype=dtype, values="full_range")).values
    assert fitted.dtype == dtype
    if dtype == "float32":
        assert np.array_equal(fitted[0], values.transpose(2, 0, 1))
        return
    limits = np.iinfo(dtype)
    expected = values.transpose(2, 0, 1) / 65535 * (float(limits.max) - limits.min) + limits.min
    assert np.abs(fitted[0] - expected).max() <= 0.5 + 1e-6


@given(arrays.arrays(np.uint8, (6, 5, 3)))
def test_unit_values_lie_between_zero_and_one(values):
    fitted = fit(NamedArray(values, PLANES), described(height=6, width=5, values="unit")).values
    assert np.allclose(fitted[0].transpose(1, 2, 0) * 255, values, atol=1e-4)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 20))
def test_stretching_is_that_of_the_shipped_models_within_rounding(height, width, size):
    """Pillow rounds between the two passes of eight bits, and not between those of floats."""
    image = picture(height, width)
    ours = fit(image, described(height=size, width=size, dtype="uint8", resize="stretch")).values[0].transpose(1, 2, 0)
    theirs = resized(Image.fromarray(image.values), Preprocessing(size=size))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


# ---- choices -----------------------------------------------------------------------------------------------------------------------
def test_without_resizing_the_centre_is_cut_out():
    image = NamedArray(np.arange(36).reshape(6, 6).astype("uint8"), ("y", "x"))
    fitted = fit(image, described(height=2, width=4, channels=1, dtype="uint8"))
    assert fitted.values[0, 0].tolist() == [[13, 14, 15, 16], [19, 20, 21, 22]]


def test_a_picture_that_is_contained_repeats_its_edges():
    image = NamedArray(np.array([[10, 20, 30, 40]], "uint8"), ("y", "x"))
    fitted = fit(image, described(height=4, width=4, channels=1, dtype="uint8", resize="contain")).values[0, 0]
    assert fitted.tolist() == [[10, 20, 30, 40]] * 4


def test_a_picture_that_covers_loses_its_ends():
    image = NamedArray(np.repeat(np.array([[0, 0, 50, 50, 90, 90]], "uint8"), 2, axis=0), ("y", "x"))
    fitted = fit(image, described(height=2, width=2, channels=1, dtype="uint8", resize="cover")).values[0, 0]
    assert fitted.tolist() == [[50, 50]] * 2


def test_grey_is_repeated_only_where_the_manifest_says_so():
    grey = NamedArray(picture(channels=1).values[:, :, 0], ("y", "x"))
    fitted = fit(grey, described(dtype="uint8", repeat_grey=True)).values[0]
    assert all(np.array_equal(channel, grey.values) for channel in fitted)
    with pytest.raises(InputMismatch) as mismatch:
        fit(grey, described(dtype="uint8"))
    assert (mismatch.value.axis, mismatch.value.expected, mismatch.value.found) == ("channel", "3 (c0, c1, c2)", "1")


@pytest.mark.parametrize(
    ("image", "tensor", "axis"),
    [
        (picture(), {"channels": 2}, "channel"),
        (picture(4, 8), {}, "y"),
        (picture(8, 4), {}, "x"),
        (picture(dtype="uint16"), {"dtype": "uint8"}, "dtype"),
        (picture(dtype="float32"), {"dtype": "uint16"}, "dtype"),
        (picture(dtype="float32"), {"dtype": "uint8", "values": "full_range"}, "dtype"),
        (NamedArray(np.zeros((2, 8, 8, 3)), ("time", *PLANES)), {}, "time"),
        (NamedArray(np.zeros((2, 8, 8, 3)), ("z", *PLANES)), {}, "z"),
        (NamedArray(np.zeros((2, 8, 8, 3)), ("z", *PLANES)), {"axes": "bczyx"}, "z"),
        (NamedArray(np.zeros((8, 3)), ("y", "channel")), {}, "axes"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_with_what_was_expected(image, tensor, axis):
    with pytest.raises(InputMismatch) as mismatch:
        fit(image, described(**tensor))
    assert mismatch.value.axis == axis
    assert mismatch.value.expected
    assert mismatch.value.found


def test_the_network_gets_the_preprocessed_tensor_as_the_manifest_orders_it():
    steps = [{"id": "scale_linear", "kwargs": {"gain": 2.0}}, {"id": "ensure_dtype", "kwargs": {"dtype": "uint16"}}]
    image = picture()
    given_to_it = fed(image, described(axes="byxc", dtype="float32", preprocessing=steps))
    assert given_to_it.dtype == np.uint16
    assert given_to_it.flags.c_contiguous
    assert np.array_equal(given_to_it[0], image.values.astype(int) * 2)


def test_one_row_of_numbers_is_given_where_the_network_wants_it():
    image = picture(2, 3, 1)
    row = fed(image, described(axes="byx", height=2, width=3, flatten=True))
    assert row.tolist() == [image.values.ravel().tolist()]


@given(st.integers(1, 5), st.integers(1, 5))
def test_a_size_that_follows_another_is_kept(height, offset):
    axes = [
        {"type": "space", "id": "y", "size": {"min": 1, "step": 1}},
        {"type": "space", "id": "x", "size": {"tensor_id": "image", "axis_id": "y", "offset": offset}},
    ]
    tensor = parse_manifest(manifest(inputs=[{"id": "image", "axes": axes}])).input
    assert fit(picture(height, 12, 1), tensor).values.shape == (height, height + offset)


# ---- before decoding ---------------------------------------------------------------------------------------------------------------
def facts(image, **others):
    height, width, channels = image.values.shape
    dtype = image.values.dtype
    return ImageFacts(width=width, height=height, channels=channels, dtype=dtype.name, bits=dtype.itemsize * 8, **others)


def fits(image, tensor):
    try:
        fit(image, tensor)
    except InputMismatch:
        return False
    return True


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 4),
    DTYPES,
    st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    st.sampled_from(["none", "stretch", "contain"]),
    st.sampled_from(["stored", "full_range"]),
    st.booleans(),
)
def test_metadata_say_whether_an_image_will_fit(height, width, channels, stored, dtype, resize, values, repeat_grey):
    image = picture(height, width, channels, stored)
    tensor = described(height=(3, 2), width=6, dtype=dtype, resize=resize, values=values, repeat_grey=repeat_grey)
    assert (mismatches(facts(image), tensor) == ()) == fits(image, tensor)


def test_all_that_does_not_fit_is_named_at_once():
    tensor = described(channels=2, dtype="uint8", pixel_size_um=0.25, pixel_size_tolerance=0.1, bit_depths=[8, 12])
    found = mismatches(facts(picture(4, 4, 3, "uint16"), pixel_size_um=0.5), tensor)
    assert [(one.axis, one.expected, one.found) for one in found] == [
        ("channel", "2 (c0, c1)", "3"),
        ("bit depth", "8 or 12", "16"),
        ("dtype", "uint8", "uint16"),
        ("y", "at least 8", "4"),
        ("pixel size", "0.25 um within 10%", "0.5 um"),
    ]


@pytest.mark.parametrize("size", [None, 0.25, 0.2, 0.3])
def test_a_pixel_size_that_is_near_or_unknown_is_accepted(size):
    assert mismatches(facts(picture(), pixel_size_um=size), described(pixel_size_um=0.25, pixel_size_tolerance=0.2001)) == ()
