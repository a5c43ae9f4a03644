"""One real cell in every encoding that is accepted: the same tensor, the same pictures, the same metadata.

`ENCODINGS=2000 pytest tests/images/test_every_encoding.py` (or `make encodings`) tries more of them than the default run.
"""

import io
import os
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from infrastructure.images.inspection import inspect
from infrastructure.images.validation import ImageLimits, examine
from infrastructure.inference.models.bundled import models
from infrastructure.inference.models.manifest import load_manifest
from infrastructure.inference.preprocessing import colours, normalised, prepare_with_warnings, resized
from tests.images import cell, encoding_strategy, encodings, written

COUNT = int(os.environ.get("ENCODINGS", "200"))
SEED = int(os.environ.get("SEED", "20261128"))
LIMITS = ImageLimits()
MAX_PREVIEW_DIFFERENCE = 3.0
"""Mean absolute difference of a preview, which is itself a JPEG, from the rendering of the written array, of 255."""
MAX_PREVIEW_LOSS = 2.0
"""What the preview's own JPEG may add to the loss of a lossy file."""
HOW = load_manifest(models() / "pbc8").preprocessing


@cache
def cells():
    return cell(), cell(47, 61)


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def difference(one, other):
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def tensor_colours(rgb):
    return colours(normalised(resized(Image.fromarray(rgb), HOW), HOW), HOW)


def check(encoding, of):
    file = written(of, encoding)
    header, _ = examine(io.BytesIO(file.data), limits=LIMITS)
    found = inspect(file.data, limits=LIMITS)
    prepared = prepare_with_warnings(file.data, HOW)

    facts = (found.width, found.height, found.bands, found.dtype, found.pages, found.axes)
    assert facts == (file.width, file.height, file.bands, file.dtype, file.pages, file.axes)
    assert (header.width, header.height, header.bands, header.pages) == (file.width, file.height, file.bands, file.pages)
    assert found.pixel_size_um == (None if file.pixel_size_um is None else pytest.approx(file.pixel_size_um, rel=1e-3))
    assert {it.code for it in found.warnings} == {it.code for it in prepared.warnings} == set(file.warnings)
    assert difference(colours(prepared.tensor, HOW), tensor_colours(file.expected)) <= file.tolerance
    for picture in filter(None, (found.thumbnail, found.preview)):
        assert pixels(picture).shape == file.expected.shape
        assert difference(pixels(picture), file.expected) <= max(MAX_PREVIEW_DIFFERENCE, file.tolerance + MAX_PREVIEW_LOSS)


@pytest.mark.parametrize("encoding", encodings(SEED, COUNT), ids=str)
def test_a_cell_looks_the_same_in_every_encoding(encoding):
    check(encoding, cells()[0])


@settings(max_examples=50, deadline=None)
@given(encoding_strategy())
def test_a_smaller_cell_looks_the_same_in_any_encoding(encoding):
    check(encoding, cells()[1])
