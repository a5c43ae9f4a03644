"""YCbCr pages of a TIFF: the tags that define the conversion to RGB, and rare forms."""

import io
import zlib

import numpy as np
import pytest

from domain.errors import UnsupportedImage
from infrastructure.images.validation import ImageLimits, examine
from infrastructure.inference.preprocessing import rendered
from tests.images.tiff_writer import RATIONAL, Directory, Form, Tag, tiff_bytes
from tests.images.tiff_writer import SHORT as SHORT_TAG
from tests.rigs.hostile_images import LONG, SHORT, jpeg, page, tiff

BT_709 = {529: Tag(RATIONAL, (2126, 10_000, 7152, 10_000, 722, 10_000))}
VIDEO_RANGE = {532: Tag(RATIONAL, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1))}


def page_of(pixels, tags):
    """Uncompressed, without subsampling."""
    height, width = pixels.shape[:2]
    sizes = {256: [width], 257: [height], 258: [8] * 3, 262: [6], 277: [3], 279: [pixels.size], 530: [1, 1]}
    stated = {number: Tag(SHORT_TAG, values) for number, values in sizes.items()}
    return tiff_bytes([Directory(tags=stated | tags, offsets_tag=273, data=(pixels.tobytes(),))], Form())


@pytest.mark.parametrize(
    ("tags", "stored", "shown"),
    [
        ({}, [100, 60, 200], [201, 72, 0]),
        (VIDEO_RANGE, [16, 128, 128], [0, 0, 0]),
        (VIDEO_RANGE, [235, 128, 128], [255, 255, 255]),
        (VIDEO_RANGE, [126, 128, 240], [255, 37, 128]),
        (BT_709, [100, 128, 200], [213, 66, 100]),
        (BT_709 | VIDEO_RANGE, [126, 240, 128], [128, 104, 255]),
    ],
)
def test_stated_coefficients_and_ranges_are_used(tags, stored, shown):
    pixels = np.full((4, 4, 3), stored, np.uint8)
    np.testing.assert_allclose(rendered(page_of(pixels, tags)).rgb[0, 0].astype(int), shown, atol=1)


@pytest.mark.parametrize(
    "impossible", [{529: Tag(RATIONAL, (1, 1, 0, 1, 0, 1))}, {532: Tag(RATIONAL, (16, 1, 16, 1, 128, 1, 240, 1, 128, 1, 240, 1))}]
)
def test_a_conversion_that_cannot_be_computed_is_refused_at_upload(impossible):
    with pytest.raises(UnsupportedImage, match="Save it as RGB"):
        examine(io.BytesIO(page_of(np.zeros((4, 4, 3), np.uint8), impossible)), limits=ImageLimits())


def test_planes_that_are_stored_apart_as_jpeg_are_converted():
    planes = [jpeg(16, 16, mode="L")] * 3
    offsets = [16 + sum(map(len, planes[:number])) for number in range(3)]
    tags = {"t258": (SHORT, [8] * 3), "t259": (SHORT, [7]), "t262": (SHORT, [6]), "t277": (SHORT, [3]), "t284": (SHORT, [2])}
    places = {"t273": (LONG, offsets), "t279": (LONG, list(map(len, planes))), "t530": (SHORT, [1, 1])}
    rgb = rendered(tiff(page(16, 16, **tags, **places), pixels=b"".join(planes))).rgb
    grey = rendered(tiff(page(16, 16, t259=(SHORT, [7]), t279=(LONG, [len(planes[0])])), pixels=planes[0])).rgb[:, :, 0].astype(int)
    np.testing.assert_allclose(rgb[:, :, 2], np.clip(grey + 1.772 * (grey - 128), 0, 255), atol=1)


def test_differences_of_subsampled_colours_are_refused_at_upload():
    packed = zlib.compress(bytes(96))
    tags = {"t258": (SHORT, [8] * 3), "t259": (SHORT, [8]), "t262": (SHORT, [6]), "t277": (SHORT, [3]), "t317": (SHORT, [2])}
    with pytest.raises(UnsupportedImage, match="Save it without a predictor"):
        examine(io.BytesIO(tiff(page(**tags, t279=(LONG, [len(packed)])), pixels=packed)), limits=ImageLimits())
