"""Signed addresses of the local route: they reveal nothing, and end with the image, the share, the session or the account."""

import asyncio
import base64
import time
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import pytest

from application.derivatives import thumbnail_of
from application.signed_downloads import Holder
from infrastructure.container import services
from tests.api.conftest import ApiWithProjector
from tests.api.http_calls import PICTURE, dataset, id_of, image_in, session_of, share
from tests.api.worker_events import WorkerEvents

pytestmark = pytest.mark.anyio

IMAGES = "/api/images/"
KINDS = ("preview", "thumbnail", "download")
EFFECTIVE_WITHIN = 10.0  # seconds


async def pictured(api, http, cells, filename="cell.jpg"):
    """The id of an image that has all that addresses can lead to."""
    image = await image_in(http, cells, filename=filename)
    sha256 = (await http.get(f"{IMAGES}{image}")).json()["sha256"]
    api.services.blobs.put_derived(thumbnail_of(sha256, 2), b"small", "image/jpeg")
    await WorkerEvents(api).accept(image)
    return image


async def addresses(http, image, kinds=KINDS):
    return [(await http.get(f"{IMAGES}{image}/{kind}")).json()["url"] for kind in kinds]


async def statuses(api, urls, **headers):
    """Of requests that carry nothing but the address: GET, HEAD, a part, and what a browser has already."""
    http, found = api.anonymous(**headers), []
    for url in urls:
        found += [(await http.get(url)).status_code, (await http.head(url)).status_code]
        found += [(await http.get(url, headers=more)).status_code for more in ({"Range": "bytes=0-1"}, {"If-None-Match": "*"})]
    return set(found)


WORK = {200, 206, 304}


async def test_addresses_end_when_the_image_is_deleted(api):
    http = await api.client()
    image = await pictured(api, http, await dataset(http))
    urls = await addresses(http, image)
    assert await statuses(api, urls) == WORK
    assert (await http.delete(f"{IMAGES}{image}")).status_code == 204
    assert await statuses(api, urls) == {404}


async def test_addresses_end_when_the_dataset_is_deleted(api):
    http = await api.client()
    cells = await dataset(http)
    urls = await addresses(http, await pictured(api, http, cells))
    assert (await http.delete(f"/api/datasets/{cells}")).status_code == 204
    assert await statuses(api, urls) == {404}


async def test_addresses_end_when_the_share_is_withdrawn_and_work_again_with_it(api):
    owner, reader = await api.client(), await api.client("viewer")
    cells = await dataset(owner)
    image = await pictured(api, owner, cells)
    await share(owner, cells, reader)
    own, shared = await addresses(owner, image), await addresses(reader, image)
    assert await statuses(api, shared) == WORK
    assert (await owner.delete(f"/api/datasets/{cells}/shares/{await id_of(reader)}")).status_code == 204
    assert await statuses(api, shared) == {404}
    assert await statuses(api, own) == WORK
    await share(owner, cells, reader)
    assert await statuses(api, shared) == WORK


async def test_addresses_end_with_their_session_and_not_with_another(api):
    account = api.account()
    leaving, staying = await api.signed_in(account), await api.signed_in(account)
    image = await pictured(api, leaving, await dataset(leaving))
    remaining, kept = await addresses(leaving, image), await addresses(staying, image)
    assert not set(remaining) & set(kept)
    assert (await leaving.post("/api/auth/logout")).status_code == 204
    assert await statuses(api, remaining) == {403}
    assert await statuses(api, kept) == WORK


@pytest.mark.parametrize("end", ["suspended", "deleted"])
async def test_addresses_end_with_their_account(api, end):
    http, admin = await api.client(), await api.client("admin")
    urls = await addresses(http, await pictured(api, http, await dataset(http)))
    account = f"/api/users/users/{await id_of(http)}"
    answer = await (admin.delete(account) if end == "deleted" else admin.patch(account, json={"status": "suspended"}))
    assert answer.is_success, answer.text
    assert await statuses(api, urls) == {403}


async def test_an_address_gives_nothing_that_its_holder_may_not_see(api):
    """As if somebody had exchanged the image in it."""
    owner, other = await api.client(), await api.client()
    image = UUID(await pictured(api, owner, await dataset(owner)))
    about = {"filename": "x", "media_type": "image/jpeg", "inline": True, "seconds": 60}
    given = [(image, Holder(session_of(api, other))), (uuid4(), Holder(session_of(api, owner))), (image, Holder(uuid4()))]
    made = [api.services.blobs.signed_url("a" * 64, image_id=one, holder=holder, **about) for one, holder in given]
    assert [await statuses(api, [url]) for url in made] == [{404}, {404}, {403}]


async def test_nothing_but_the_address_says_who_asks(api):
    """A signed-in stranger gets what the address gives, and a header that is nonsense changes nothing."""
    owner, stranger = await api.client(), await api.client()
    urls = await addresses(owner, await pictured(api, owner, await dataset(owner)))
    for header in (stranger.headers["Authorization"], "Bearer nonsense"):
        assert await statuses(api, urls, Authorization=header) == WORK


async def test_a_service_has_addresses_that_end_with_its_token_and_with_the_image(api):
    http = await api.client()
    image = await pictured(api, http, await dataset(http))
    tokens, seconds = api.services.access_tokens, 100
    token = tokens.issue_service(name="reader", scopes=frozenset({"images:read"}), seconds=seconds, at=datetime.now(UTC))
    service = api.anonymous(Authorization=f"Bearer {token}")
    asked = time.time()
    answers = [(await service.get(f"{IMAGES}{image}/{kind}")).json() for kind in KINDS]
    urls = [one["url"] for one in answers]
    assert await statuses(api, urls) == WORK
    for one in answers:
        signed = api.services.unseal_address(token_of(one["url"]))
        assert one["expires_in"] <= signed.ends - asked + 1 <= seconds + 1
    await http.delete(f"{IMAGES}{image}")
    assert await statuses(api, urls) == {404}


async def test_another_process_and_the_next_one_take_them_and_learn_within_ten_seconds_that_they_ended(api, lab_settings):
    http = await api.client()
    cells = await dataset(http)
    gone, kept = await pictured(api, http, cells), await pictured(api, http, cells, "other.jpg")
    of_gone, of_kept = await addresses(http, gone), await addresses(http, kept)
    other = ApiWithProjector(services(lab_settings), api.options)
    async with other.app.lifespan():
        assert await statuses(other, of_gone + of_kept) == WORK
        began = time.monotonic()
        await http.delete(f"{IMAGES}{gone}")
        assert (await http.post("/api/auth/logout")).status_code == 204
        assert await statuses(other, of_gone) <= {403, 404}
        while await statuses(other, of_kept) != {403}:
            assert time.monotonic() - began < EFFECTIVE_WITHIN
            await asyncio.sleep(0.2)


def token_of(url):
    return urlsplit(url).path.removeprefix("/api/blobs/")


NAMES = ["carcinoma.jpg", "Zelle ä.jpg", "Byron, Ada 1815-12-10.jpg", "slide-A1.jpg"]  # too long for a random address to spell


async def test_an_address_reveals_no_name_and_no_id(api):
    http = await api.client()
    cells = await dataset(http)
    for name in NAMES:
        image = await pictured(api, http, cells, name)
        row = (await http.get(f"{IMAGES}{image}")).json()
        ids = [UUID(image), UUID(cells), UUID(await id_of(http)), session_of(api, http)]
        for url in await addresses(http, image):
            shown = unquote(url)
            hidden = base64.urlsafe_b64decode(token_of(url).removeprefix("3."))
            assert len(hidden) == 87
            for text in (name, name.partition(".")[0], row["sha256"], *map(str, ids)):
                assert text not in shown
                assert text.encode() not in hidden
            assert not [one for one in (*(one.bytes for one in ids), bytes.fromhex(row["sha256"])) if one[:8] in hidden]


async def test_a_refreshed_token_of_the_same_session_gets_the_same_address(api):
    http = api.anonymous()
    body = (await http.post("/api/auth/login", json={"email": api.account(), "password": "correct horse battery 9"})).json()
    http.headers["Authorization"] = f"Bearer {body['access_token']}"
    image = await pictured(api, http, await dataset(http))
    first = await addresses(http, image)
    renewed = (await http.post("/api/auth/refresh", json={"refresh_token": body["refresh_token"]})).json()
    with_the_new = {"Authorization": f"Bearer {renewed['access_token']}"}
    second = await addresses(api.anonymous(**with_the_new), image)
    third = await addresses(http, image)
    assert second in (first, third), "the same window as before, or as after"
    assert (await api.anonymous().get(first[0])).content == PICTURE
