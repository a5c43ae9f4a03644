"""Signed addresses: complete and partial downloads, and refusals."""

import hashlib
import re
import time
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.blobs import PIECE_BYTES, matches, requested_part
from application.derivatives import preview_of
from application.ports import Command
from application.signed_downloads import LocalAddress
from domain import image
from infrastructure.security.keys import RootKey
from infrastructure.security.signed_urls import seal
from tests.api.http_calls import assert_refused, dataset, session_of
from tests.api.worker_events import SYSTEM, now

pytestmark = pytest.mark.anyio

LONG = bytes(range(256)) * (3 * PIECE_BYTES // 256) + b"end"


@pytest.fixture
async def address(api, lab_settings):
    """The address of bytes that are stored as an image of somebody who is signed in, or of a picture of it in `folder`."""
    root = RootKey.read(lab_settings.root_key_path)
    http = await api.client()
    cells, owner = await dataset(http), session_of(api, http)

    async def address(data=LONG, *, media_type="image/jpeg", inline=True, seconds=60, filename="cell.jpg", sha256=None, folder=""):
        writer = api.services.blobs.begin()
        writer.write(data)
        stored, size = writer.commit()
        file = {"filename": filename, "sha256": sha256 or stored, "size": size, "media_type": media_type, "width": 64, "height": 48}
        uploaded = image.upload(uuid4(), dataset=UUID(cells), device=None, **file, by=SYSTEM.id, at=now())
        appended = api.services.log.append(Command(id=uuid4(), actor=SYSTEM, at=now()), uploaded)
        assert await api.services.read_position.wait(appended.position, 5)
        ends = int(time.time()) + seconds
        about = {"image_id": uploaded.originator_id, "holder_id": owner, "is_service": False, "label": bytes(9)}
        return f"/api/blobs/{seal(root, LocalAddress(folder=folder, inline=inline, ends=ends, **about))}"

    return address


async def test_an_address_gives_the_bytes_and_nothing_that_runs(api, address):
    http = api.anonymous()
    answer = await http.get(await address())
    assert (answer.status_code, answer.content) == (200, LONG)
    body = answer.headers
    assert (body["content-type"], body["content-length"]) == ("image/jpeg", str(len(LONG)))
    assert body["etag"] == f'"{hashlib.sha256(LONG).hexdigest()}"'
    assert (body["x-content-type-options"], body["accept-ranges"]) == ("nosniff", "bytes")
    assert body.get_list("cross-origin-resource-policy") == ["cross-origin"]
    assert "default-src 'none'" in body["content-security-policy"]
    assert body["content-disposition"].startswith("inline")
    page = await http.get(await address(b"<script>", media_type="text/html", filename="a.html"))
    assert page.headers["content-type"] == "application/octet-stream"
    assert page.headers["content-disposition"].startswith("attachment")


async def test_a_head_tells_the_same_without_the_bytes(api, address):
    url = await address()
    body = await api.anonymous().head(url)
    whole = await api.anonymous().get(url)
    assert (body.status_code, body.content) == (200, b"")
    assert _of_the_file(body) == _of_the_file(whole)


def _of_the_file(answer):
    """The headers that do not depend on the request and its time."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return headers | {"cache-control": re.sub(r"max-age=\d+", "max-age=", headers["cache-control"])}


async def test_a_web_page_of_another_origin_may_read_it(api, address):
    answer = await api.anonymous(Origin="http://web.example.org").get(await address())
    assert answer.headers["access-control-allow-origin"] == "http://web.example.org"


PARTS = {
    "bytes=0-0": (0, 1),
    "bytes=0-": (0, len(LONG)),
    "bytes=10-19": (10, 20),
    "bytes=-3": (len(LONG) - 3, len(LONG)),
    f"bytes=-{10**9}": (0, len(LONG)),
    f"bytes=5-{10**9}": (5, len(LONG)),
    f"bytes={PIECE_BYTES - 1}-{2 * PIECE_BYTES}": (PIECE_BYTES - 1, 2 * PIECE_BYTES + 1),
    "bytes=1 - 2": (1, 3),
}


async def test_a_part_is_given_where_it_is_asked_for(api, address):
    http, url = api.anonymous(), await address()
    for expected, (start, end) in PARTS.items():
        answer = await http.get(url, headers={"Range": expected})
        assert (answer.status_code, answer.content) == (206, LONG[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(LONG)}"
        assert (answer.headers["content-length"], answer.headers["content-type"]) == (str(end - start), "image/jpeg")


async def test_a_part_that_is_not_there_is_refused_and_what_is_no_range_gives_all(api, address):
    http, url = api.anonymous(), await address()
    for expected in (f"bytes={len(LONG)}-", "bytes=999999999-", "bytes=-0"):
        answer = await http.get(url, headers={"Range": expected})
        assert_refused(answer, 416)
        assert answer.headers["content-range"] == f"bytes */{len(LONG)}"
    for expected in ("bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=" + "9" * 40 + "-"):
        answer = await http.get(url, headers={"Range": expected})
        assert (answer.status_code, answer.content) == (200, LONG), expected


async def test_a_part_is_only_added_to_what_is_still_the_same(api, address):
    http, url = api.anonymous(), await address()
    tag = (await http.head(url)).headers["etag"]
    same = await http.get(url, headers={"Range": "bytes=0-1", "If-Range": tag})
    changed = await http.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (same.status_code, changed.status_code) == (206, 200)


def test_a_part_of_nothing_is_none():
    assert requested_part(0, None) == (0, 0, 0, True)
    assert requested_part(0, "bytes=0-") is None
    assert requested_part(0, "bytes=-5") is None


async def test_an_address_that_was_changed_or_has_ended_is_refused(api, address):
    http, url = api.anonymous(), await address()
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
    assert_refused(await http.get(await address(seconds=-1)), 403, "forbidden")


async def test_an_address_of_a_deleted_image_is_not_found(api, address):
    http = api.anonymous()
    for folder in ("", "thumbnail/2", "../../keys", "/etc"):
        assert_refused(await http.get(await address(sha256="0" * 64, folder=folder)), 404, "not_found"), folder


def max_age(answer):
    visibility, age, stability = answer.headers["cache-control"].split(", ")
    assert (visibility, stability) == ("private", "immutable")
    return int(age.removeprefix("max-age="))


async def test_the_bytes_may_be_kept_for_as_long_as_their_address_works(api, address):
    http, url = api.anonymous(), await address(seconds=600)
    for headers, status in (({}, 200), ({"Range": "bytes=0-9"}, 206), ({"If-None-Match": "*"}, 304)):
        answer = await http.get(url, headers=headers)
        assert answer.status_code == status
        assert 590 < max_age(answer) <= 600
    assert 590 < max_age(await http.head(url)) <= 600


async def test_no_refusal_is_kept(api, address):
    http = api.anonymous()
    refusals = {
        403: await http.get(await address(seconds=-1)),
        404: await http.get(await address(sha256="0" * 64)),
        405: await http.post(await address()),
        416: await http.get(await address(), headers={"Range": f"bytes={len(LONG)}-"}),
    }
    for status, answer in refusals.items():
        assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")


async def test_what_a_browser_has_already_is_not_sent_again(api, address):
    http, url = api.anonymous(Origin="http://web.example.org"), await address()
    whole = await http.get(url)
    tag = whole.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', f'{tag} , W/"other"', "*"):
        answer = await http.get(url, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), known
        assert answer.headers.get_list("cross-origin-resource-policy") == ["cross-origin"]
        assert answer.headers["access-control-allow-origin"] == "http://web.example.org"
        assert answer.headers["vary"] == whole.headers["vary"]
    part = await http.get(url, headers={"If-None-Match": tag, "Range": "bytes=0-9"})
    absent_part = await http.get(url, headers={"If-None-Match": tag, "Range": f"bytes={len(LONG)}-"})
    assert (part.status_code, absent_part.status_code) == (304, 304)
    assert (await http.head(url, headers={"If-None-Match": tag})).status_code == 304


async def test_what_a_browser_does_not_have_is_sent(api, address):
    http, url = api.anonymous(), await address()
    tag = (await http.head(url)).headers["etag"]
    for other in ('"other"', tag.strip('"'), tag.upper(), f'"{tag}"', tag[:-2] + '"', "", ",", "W/", '"', "é".encode()):
        answer = await http.get(url, headers={"If-None-Match": other})
        assert (answer.status_code, answer.content) == (200, LONG), other


tags = st.from_regex(r'(W/)?"[a-z0-9*/ ]{0,20}"', fullmatch=True)


@given(others=st.lists(tags), tag=st.from_regex(r'"[0-9a-f]{64}"', fullmatch=True), weak=st.booleans(), data=st.data())
def test_a_tag_is_known_exactly_where_the_header_lists_it(others, tag, weak, data):
    assert not matches(tag, ", ".join(others))
    location = data.draw(st.integers(0, len(others)))
    listed = [*others[:location], f"W/{tag}" if weak else tag, *others[location:]]
    assert matches(tag, ", ".join(listed))
    assert matches(tag, ",".join(listed))


async def test_an_ended_or_forged_address_is_refused_whatever_the_browser_has(api, address):
    http, known = api.anonymous(), {"If-None-Match": "*"}
    path, _, token = (await address()).rpartition("/")
    forged = f"{path}/{'A' if token[0] != 'A' else 'B'}{token[1:]}"
    for wrong in (await address(seconds=-1), forged, "/api/blobs/x"):
        assert_refused(await http.get(wrong, headers=known), 403, "forbidden")
    assert_refused(await http.get(await address(sha256="0" * 64, folder="thumbnail/2"), headers=known), 404, "not_found")


async def test_what_was_derived_is_given_in_parts_too(api, address):
    api.services.blobs.put_derived(preview_of("0" * 64, 2), LONG, "image/jpeg")
    http, url = api.anonymous(), await address(sha256="0" * 64, folder="preview/2")
    whole = await http.get(url)
    assert (whole.content, whole.headers["etag"]) == (LONG, f'"{hashlib.sha256(LONG).hexdigest()}"')
    assert (await http.get(url, headers={"Range": "bytes=-3"})).content == b"end"


async def test_an_address_takes_no_other_method(api, address):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await api.anonymous().request(method, await address())).status_code == 405
