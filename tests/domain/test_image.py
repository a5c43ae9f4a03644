"""Images: uploaded and inspected."""

from uuid import uuid4

import pytest

from domain import image
from domain.errors import Invalid
from tests.given import LATER, NOW

ME = uuid4()


def test_an_image_is_inspected_once():
    uploaded = image.upload(
        uuid4(),
        dataset=uuid4(),
        device=None,
        filename="a.png",
        sha256="00",
        size=1,
        media_type="image/png",
        width=1,
        height=1,
        by=ME,
        at=NOW,
    )
    fresh = image.evolve(None, uploaded)
    rejected = image.evolve(fresh, *image.reject(fresh, reason="truncated", detail="cut", by=ME, at=NOW))
    assert rejected.rejected == "truncated"
    assert image.reject(rejected, reason="other", detail="x", by=ME, at=LATER) == []


def test_an_image_keeps_the_path_that_it_was_uploaded_with():
    about = {"dataset": uuid4(), "device": None, "sha256": "ab", "size": 1, "media_type": "image/png", "width": 1, "height": 1}
    with_path = image.upload(uuid4(), filename="img.tif", path="A1\\img.tif", **about, by=ME, at=NOW)
    assert image.evolve(None, with_path).path == "A1/img.tif"
    without = image.upload(uuid4(), filename="img.tif", **about, by=ME, at=NOW)
    assert image.evolve(None, without).path is None
    with pytest.raises(Invalid):
        image.upload(uuid4(), filename="img.tif", path="../img.tif", **about, by=ME, at=NOW)
