"""Which requests come into the trail of access."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from itertools import chain, product
from types import SimpleNamespace
from uuid import UUID, uuid4

import psycopg
import pytest

from api.access_notes import notes_of
from api.app import router
from api.clock import utc_now
from api.live.feed import LiveFeed
from api.middleware.access_recording import AccessRecorder
from application.history.access_aims import AIMS
from application.history.access_records import AccessKind, AccessOutcome, ShownAccess
from application.history.access_sentences import WITHOUT_NAME, access_sentence
from domain.access import Actor, Role
from domain.errors import TooMany
from projections import activity
from tests.api.conftest import PASSWORD
from tests.api.http_calls import PICTURE, image_in
from tests.api.test_access import routes_of
from tests.api.worker_events import WorkerEvents
from tests.twins.access_trail import MemoryAccessTrail

pytestmark = pytest.mark.anyio


@pytest.fixture
async def recorded(api):
    return api.with_services(access_trail=MemoryAccessTrail())


def kinds(recorded):
    return [record.kind for record in recorded.services.access_trail.records]


async def test_a_wrong_password_is_recorded_with_the_account_that_was_tried(recorded):
    address = recorded.account()
    http = recorded.anonymous()
    answer = await http.post("/api/auth/login", json={"email": address, "password": "wrong " * 5})
    assert answer.status_code == 401
    (record,) = recorded.services.access_trail.records
    assert (record.kind, record.outcome) == (AccessKind.SIGN_IN, AccessOutcome.REFUSED)
    assert record.person == record.object_id == recorded.services.log.claimed("email", address)
    assert record.request_id == answer.headers["x-request-id"]
    assert record.address == "127.0.0.1"


async def test_what_the_pages_refuse_is_recorded(recorded):
    address = recorded.account()
    http = recorded.anonymous(Origin=recorded.url)
    assert (await http.post("/sign-in", data={"email": address, "password": "wrong " * 5})).status_code == 401
    assert (await http.get("/account/reset?token=x")).status_code == 400
    assert (await http.post("/sign-in", data={"email": address}, headers={"Origin": "http://evil.example.org"})).status_code == 403
    assert kinds(recorded) == [AccessKind.SIGN_IN, AccessKind.NOT_AUTHENTICATED, AccessKind.FORBIDDEN]
    assert recorded.services.access_trail.records[0].person == recorded.services.log.claimed("email", address)


async def recorded_items(http, expected, **query):
    """The trail as an administrator reads it, once it has `expected` items of accesses."""
    async with asyncio.timeout(10):
        while True:
            answer = await http.get("/api/audit", params=query)
            assert answer.status_code == 200, answer.text
            items = answer.json()
            if len(items) >= expected:
                return items
            await asyncio.sleep(0.05)


async def test_an_administrator_reads_who_looked_at_an_image(api):
    ada, admin = await api.client("researcher"), await api.client("admin")
    dataset = (await ada.post("/api/datasets", json={"name": "Biopsies"})).json()["id"]
    files = {"file": ("scan-12.png", PICTURE, "image/png")}
    image = (await ada.post("/api/images/upload", files=files, data={"dataset_id": dataset})).json()["id"]
    address = (await ada.get(f"/api/images/{image}/download")).json()["url"]
    assert (await api.anonymous().get(address)).status_code == 200
    eve = await api.client("researcher")
    assert (await eve.get(f"/api/images/{image}")).status_code == 404
    await admin.get(f"/api/images/{image}")
    items = await recorded_items(admin, 4, object=image)
    assert [item["sentence"] for item in items] == [
        "Ada Byron read scan-12.png (dataset Biopsies) as an administrator",
        "Ada Byron asked for scan-12.png, and found nothing",
        "Ada Byron downloaded scan-12.png (dataset Biopsies)",
        "Ada Byron uploaded scan-12.png",
    ]


async def test_an_address_without_an_account_is_no_dataset_that_was_not_found(recorded):
    ada = await recorded.client("researcher")
    dataset = (await ada.post("/api/datasets", json={"name": "Biopsies"})).json()["id"]
    answer = await ada.post(f"/api/datasets/{dataset}/shares", json={"email": "nobody@example.org", "grant": "viewer"})
    assert answer.status_code == 404
    assert kinds(recorded) == []


async def test_too_many_sign_ins_are_recorded_as_throttled(lab_settings, api):
    recorded = api.with_services(access_trail=MemoryAccessTrail(), sign_in_limits=ExhaustedLimits())
    answer = await recorded.anonymous().post("/api/auth/login", json={"email": "ada@example.org", "password": PASSWORD})
    assert answer.status_code == 429
    (record,) = recorded.services.access_trail.records
    assert (record.kind, record.outcome, record.object_id) == (AccessKind.SIGN_IN, AccessOutcome.THROTTLED, None)


class ExhaustedLimits:
    def password(self, *_):
        raise TooMany("Too many failed sign-ins", retry_after=60)

    def unknown_key(self, *_):
        pass


async def test_an_invalid_token_is_recorded_and_a_missing_one_is_not(recorded):
    http = recorded.anonymous()
    assert (await http.get("/api/users/me")).status_code == 401
    assert kinds(recorded) == []
    for token in ("garbage", "a.b.c", "bsk_" + "x" * 40):
        assert (await http.get("/api/users/me", headers={"Authorization": f"Bearer {token}"})).status_code == 401
    assert kinds(recorded) == [AccessKind.NOT_AUTHENTICATED] * 3
    assert "garbage" not in str(recorded.services.access_trail.records)


async def test_a_stolen_refresh_token_is_recorded_with_its_account(recorded):
    http = recorded.anonymous()
    address = recorded.account()
    assert (await http.post("/api/auth/refresh", json={"refresh_token": "unknown"})).status_code == 401
    (record,) = recorded.services.access_trail.records
    assert (record.kind, record.route, record.person) == (AccessKind.NOT_AUTHENTICATED, "POST /api/auth/refresh", None)
    assert address not in str(record)


async def test_a_forbidden_request_is_recorded_with_its_actor_and_object(recorded):
    viewer = await recorded.client("viewer")
    assert (await viewer.get("/api/users/users")).status_code == 403
    device = str(uuid4())
    assert (await viewer.get(f"/api/devices/{device}")).status_code == 403
    listed, one = recorded.services.access_trail.records
    assert (listed.kind, listed.route, listed.object_id) == (AccessKind.FORBIDDEN, "GET /api/users/users", None)
    assert (one.noun, str(one.object_id), one.outcome) == ("device", device, AccessOutcome.REFUSED)
    assert listed.actor_id == listed.person == UUID((await viewer.get("/api/users/me")).json()["id"])


async def test_a_service_without_the_scope_of_a_route_is_recorded(recorded):
    token = recorded.services.access_tokens.issue_service(name="scanner", scopes=frozenset({"images:read"}), seconds=60, at=utc_now())
    http = recorded.anonymous(Authorization=f"Bearer {token}")
    assert (await http.get("/api/users/users")).status_code == 403
    used, refused = recorded.services.access_trail.records
    assert (used.kind, used.object_id) == (AccessKind.KEY_USE, None)
    assert (refused.kind, refused.actor_kind, refused.person) == (AccessKind.FORBIDDEN, "service", None)
    assert (await http.get("/api/users/users")).status_code == 403
    assert kinds(recorded) == [AccessKind.KEY_USE, AccessKind.FORBIDDEN, AccessKind.FORBIDDEN]


async def test_foreign_and_absent_things_are_recorded_alike(recorded):
    ada, eve = await recorded.client(), await recorded.client()
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    absent = str(uuid4())
    for one in (dataset, absent):
        assert (await eve.get(f"/api/datasets/{one}")).status_code == 404
    records = recorded.services.access_trail.records
    assert [(record.kind, record.noun, str(record.object_id)) for record in records] == [
        (AccessKind.NOT_FOUND, "dataset", dataset),
        (AccessKind.NOT_FOUND, "dataset", absent),
    ]


async def test_foreign_and_absent_things_that_a_body_names_are_recorded_too(recorded):
    ada, eve = await recorded.client(), await recorded.client()
    foreign, own = [(await http.post("/api/datasets", json={"name": "cells"})).json()["id"] for http in (ada, eve)]
    image, absent = await image_in(ada, foreign), str(uuid4())
    picture = {"file": ("cell.png", PICTURE)}
    await WorkerEvents(recorded).model()
    calls = [
        (eve.post("/api/images/upload", data={"dataset_id": foreign}, files=picture), "dataset", foreign),
        (eve.post("/api/classifications/run", json={"dataset_id": foreign}), "dataset", foreign),
        (eve.post("/api/classifications/run", json={"image_id": image}), "image", image),
        (eve.post("/api/classifications/run", json={"image_ids": [absent, image]}), "image", absent),
        (eve.put(f"/api/datasets/{own}/shares/{absent}", json={"grant": "viewer"}), "user", absent),
        (eve.get(f"/api/images?dataset_id={own}"), None, None),
    ]
    for call, _, _ in calls:
        await call
    records = recorded.services.access_trail.records
    assert [(record.kind, record.noun, str(record.object_id)) for record in records] == [
        (AccessKind.NOT_FOUND, noun, thing) for _, noun, thing in calls if noun
    ]


ROUTES = sorted(route.replace("WS ", "GET ") for route in routes_of(SimpleNamespace(_router=router())))
OF_TEXT = {"alias", "kind", "name", "name_or_id", "number", "policy_scope", "token", "version"}
SENTENCE = re.compile(r"Ada (tried to|asked for) [A-Za-z0-9' -]+, and (was refused|found nothing|did not find [A-Za-z0-9 ]+)")


async def test_every_route_has_words_for_what_a_request_is_for():
    assert set(AIMS) == set(ROUTES)


@pytest.mark.parametrize("status", [403, 404])
async def test_what_is_refused_on_any_route_reads_as_a_sentence_that_names_the_object(status):
    ada, thing, wrong = Actor(id=uuid4(), role=Role.VIEWER), uuid4(), []
    for route in ROUTES:
        method, path = route.split()
        found = {place: "pbc8" if place in OF_TEXT else thing for place in re.findall(r"{(\w+)}", path)}
        trail = MemoryAccessTrail()
        scope = {"method": method, "path_template": path, "path_params": found, "user": ada, "headers": [], "state": {"request_id": "r"}}
        AccessRecorder(trail, ()).record(scope, status)
        for access in trail.records:
            names = {ada.id: "Ada", access.object_id: "Cells 7"}
            sentence = access_sentence(ShownAccess(position=1, **fields_of(access, ShownAccess)), names)
            is_named = "Cells 7" in sentence or access.object_id is None or access.noun in WITHOUT_NAME
            if not (SENTENCE.fullmatch(sentence) and is_named):
                wrong.append(f"{route}: {sentence}")
        assert trail.records or status == 404, route
    assert not wrong, "\n".join(wrong)


def fields_of(record, shown):
    return {name: getattr(record, name) for name in shown.__struct_fields__ if name != "position"}


async def test_addresses_of_no_object_are_not_recorded(recorded):
    ada = await recorded.client()
    for path in ("/api/nothing", "/api/images/not-an-id", "/%00", "/api/%F0%9F%98%80", "/api/images/%ff%fe"):
        assert (await ada.get(path)).status_code == 404
    assert kinds(recorded) == []


async def test_looks_are_recorded_once_a_minute_and_signed_downloads_with_their_holder(recorded):
    ada = await recorded.client()
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    image = await image_in(ada, dataset)
    url = (await ada.get(f"/api/images/{image}/download")).json()["url"]
    for _ in range(3):
        answer = await recorded.anonymous().get(url, headers={"Range": "bytes=0-9"})
        assert answer.status_code == 206
    (record,) = recorded.services.access_trail.records
    me = UUID((await ada.get("/api/users/me")).json()["id"])
    assert (record.kind, record.actor_id, str(record.object_id), str(record.dataset_id)) == (AccessKind.DOWNLOAD, me, str(image), dataset)
    assert url.rpartition("/")[2] not in str(record)


async def test_a_signed_address_that_was_passed_on_is_recorded_with_the_one_who_got_it(api):
    ada = await api.client()
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    url = (await ada.get(f"/api/images/{await image_in(ada, dataset)}/download")).json()["url"]
    recorded = api.with_services(access_trail=MemoryAccessTrail())
    assert (await recorded.anonymous().get(url)).status_code == 200
    (record,) = recorded.services.access_trail.records
    assert (record.kind, record.route) == (AccessKind.DOWNLOAD, "GET /api/blobs/{token}")
    assert record.actor_id == UUID((await ada.get("/api/users/me")).json()["id"])


async def watched(app, kind, *messages, headers=(), query=""):
    """Open a live connection, send its messages, and leave it once the server has handled them and sent what they ask for."""
    waiting, caught_up = [{"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"}, *messages], asyncio.Event()
    is_subscribed = kind == "http" or "subscribe" in str(messages)

    async def receive():
        if not waiting and is_subscribed:
            await caught_up.wait()
        return waiting.pop(0) if waiting else {"type": f"{kind}.disconnect", "code": 1000}

    async def send(message):
        if "caught_up" in str(message):
            caught_up.set()

    path, host = "/api/ws" if kind == "websocket" else "/api/live", [(b"host", b"localhost:8000")]
    scope = {"type": kind, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": [*host, *headers]}
    about = {"method": "GET"} if kind == "http" else {"subprotocols": []}
    async with asyncio.timeout(20):
        await app({**scope, **about, "client": ("127.0.0.1", 1), "scheme": "ws", "asgi": {"version": "3.0"}}, receive, send)


async def test_live_connections_are_recorded_like_requests(recorded):
    ada, eve = await recorded.client(), await recorded.client()
    foreign, own = [(await http.post("/api/datasets", json={"name": "cells"})).json()["id"] for http in (ada, eve)]
    keys = [(await eve.post("/api/keys", json={"name": "wall", "scopes": [scope]})).json() for scope in ("events:read", "images:read")]
    assert await recorded.services.read_position.wait(recorded.services.log.head(), 5)

    def sent(**body):
        return {"type": "websocket.receive", "text": json.dumps(body)}

    wanted, absent = sent(type="subscribe", datasets=[own, foreign]), str(uuid4())
    await watched(recorded.app, "websocket", sent(type="auth", token="made up"))
    await watched(recorded.app, "websocket", sent(type="auth", token=keys[1]["key"]))
    await watched(recorded.app, "websocket", sent(type="auth", token=keys[0]["key"]), wanted)
    await watched(recorded.app, "websocket", headers=[(b"origin", b"http://evil.example.org")])
    token = eve.headers["Authorization"].encode()
    await watched(recorded.app, "http", headers=[(b"authorization", token)], query=f"datasets={own}&datasets={absent}")
    able, unable = (UUID(key["id"]) for key in keys)
    records = recorded.services.access_trail.records
    assert [(one.kind, one.route, one.key_id, one.object_id) for one in records] == [
        (AccessKind.NOT_AUTHENTICATED, "GET /api/ws", None, None),
        (AccessKind.KEY_USE, "GET /api/ws", unable, None),
        (AccessKind.FORBIDDEN, "GET /api/ws", unable, None),
        (AccessKind.KEY_USE, "GET /api/ws", able, None),
        (AccessKind.NOT_FOUND, "GET /api/ws", able, UUID(foreign)),
        (AccessKind.FORBIDDEN, "GET /api/ws", None, None),
        (AccessKind.NOT_FOUND, "GET /api/live", None, UUID(absent)),
    ]
    assert all(one.request_id and one.address == "127.0.0.1" for one in records)


async def test_a_dataset_that_is_not_visible_is_recorded_while_another_token_is_verified(recorded):
    foreign = UUID((await (await recorded.client()).post("/api/datasets", json={"name": "cells"})).json()["id"])
    eve, caught_up = await recorded.client(), asyncio.Event()
    scope = {"type": "websocket", "path_template": "/api/ws", "headers": [], "client": ("127.0.0.1", 1), "state": {}}

    async def send(_):
        caught_up.set()

    feed = LiveFeed(recorded.app._context.resources["live_hub"], send, scope)
    await feed.sign_in(eve.headers["Authorization"].removeprefix("Bearer "))
    await feed.subscribe(recorded.services.log.head(), frozenset({foreign}))
    notes_of(scope).actor = None  # so far
    sending = asyncio.create_task(feed.send_updates())
    await asyncio.wait_for(caught_up.wait(), 10)
    sending.cancel()
    (record,) = recorded.services.access_trail.records
    assert (record.kind, record.actor_id, record.object_id) == (AccessKind.NOT_FOUND, feed.account_id, foreign)


async def test_an_export_is_one_record(recorded):
    ada = await recorded.client()
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    assert (await ada.get("/api/classification-results/export", params={"dataset_id": dataset})).status_code == 200
    (record,) = recorded.services.access_trail.records
    assert (record.kind, record.noun, str(record.object_id)) == (AccessKind.EXPORT, "dataset", dataset)


async def test_an_administrator_is_recorded_with_what_others_own_and_not_with_their_own(recorded):
    ada, admin = await recorded.client(), await recorded.client("admin")
    theirs, own = [(await http.post("/api/datasets", json={"name": "cells"})).json()["id"] for http in (ada, admin)]
    me = (await admin.get("/api/users/me")).json()["id"]
    paths = [f"/api/datasets/{theirs}", f"/api/datasets/{own}", f"/api/users/users/{me}", "/api/users/users", "/api/models", "/api/health"]
    for path in paths * 3:
        assert (await admin.get(path)).is_success
    assert (await ada.get(f"/api/datasets/{theirs}")).is_success
    records = recorded.services.access_trail.records
    assert [(record.kind, record.object_id and str(record.object_id)) for record in records] == [
        (AccessKind.ADMIN_READ, theirs),
        (AccessKind.ADMIN_READ, None),
    ]


async def test_ordinary_requests_are_not_recorded(recorded):
    ada = await recorded.client()
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    await image_in(ada, dataset)
    for path in ("/api/datasets", f"/api/datasets/{dataset}", "/api/images", "/api/users/me"):
        assert (await ada.get(path)).is_success
    assert kinds(recorded) == []


async def test_a_trail_that_fails_fails_no_request(api):
    class Failing:
        def record(self, _):
            raise OSError

    ada = await api.with_services(access_trail=Failing()).client("viewer")
    assert (await ada.get("/api/users/users")).status_code == 403


async def test_hostile_headers_do_not_reach_the_trail(recorded):
    headers = {"Authorization": "Bearer x", "User-Agent": "canary " * 1000, "X-Request-Id": "canary\tone", "X-Forwarded-For": "canary"}
    assert (await recorded.anonymous().get("/api/users/me", headers=headers)).status_code == 401
    assert "canary" not in str(recorded.services.access_trail.records)


async def test_the_trail_comes_in_pages_in_both_directions(api):
    ada, admin = await api.client(), await api.client("admin")
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    for number in range(4):
        await ada.patch(f"/api/datasets/{dataset}", json={"name": f"cells {number}"})
        await (await api.client()).get(f"/api/datasets/{dataset}")
    whole = await recorded_items(admin, 9, object=dataset)
    assert [item["at"] for item in whole] == sorted((item["at"] for item in whole), reverse=True)
    for order, expected in (("newest", whole), ("oldest", whole[::-1])):
        pages = await paged(admin, object=dataset, order=order, limit=2)
        assert list(chain(*pages)) == expected


async def paged(admin, **query):
    """All pages of the trail."""
    pages = []
    while True:
        answer = await admin.get("/api/audit", params=query)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        if "x-next-cursor" not in answer.headers:
            return pages
        query["cursor"] = answer.headers["x-next-cursor"]


async def test_a_page_of_what_was_done_with_a_key_ends_where_its_search_does(api, lab_settings, monkeypatch):
    ada, admin = await api.client(), await api.client("admin")
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    issued = (await ada.post("/api/keys", json={"name": "night", "scopes": ["images:write"]})).json()
    script = api.anonymous(Authorization=f"Bearer {issued['key']}")
    for number in range(3):
        await image_in(script, dataset)
        await ada.patch(f"/api/datasets/{dataset}", json={"name": f"cells {number}"})
    await ada.delete(f"/api/keys/{issued['id']}")
    whole = await recorded_items(admin, 4, key=issued["id"])
    assert [item["type"] for item in whole].count("ImageUploaded") == 3
    for searched, (order, expected) in product((1, 2, 3), (("newest", whole), ("oldest", whole[::-1]))):
        monkeypatch.setattr(activity, "MAX_SEARCHED", searched)
        pages = await paged(admin, key=issued["id"], order=order)
        assert list(chain(*pages)) == expected
        assert len(pages) >= 6 / searched
        assert list(chain(*await paged(admin, key=issued["id"], order=order, limit=1))) == expected
        of_dataset = await paged(admin, key=issued["id"], object=dataset, order=order)
        assert list(chain(*of_dataset)) == [item for item in expected if item["kind"] == "change"]
    with psycopg.connect(lab_settings.postgres_owner_url, autocommit=True) as owner:
        owner.execute("update read.api_keys set expires_at = now() - interval '2 days' where id = %s", (issued["id"],))
    assert await paged(admin, key=issued["id"], kind="change") == [[]], "nothing is searched that happened long after the key ended"


async def test_the_trail_is_filtered(api):
    ada, eve, admin = await api.client(), await api.client(), await api.client("admin")
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    await eve.get(f"/api/datasets/{dataset}")
    who = (await eve.get("/api/users/me")).json()["id"]
    await recorded_items(admin, 2, object=dataset)

    async def found(**query):
        return [item["kind"] for item in (await admin.get("/api/audit", params={"object": dataset} | query)).json()]

    before, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    assert await found() == ["not_found", "change"]
    assert await found(actor=who) == ["not_found"]
    assert await found(kind="change") == await found(outcome="allowed") == ["change"]
    assert await found(kind="not_found") == await found(outcome="refused") == ["not_found"]
    assert await found(**{"from": before.isoformat(), "to": later.isoformat()}) == ["not_found", "change"]
    assert await found(**{"from": later.isoformat()}) == await found(to=before.isoformat()) == []

    await image_in(ada, dataset)
    issued, other = [(await ada.post("/api/keys", json={"name": "night", "scopes": ["images:write"]})).json() for _ in range(2)]
    await image_in(api.anonymous(Authorization=f"Bearer {issued['key']}"), dataset)
    items = await recorded_items(admin, 2, key=issued["id"])
    assert {(item["kind"], item["type"], item["key"]) for item in items} == {
        ("key_use", "", issued["id"]),
        ("change", "ImageUploaded", issued["id"]),
    }
    assert await found(key=issued["id"]) == ["change"]
    assert await found(key=issued["id"], actor=items[0]["actor"]["id"]) == ["change"]
    assert await found(key=other["id"]) == await found(key=dataset) == await found(key=issued["id"], actor=who) == []


WRONG = {
    "cursor": ("1", "1.2.3", "x.y", "9" * 19 + ".", "-1.", "\x00.", "٣."),
    "from": ("yesterday", "2026-03-01T12:00:00", "\x00", "1" * 1000, "12345", "1e5", "20260301", "-1"),
    "to": ("yesterday", "2026-03-01T12:00:00", "20260301"),
    "kind": ("everything", "\x00"),
    "actor": ("ada", "ada@example.org"),
    "key": ("bsk_1",),
    "object": ("1",),
    "outcome": ("maybe",),
    "order": ("random",),
    "limit": ("0", "201"),
}


async def test_a_wrong_parameter_is_named(api):
    admin = await api.client("admin")
    for name, values in WRONG.items():
        for value in values:
            answer = await admin.get("/api/audit", params={name: value})
            assert answer.status_code == 422, (name, value)
            assert name in str(answer.json()["errors"])


async def test_extreme_times_are_answered(api):
    admin = await api.client("admin")
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z"):
        for name in ("from", "to"):
            assert (await admin.get("/api/audit", params={name: moment})).status_code in {200, 422}


async def test_a_missing_part_of_a_visible_thing_is_not_recorded(recorded):
    ada = await recorded.client()
    dataset = (await ada.post("/api/datasets", json={"name": "cells"})).json()["id"]
    image = await image_in(ada, dataset)
    impatient = recorded.with_options(preview_wait_seconds=0.0)
    ada = impatient.anonymous(Authorization=ada.headers["Authorization"])
    assert (await ada.get(f"/api/images/{image}/thumbnail")).status_code == 404
    assert kinds(recorded) == []
