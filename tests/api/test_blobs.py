"""Signed addresses: what they give, whole and in parts, and what they refuse."""

import hashlib
import time

import pytest

from api.blobs import PIECE, part_of
from application.derivatives import preview_of, thumbnail_of
from application.downloads import SignedBlob
from infrastructure.keys import RootKey
from infrastructure.signed_urls import sign
from tests.api.people import PICTURE, dataset, image_in, refused

pytestmark = pytest.mark.anyio

LONG = bytes(range(256)) * (3 * PIECE // 256) + b"end"


@pytest.fixture
def address(laboratory, lab_settings):
    """The address of some bytes that are stored."""
    root = RootKey.read(lab_settings.root_key_path)

    def address(data=LONG, *, media_type="image/jpeg", inline=True, seconds=60, filename="cell.jpg", name=None):
        writer = laboratory.services.blobs.begin()
        writer.write(data)
        sha256, _ = writer.commit()
        blob = SignedBlob(name=name or sha256, filename=filename, media_type=media_type, inline=inline, ends=int(time.time()) + seconds)
        return f"/api/blobs/{sign(root, blob)}"

    return address


async def test_an_address_gives_the_bytes_and_nothing_that_runs(laboratory, address):
    http = laboratory.anonymous()
    answer = await http.get(address())
    assert (answer.status_code, answer.content) == (200, LONG)
    told = answer.headers
    assert (told["content-type"], told["content-length"]) == ("image/jpeg", str(len(LONG)))
    assert told["etag"] == f'"{hashlib.sha256(LONG).hexdigest()}"'
    assert (told["x-content-type-options"], told["accept-ranges"]) == ("nosniff", "bytes")
    assert told.get_list("cross-origin-resource-policy") == ["cross-origin"]
    assert "default-src 'none'" in told["content-security-policy"]
    assert told["content-disposition"].startswith("inline")
    page = await http.get(address(b"<script>", media_type="text/html", filename="a.html"))
    assert page.headers["content-type"] == "application/octet-stream"
    assert page.headers["content-disposition"].startswith("attachment")


async def test_a_head_tells_the_same_without_the_bytes(laboratory, address):
    url = address()
    told = await laboratory.anonymous().head(url)
    whole = await laboratory.anonymous().get(url)
    assert (told.status_code, told.content) == (200, b"")
    of_one = {"x-request-id"}
    assert {name: value for name, value in told.headers.items() if name not in of_one} == {
        name: value for name, value in whole.headers.items() if name not in of_one
    }


async def test_a_web_page_of_another_origin_may_read_it(laboratory, address):
    answer = await laboratory.anonymous(Origin="http://web.example.org").get(address())
    assert answer.headers["access-control-allow-origin"] == "http://web.example.org"


PARTS = {
    "bytes=0-0": (0, 1),
    "bytes=0-": (0, len(LONG)),
    "bytes=10-19": (10, 20),
    "bytes=-3": (len(LONG) - 3, len(LONG)),
    f"bytes=-{10**9}": (0, len(LONG)),
    f"bytes=5-{10**9}": (5, len(LONG)),
    f"bytes={PIECE - 1}-{2 * PIECE}": (PIECE - 1, 2 * PIECE + 1),
    "bytes=1 - 2": (1, 3),
}


async def test_a_part_is_given_where_it_is_asked_for(laboratory, address):
    http, url = laboratory.anonymous(), address()
    for wanted, (start, end) in PARTS.items():
        answer = await http.get(url, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (206, LONG[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(LONG)}"
        assert (answer.headers["content-length"], answer.headers["content-type"]) == (str(end - start), "image/jpeg")


async def test_a_part_that_is_not_there_is_refused_and_what_is_no_range_gives_all(laboratory, address):
    http, url = laboratory.anonymous(), address()
    for wanted in (f"bytes={len(LONG)}-", "bytes=999999999-", "bytes=-0"):
        answer = await http.get(url, headers={"Range": wanted})
        assert refused(answer, 416)
        assert answer.headers["content-range"] == f"bytes */{len(LONG)}"
    for wanted in ("bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=" + "9" * 40 + "-"):
        answer = await http.get(url, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (200, LONG), wanted


async def test_a_part_is_only_added_to_what_is_still_the_same(laboratory, address):
    http, url = laboratory.anonymous(), address()
    tag = (await http.head(url)).headers["etag"]
    same = await http.get(url, headers={"Range": "bytes=0-1", "If-Range": tag})
    changed = await http.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (same.status_code, changed.status_code) == (206, 200)


def test_a_part_of_nothing_is_none():
    assert part_of(0, None) == (0, 0, 0, True)
    assert part_of(0, "bytes=0-") is None
    assert part_of(0, "bytes=-5") is None


async def test_an_address_that_was_changed_or_has_ended_is_refused(laboratory, address):
    http, url = laboratory.anonymous(), address()
    path, _, token = url.rpartition("/")
    changed = [
        *(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(0, len(token), 7)),
        token[:-4],
        token + "AAAA",
        "x",
        "." * 50,
        "é" * 9,
        "A" * 5000,
    ]
    for one in changed:
        answer = await http.get(f"{path}/{one}")
        assert answer.status_code in {403, 404}, one
        assert answer.headers["content-type"] == "application/problem+json"
    assert refused(await http.get(address(seconds=-1)), 403, "forbidden")


async def test_an_address_of_what_is_gone_is_told_so(laboratory, address):
    http = laboratory.anonymous()
    for name in ("0" * 64, thumbnail_of("0" * 64), "../../keys/root.key", "thumbnail/../../x", "/etc/passwd"):
        assert refused(await http.get(address(name=name)), 404, "not_found"), name


async def test_what_was_derived_is_given_in_parts_too(laboratory, address):
    laboratory.services.blobs.put_derived(preview_of("0" * 64), LONG, "image/jpeg")
    http, url = laboratory.anonymous(), address(name=preview_of("0" * 64))
    whole = await http.get(url)
    assert (whole.content, whole.headers["etag"]) == (LONG, f'"{hashlib.sha256(LONG).hexdigest()}"')
    assert (await http.get(url, headers={"Range": "bytes=-3"})).content == b"end"


async def test_the_address_of_an_image_says_nothing_of_where_it_is_stored(laboratory):
    http = await laboratory.client()
    image = await image_in(http, await dataset(http))
    said = (await http.get(f"/api/images/{image}/download")).json()
    assert "sha256/" not in said["url"]
    assert (await laboratory.anonymous().get(said["url"], headers={"Range": "bytes=0-9"})).content == PICTURE[:10]


async def test_an_address_takes_no_other_method(laboratory, address):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await laboratory.anonymous().request(method, address())).status_code == 405
