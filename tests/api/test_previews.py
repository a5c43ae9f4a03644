"""Previews, thumbnails and downloads: their addresses, their wait for the inspection, and how long an address stays the same."""

import asyncio
import io
from datetime import datetime
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import pytest
from PIL import Image

from application.derivatives import preview_of, thumbnail_of
from infrastructure.blobs.store import open_blobs
from infrastructure.security.keys import RootKey
from tests.api.conftest import ApiWithProjector
from tests.api.http_calls import PICTURE, assert_refused, dataset, image_in, share, stored, upload
from tests.api.observed_position import ObservedPosition
from tests.api.worker_events import WorkerEvents
from tests.rigs.hostile_images import page, png, tiff

pytestmark = pytest.mark.anyio

IMAGES = "/api/images/"
STACK = tiff(page())
HOUR = 3600.0
SOON = 10.0  # seconds in which an answer must come that would otherwise wait for an hour


def deep_png():
    """16 bits a sample."""
    file = io.BytesIO()
    Image.new("I;16", (40, 30), 4000).save(file, "PNG")
    return file.getvalue()


class Waiting(ApiWithProjector):
    """The same services behind another application, with limits of its own."""

    def __init__(self, api, *, seconds=HOUR, slots=64, blobs=None):
        self.read_position = ObservedPosition(api.services.read_position)
        services = msgspec.structs.replace(api.services, read_position=self.read_position, blobs=blobs or api.services.blobs)
        super().__init__(services, msgspec.structs.replace(api.options, preview_wait_seconds=seconds, max_preview_waits=slots))

    def same(self, http):
        """The caller of `http`."""
        return self.anonymous(Authorization=http.headers["Authorization"])

    async def started(self, requests):
        """Start requests, each once the one before waits."""
        tasks = []
        for number, request in enumerate(requests, 1):
            tasks.append(asyncio.create_task(request))
            while self.read_position.waits < number:
                await asyncio.sleep(0.001)
        return tasks


async def uploaded(http, data=STACK, filename="stack.ome.tif"):
    """The id of a new image, and its file's sha256."""
    image = await image_in(http, await dataset(http), data, filename)
    return image, (await http.get(f"{IMAGES}{image}")).json()["sha256"]


async def bytes_at(api, answer):
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"url", "expires_in", "filename"}
    return await api.anonymous().get(body["url"])


# ---- what an address gives ---------------------------------------------------------------------------------------------------------
async def test_a_preview_and_a_download_need_no_header(api):
    http = await api.client()
    image = await image_in(http, await dataset(http), filename="é cell.jpg")
    shown = await bytes_at(api, await http.get(f"{IMAGES}{image}/preview"))
    assert (shown.status_code, shown.content, shown.headers["content-type"]) == (200, PICTURE, "image/jpeg")
    assert shown.headers["content-disposition"].startswith("inline")
    accepted = await bytes_at(api, await http.get(f"{IMAGES}{image}/download"))
    assert (accepted.content, accepted.headers["content-type"]) == (PICTURE, "image/jpeg")
    assert accepted.headers["content-disposition"] == "attachment; filename=\"_ cell.jpg\"; filename*=UTF-8''%C3%A9%20cell.jpg"


async def test_what_a_browser_cannot_draw_is_previewed_as_a_jpeg_made_of_it(api):
    http, workers, blobs = await api.client(), WorkerEvents(api), api.services.blobs
    image, sha256 = await uploaded(http)
    blobs.put_derived(thumbnail_of(sha256, 2), b"small", "image/jpeg")
    await workers.accept(image)
    assert (await bytes_at(api, await http.get(f"{IMAGES}{image}/preview"))).content == b"small"
    blobs.put_derived(preview_of(sha256, 2), b"large", "image/jpeg")
    shown = await bytes_at(api, await http.get(f"{IMAGES}{image}/preview"))
    assert (shown.content, shown.headers["content-type"]) == (b"large", "image/jpeg")
    assert "stack.ome.jpg" in shown.headers["content-disposition"]
    assert (await bytes_at(api, await http.get(f"{IMAGES}{image}/thumbnail"))).content == b"small"
    accepted = await bytes_at(api, await http.get(f"{IMAGES}{image}/download"))
    assert (accepted.content, accepted.headers["content-type"]) == (STACK, "image/tiff")


async def test_pictures_are_those_of_the_reader_that_inspected_the_image_last(api):
    http, workers, blobs = await api.client(), WorkerEvents(api), api.services.blobs
    image, sha256 = await uploaded(http)
    for reader in (1, 2):
        blobs.put_derived(thumbnail_of(sha256, reader), f"small {reader}".encode(), "image/jpeg")
        blobs.put_derived(preview_of(sha256, reader), f"large {reader}".encode(), "image/jpeg")
    await workers.accept(image, reader=1)
    assert (await bytes_at(api, await http.get(f"{IMAGES}{image}/preview"))).content == b"large 1"
    await workers.reinspect(image, reader=2)
    assert (await bytes_at(api, await http.get(f"{IMAGES}{image}/preview"))).content == b"large 2"
    assert (await bytes_at(api, await http.get(f"{IMAGES}{image}/thumbnail"))).content == b"small 2"


async def test_an_accepted_image_whose_pictures_are_lost_is_not_found(api):
    http = await api.client()
    image, _ = await uploaded(http)
    await WorkerEvents(api).accept(image)
    answer = await http.get(f"{IMAGES}{image}/preview")
    assert_refused(answer, 404, "not_found")
    assert "retry-after" not in answer.headers


async def test_a_png_of_16_bits_is_previewed_by_what_was_made_of_it(api):
    http, workers = await api.client(), WorkerEvents(api)
    image, sha256 = await uploaded(http, deep_png(), "deep.png")
    await workers.accept(image, dtype="uint16")
    assert (await bytes_at(api, await http.get(f"{IMAGES}{image}/preview"))).content == deep_png()
    api.services.blobs.put_derived(preview_of(sha256, 2), b"stretched", "image/jpeg")
    assert (await bytes_at(api, await http.get(f"{IMAGES}{image}/preview"))).content == b"stretched"


async def test_a_service_with_the_scope_reads_and_gets_an_address_inside(api, lab_settings):
    http = await api.client()
    image = await image_in(http, await dataset(http))
    tokens = api.services.access_tokens
    at = datetime.now().astimezone()
    reader = tokens.issue_service(name="classifier", scopes=frozenset({"images:read"}), seconds=600, at=at)
    other = tokens.issue_service(name="other", scopes=frozenset(), seconds=600, at=at)
    service = api.anonymous(Authorization=f"Bearer {reader}")
    body = (await service.get(f"{IMAGES}{image}/download")).json()
    assert body["url"].startswith(f"http://{lab_settings.host}:{lab_settings.port}/api/blobs/")
    assert (await api.anonymous().get(body["url"])).content == PICTURE
    assert_refused(await api.anonymous(Authorization=f"Bearer {other}").get(f"{IMAGES}{image}/download"), 403)
    assert [one["id"] for one in (await service.get(IMAGES)).json()] == [image]
    assert_refused(await service.delete(f"{IMAGES}{image}"), 403)
    assert_refused(await upload(service, str(uuid4())), 403)


# ---- lifetimes ---------------------------------------------------------------------------------------------------------------------
LIVES = [("preview", None, 3600), ("download", None, 300), ("preview", 60, 60), ("download", 604_800, 3600), ("thumbnail", 90, 90)]


async def test_an_address_states_what_is_granted_and_cannot_be_asked_for_any_time(api):
    http = await api.client()
    image = await image_in(http, await dataset(http))
    await WorkerEvents(api).accept(image)
    for path, query, granted in LIVES:
        body = (await http.get(f"{IMAGES}{image}/{path}", params={"expires_in": query} if query else {})).json()
        assert (body["expires_in"], body["filename"]) == (granted, "cell.jpg")
    for seconds in ("59", "604801", "0", "-1", "x", "1.5"):
        for path in ("preview", "download", "thumbnail"):
            assert_refused(await http.get(f"{IMAGES}{image}/{path}", params={"expires_in": seconds}), 422)


async def test_an_address_works_for_at_least_the_time_that_is_stated(api):
    http = await api.client()
    image = await image_in(http, await dataset(http))
    await WorkerEvents(api).accept(image)
    for path, query, granted in LIVES:
        body = (await http.get(f"{IMAGES}{image}/{path}", params={"expires_in": query} if query else {})).json()
        signed = api.services.unseal_address(urlsplit(body["url"]).path.removeprefix("/api/blobs/"))
        remaining = signed.ends - datetime.now().timestamp()
        assert granted - SOON < remaining <= granted * 1.25


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


async def test_repeated_requests_give_one_address_until_the_window_ends(api, lab_settings):
    clock, http = Clock(), await api.client()
    image = await image_in(http, await dataset(http))
    await WorkerEvents(api).accept(image)
    blobs = open_blobs(lab_settings, RootKey.read(lab_settings.root_key_path), clock=clock)
    same = Waiting(api, blobs=blobs).same(http)
    for path in ("preview", "thumbnail", "download"):
        addresses = []
        for second in (1, 14, 16):
            clock.now = Clock.now + second
            addresses.append((await same.get(f"{IMAGES}{image}/{path}", params={"expires_in": 60})).json()["url"])
        assert addresses[0] == addresses[1] != addresses[2]


async def test_another_name_is_another_address(api):
    http = await api.client()
    image = await image_in(http, await dataset(http))
    before = (await http.get(f"{IMAGES}{image}/preview")).json()["url"]
    await http.patch(f"{IMAGES}{image}", json={"filename": "renamed.jpg"})
    assert (await http.get(f"{IMAGES}{image}/preview")).json()["url"] != before


async def test_the_answer_that_holds_an_address_is_not_kept(api):
    http = await api.client()
    image = await image_in(http, await dataset(http))
    assert (await http.get(f"{IMAGES}{image}/preview")).headers["cache-control"] == "no-store"


# ---- waiting for the inspection ----------------------------------------------------------------------------------------------------
async def test_a_stack_asked_for_at_once_gets_its_pictures_when_they_are_made(api):
    http, blobs = await api.client(), api.services.blobs
    image, sha256 = await uploaded(http)
    waiting = Waiting(api)
    async with asyncio.timeout(SOON):
        query = await waiting.started(waiting.same(http).get(f"{IMAGES}{image}/{path}") for path in ("preview", "thumbnail"))
        blobs.put_derived(preview_of(sha256, 2), b"large", "image/jpeg")
        blobs.put_derived(thumbnail_of(sha256, 2), b"small", "image/jpeg")
        await WorkerEvents(api).accept(image)
        preview, thumbnail = await asyncio.gather(*query)
    assert (await bytes_at(api, preview)).content == b"large"
    assert (await bytes_at(api, thumbnail)).content == b"small"


async def test_a_png_of_16_bits_asked_for_at_once_waits_for_its_picture(api):
    http = await api.client()
    image, sha256 = await uploaded(http, deep_png(), "deep.png")
    waiting = Waiting(api)
    async with asyncio.timeout(SOON):
        (query,) = await waiting.started([waiting.same(http).get(f"{IMAGES}{image}/preview")])
        api.services.blobs.put_derived(preview_of(sha256, 2), b"stretched", "image/jpeg")
        await WorkerEvents(api).accept(image, dtype="uint16")
        assert (await bytes_at(api, await query)).content == b"stretched"


async def test_an_image_that_browsers_draw_is_previewed_without_a_wait(api):
    http = await api.client()
    for data, filename in ((PICTURE, "cell.jpg"), (png(), "cell.png")):
        image, _ = await uploaded(http, data, filename)
        async with asyncio.timeout(SOON):
            answer = await Waiting(api).same(http).get(f"{IMAGES}{image}/preview")
        assert (await bytes_at(api, answer)).content == data


async def test_a_thumbnail_of_any_image_waits(api):
    http = await api.client()
    image, sha256 = await uploaded(http, PICTURE, "cell.jpg")
    waiting = Waiting(api)
    async with asyncio.timeout(SOON):
        (query,) = await waiting.started([waiting.same(http).get(f"{IMAGES}{image}/thumbnail")])
        api.services.blobs.put_derived(thumbnail_of(sha256, 2), b"small", "image/jpeg")
        await WorkerEvents(api).accept(image)
        assert (await bytes_at(api, await query)).content == b"small"


async def test_a_request_that_waits_for_a_rejected_image_gets_the_reason(api):
    http = await api.client()
    image, _ = await uploaded(http)
    waiting = Waiting(api)
    async with asyncio.timeout(SOON):
        query = await waiting.started(waiting.same(http).get(f"{IMAGES}{image}/{path}") for path in ("preview", "thumbnail"))
        await WorkerEvents(api).reject(image)
        waited = await asyncio.gather(*query)
        later = [await waiting.same(http).get(f"{IMAGES}{image}/{path}") for path in ("preview", "thumbnail")]
    for answer in (*waited, *later):
        assert_refused(answer, 404, "not_found")
        assert "It is torn." in answer.json()["detail"]
        assert answer.json()["reason"] == "decode_failed"
        assert "retry-after" not in answer.headers


def check_pending(answer):
    assert_refused(answer, 404, "not_found")
    assert "still being inspected" in answer.json()["detail"]
    assert answer.json()["reason"] == "inspection_pending"
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["cache-control"] == "no-store"


async def test_the_wait_ends_and_says_when_to_ask_again(api):
    http = await api.client()
    image, _ = await uploaded(http)
    waiting = Waiting(api, seconds=0.05)
    for path in ("preview", "thumbnail"):
        check_pending(await waiting.same(http).get(f"{IMAGES}{image}/{path}"))
    assert waiting.read_position.waits >= 2


async def test_by_default_the_wait_lasts_two_seconds(api):
    assert api.options.preview_wait_seconds == 2.0


async def test_where_too_many_wait_already_the_answer_comes_at_once(api):
    http = await api.client()
    image, _ = await uploaded(http)
    waiting = Waiting(api, slots=2)
    async with asyncio.timeout(SOON):
        query = await waiting.started(waiting.same(http).get(f"{IMAGES}{image}/preview") for _ in range(2))
        check_pending(await waiting.same(http).get(f"{IMAGES}{image}/preview"))
        await WorkerEvents(api).reject(image)
        await asyncio.gather(*query)


async def test_more_requests_wait_than_there_are_connections_and_others_are_served(api):
    http = await api.client()
    image, _ = await uploaded(http)
    waiting = Waiting(api, slots=120)
    same = waiting.same(http)
    async with asyncio.timeout(3 * SOON):
        query = await waiting.started(same.get(f"{IMAGES}{image}/preview") for _ in range(120))
        assert (await same.get(f"{IMAGES}{image}")).status_code == 200, "admission control does not count those who wait"
        await WorkerEvents(api).reject(image)
        answers = await asyncio.gather(*query)
    assert {answer.json()["reason"] for answer in answers} == {"decode_failed"}


async def test_a_foreign_deleted_or_absent_image_is_refused_at_once(api):
    owner, stranger = await api.client(), await api.client()
    pending, _ = await uploaded(owner)
    deleted, _ = await uploaded(owner)
    await owner.delete(f"{IMAGES}{deleted}")
    waiting = Waiting(api)
    async with asyncio.timeout(SOON):
        for http, image in ((stranger, pending), (owner, deleted), (owner, uuid4())):
            for path in ("preview", "thumbnail"):
                answer = await waiting.same(http).get(f"{IMAGES}{image}/{path}")
                assert_refused(answer, 404, "not_found")
                assert answer.json()["detail"] == "Image not found"
                assert "retry-after" not in answer.headers


async def test_a_wait_ends_when_the_image_is_deleted_or_the_share_withdrawn(api):
    owner, reader = await api.client(), await api.client("viewer")
    cells = await dataset(owner)
    kept, deleted = [await image_in(owner, cells, STACK, "stack.tif") for _ in range(2)]
    await share(owner, cells, reader)
    reader_id = (await reader.get("/api/users/me")).json()["id"]
    waiting = Waiting(api)
    async with asyncio.timeout(SOON):
        query = await waiting.started(
            waiting.same(http).get(f"{IMAGES}{image}/preview") for http, image in ((owner, deleted), (reader, kept))
        )
        assert (await owner.delete(f"{IMAGES}{deleted}")).status_code == 204
        assert (await owner.delete(f"/api/datasets/{cells}/shares/{reader_id}")).status_code == 204
        for answer in await asyncio.gather(*query):
            assert_refused(answer, 404, "not_found")
            assert answer.json()["detail"] == "Image not found"


async def test_a_wait_ends_when_the_server_stops(api):
    http = await api.client()
    image, _ = await uploaded(http)
    waiting = Waiting(api)
    async with asyncio.timeout(SOON):
        (query,) = await waiting.started([waiting.same(http).get(f"{IMAGES}{image}/preview")])
        waiting.app.drain()
        check_pending(await query)
        check_pending(await waiting.same(http).get(f"{IMAGES}{image}/preview"))


async def test_a_wait_ends_when_the_client_disconnects(api):
    http = await api.client()
    image, _ = await uploaded(http)
    waiting, remaining = Waiting(api), asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    sent = []

    async def receive():
        if messages:
            return messages.pop()
        await remaining.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message["type"])

    async with asyncio.timeout(SOON):
        (query,) = await waiting.started([waiting.app(scope_of(http, f"{IMAGES}{image}/preview"), receive, send)])
        remaining.set()
        await query


def scope_of(http, path):
    headers = [(b"host", b"127.0.0.1"), (b"authorization", http.headers["Authorization"].encode())]
    about = {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http"}
    return {"type": "http", "http_version": "1.1", "asgi": {"version": "3.0"}, "headers": headers, "client": ("127.0.0.1", 1)} | about


async def test_a_pending_png_whose_file_is_lost_or_damaged_breaks_nothing(api, lab_settings):
    http = await api.client()
    lost, sha256 = await uploaded(http, png(), "lost.png")
    torn, other = await uploaded(http, deep_png(), "torn.png")
    waiting = Waiting(api, seconds=0.05)
    files = {path.name: path for path in stored(lab_settings)}
    files[sha256].unlink()
    files[other].write_bytes(b"\x89PNG")
    assert_refused(await waiting.same(http).get(f"{IMAGES}{lost}/preview"), 404, "not_found")
    assert (await waiting.same(http).get(f"{IMAGES}{torn}/preview")).status_code == 200
