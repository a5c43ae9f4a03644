"""From a file to the planes that a model is given: channels, focal planes and times, as stored."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from domain.classification import PlaneSelection, Projection
from domain.errors import ImageTooLarge
from infrastructure.images.reader import open_image
from infrastructure.images.rendering import Colours, render
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.image_planes import select_picture, select_planes
from infrastructure.inference.packages.input_fitting import InputMismatch
from infrastructure.inference.packages.manifest_reader import parse_manifest
from tests.infrastructure.inference.packages.making import manifest

HEIGHT, WIDTH = 6, 5
LIMITS = ImageLimits()


def hyperstack(t=2, z=3, c=2, dtype=np.uint16):
    """Each number says where it lies: 1000 t + 100 z + 10 c + row."""
    grid = np.indices((t, z, c, HEIGHT, WIDTH))
    values = 1000 * grid[0] + 100 * grid[1] + 10 * grid[2] + grid[3]
    return values.astype(dtype)


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def stack_file(values):
    return tiff(values, imagej=True, metadata={"axes": "TZCYX"})


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png")
    return file.getvalue()


def wanted(*, channels=2, axes=(), dtype="uint16", **rules):
    """An input of one size, with `axes` such as z, and that many channels; 0 for no such axis."""
    described = [{"type": "batch"}]
    described += [{"type": "channel", "channel_names": [f"c{index}" for index in range(channels)]}] if channels else []
    for axis, size in axes:
        described.append({"type": "time", "id": "time", "size": size} if axis == "t" else {"type": "space", "id": axis, "size": size})
    described += [{"type": "space", "id": "y", "size": HEIGHT}, {"type": "space", "id": "x", "size": WIDTH}]
    tensor = {"id": "image", "axes": described, "data": {"type": dtype}}
    return parse_manifest(manifest(inputs=[tensor], config={"bioscope": {"input": rules}})).input


def selected(data, tensor, *, limits=LIMITS, **chosen):
    with open_image(data, limits=limits) as image:
        return select_planes(image, tensor, PlaneSelection(**chosen), limits=limits)


# ---- stacks ------------------------------------------------------------------------------------------------------------------------
def test_without_a_choice_a_model_gets_all_channels_of_the_first_plane_and_time_and_says_so():
    values = hyperstack()
    found = selected(stack_file(values), wanted())
    assert found.values.axes == ("channel", "y", "x")
    assert np.array_equal(found.values.values, values[0, 0])
    assert found.values.values.dtype == np.uint16
    assert [(one.code, one.detail) for one in found.warnings] == [("first_plane_only", "Only the first plane is classified (Z: 3, T: 2)")]


@given(t=st.integers(0, 1), z=st.integers(0, 2), c=st.permutations([0, 1]))
def test_any_plane_and_time_can_be_chosen_and_channels_in_any_order(t, z, c):
    values = hyperstack()
    found = selected(stack_file(values), wanted(), t=t, z=z, c=tuple(c))
    assert np.array_equal(found.values.values, values[t, z][list(c)])
    assert found.warnings == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("how", list(Projection))
def test_focal_planes_can_be_projected(how, dtype):
    values = np.random.default_rng(3).integers(0, 200, (1, 5, 2, HEIGHT, WIDTH)).astype(dtype)
    found = selected(stack_file(values), wanted(dtype=np.dtype(dtype).name), z=how)
    expected = values[0].max(axis=0) if how is Projection.MAX else np.rint(values[0].astype(float).mean(axis=0))
    if dtype is np.float32 and how is Projection.MEAN:
        expected = values[0].astype(float).mean(axis=0)
    assert np.allclose(found.values.values, expected)
    assert found.values.values.dtype == dtype


@pytest.mark.parametrize("projection", ["max", "mean"])
def test_the_projection_of_the_manifest_holds_until_the_job_chooses_another(projection):
    values = hyperstack(t=1)
    tensor = wanted(projection=projection)
    assert np.array_equal(selected(stack_file(values), tensor).values.values, getattr(values[0], projection)(axis=0))
    assert np.array_equal(selected(stack_file(values), tensor, z=1).values.values, values[0, 1])
    assert selected(stack_file(values), tensor).warnings == ()


def test_a_model_of_stacks_gets_the_whole_stack():
    values = hyperstack(t=1)
    found = selected(stack_file(values), wanted(axes=[("z", 3)]))
    assert found.values.axes == ("z", "channel", "y", "x")
    assert np.array_equal(found.values.values, values[0])


def test_a_model_of_times_gets_all_times():
    values = hyperstack(z=1)
    found = selected(stack_file(values), wanted(axes=[("t", 2)]))
    assert found.values.axes == ("time", "channel", "y", "x")
    assert np.array_equal(found.values.values, values[:, 0])


def test_pages_of_unknown_meaning_count_as_focal_planes():
    pages = np.arange(3 * HEIGHT * WIDTH, dtype=np.uint8).reshape(3, HEIGHT, WIDTH)
    data = tiff(pages, photometric="minisblack", metadata=None)
    found = selected(data, wanted(channels=1, dtype="uint8"), z=2)
    assert np.array_equal(found.values.values[0], pages[2])


@pytest.mark.parametrize(
    ("chosen", "axis", "said"),
    [
        ({"z": 3}, "z", "The image has no z=3: it has 3 focal planes, counted from 0"),
        ({"t": 2}, "time", "no t=2"),
        ({"c": (0, 2)}, "channel", "no c=2"),
        ({"z": -1}, "z", "no z=-1"),
        ({"c": (0,)}, "channel", "The model takes 2 (c0, c1) channels, and the image has 1"),
    ],
)
def test_a_choice_that_does_not_exist_names_axis_expected_and_found(chosen, axis, said):
    with pytest.raises(InputMismatch, match=said.replace("(", r"\(").replace(")", r"\)")) as mismatch:
        selected(stack_file(hyperstack()), wanted(), **chosen)
    assert mismatch.value.axis == axis


def test_an_image_of_other_channels_bits_or_size_is_refused_before_more_planes_are_read():
    data = stack_file(hyperstack())
    for tensor, axis in ((wanted(channels=3), "channel"), (wanted(bit_depths=[8]), "bit depth")):
        with pytest.raises(InputMismatch) as mismatch:
            selected(data, tensor)
        assert mismatch.value.axis == axis


def test_planes_beyond_the_memory_are_refused():
    values = np.zeros((1, 30, 2, 64, 64), np.uint16)
    tensor = wanted(axes=[("z", 30)])
    with pytest.raises(ImageTooLarge, match="planes that the model needs"):
        selected(stack_file(values), tensor, limits=ImageLimits(decoding_bytes=1_000_000))


# ---- pictures ----------------------------------------------------------------------------------------------------------------------
def test_a_picture_in_colour_has_three_channels_and_one_in_grey_one():
    rgb = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    assert np.array_equal(selected(png(rgb), wanted(channels=3, dtype="uint8")).values.values, rgb.transpose(2, 0, 1))
    assert np.array_equal(selected(png(rgb[:, :, 0]), wanted(channels=0, dtype="uint8")).values.values, rgb[None, :, :, 0])


def test_a_colour_can_be_chosen():
    rgb = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    assert np.array_equal(selected(png(rgb), wanted(channels=1, dtype="uint8"), c=(1,)).values.values[0], rgb[:, :, 1])


def test_alpha_is_no_channel_and_transparent_pixels_lie_on_white():
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[:, 2:, 3] = 255
    found = selected(png(rgba), wanted(channels=3, dtype="uint8"))
    assert found.values.values.shape == (3, HEIGHT, WIDTH)
    assert found.values.values[:, :, :2].min() == 255
    assert found.values.values[:, :, 2:].max() == 0
    assert [one.code for one in found.warnings] == ["transparency_on_white"]


def test_deep_colours_stay_as_stored_and_their_alpha_is_not_used():
    values = np.random.default_rng(1).integers(0, 2**16, (HEIGHT, WIDTH, 4), np.uint16)
    found = selected(tiff(values, photometric="rgb", extrasamples=["unassalpha"]), wanted(channels=3))
    assert np.array_equal(found.values.values, values[:, :, :3].transpose(2, 0, 1))
    assert [one.code for one in found.warnings] == ["transparency_ignored"]


def test_inks_become_three_colours():
    file = io.BytesIO()
    Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(file, "tiff")
    found = selected(file.getvalue(), wanted(channels=3, dtype="uint8"))
    assert found.values.values[:, 0, 0].tolist() == [255, 0, 0]


# ---- models of the older form ------------------------------------------------------------------------------------------------------
def pictured(data, **chosen):
    with open_image(data, limits=LIMITS) as image:
        return select_picture(image, PlaneSelection(**chosen), use_profile=True)


def test_a_picture_of_any_plane_can_be_chosen():
    values = hyperstack()
    found = pictured(stack_file(values), z=2, t=1)
    assert np.array_equal(found.pixels[:, :, 0], values[1, 2, 0])
    assert {one.code for one in found.warnings} == {"first_channel_only"}
    assert np.array_equal(pictured(stack_file(values), c=(1,)).pixels[:, :, 0], values[0, 0, 1])
    assert np.array_equal(pictured(stack_file(values), z=Projection.MAX).pixels[:, :, 0], values[0, :, 0].max(axis=0))


def test_three_channels_become_a_picture_in_colour():
    values = hyperstack(c=3)
    found = pictured(stack_file(values), c=(2, 0, 1))
    assert found.colours is Colours.RGB
    assert np.array_equal(found.pixels, values[0, 0][[2, 0, 1]].transpose(1, 2, 0))
    with pytest.raises(InputMismatch, match="1 or 3"):
        pictured(stack_file(values), c=(0, 1))


def test_without_a_choice_the_picture_is_the_one_that_the_reader_shows():
    data = stack_file(hyperstack())
    with open_image(data, limits=LIMITS) as image:
        shown = image.plane()
    found = pictured(data)
    assert np.array_equal(found.pixels, shown.pixels)
    assert found.warnings == shown.warnings


@pytest.mark.parametrize("chosen", [{"z": 0}, {"t": 0}, {"z": Projection.MAX}, {"z": Projection.MEAN}, {"c": (0, 1, 2)}])
@pytest.mark.parametrize("form", ["jpeg", "tiff"])
def test_the_only_plane_of_a_picture_in_cmyk_can_be_chosen(form, chosen):
    file = io.BytesIO()
    Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(file, form)
    shown, found = (
        render(pictured(file.getvalue()), use_profile=True).rgb,
        render(pictured(file.getvalue(), **chosen), use_profile=True).rgb,
    )
    assert np.array_equal(found, shown)
    assert found.shape == (HEIGHT, WIDTH, 3)
