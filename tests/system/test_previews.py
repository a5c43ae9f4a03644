"""Renditions of new uploads, made by the real inspection and served by the real server."""

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from api.cli.client.api_client import RequestRefused
from tests.rigs.waiting import wait_until

FORMATS = Path(__file__).parents[1] / "data" / "formats"


@pytest.fixture(scope="module")
def dataset(researcher):
    return researcher.create_dataset("previews")


def until_made(researcher, path):
    """The answer of `path`, which waits for the inspection, but for 2 s at most."""
    return wait_until(lambda: researcher.get(path), within=30, ignoring=[RequestRefused])


def picture_at(address):
    answer = httpx.get(address["url"])
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as picture:
        return picture.format, picture.size


@pytest.mark.parametrize("name", ["derived/worms_f32_lzw.tif", "derived/worms_u16.png", "real/ht29_dna_u8_packbits.tif"])
@pytest.mark.parametrize("kind", ["preview", "thumbnail"])
def test_a_picture_asked_for_right_after_the_upload_is_there(researcher, dataset, name, kind):
    image = researcher.upload(dataset, FORMATS / name).id
    kept, (width, height) = picture_at(until_made(researcher, f"/api/images/{image}/{kind}"))
    assert kept == "JPEG"
    assert 0 < max(width, height) <= {"preview": 2048, "thumbnail": 256}[kind]


def test_a_picture_may_be_kept_and_is_not_sent_again(researcher, dataset):
    image = researcher.upload(dataset, FORMATS / "derived/worms_f32_lzw.tif").id
    url = until_made(researcher, f"/api/images/{image}/preview")["url"]
    whole = httpx.get(url)
    assert whole.status_code == 200
    again = httpx.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for answer in (whole, again, httpx.head(url)):
        assert answer.headers["cache-control"].startswith("private, max-age=")
