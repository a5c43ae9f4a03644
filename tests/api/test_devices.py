"""Devices over HTTP."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from tests.contracts.test_data_keys import registered_long_ago

pytestmark = pytest.mark.anyio

DEVICES = "/api/devices/"
FIELDS = {"id", "name", "hostname", "location", "firmware_version", "is_online", "last_seen", "registered_at"}
SCOPE = {"name": "Axio 7", "hostname": "scope-1", "location": "Room 1", "firmware_version": "1.2"}


async def registered(http, **changes):
    answer = await http.post(DEVICES, json=SCOPE | changes)
    assert answer.status_code == 201, answer.text
    return f"{DEVICES}{answer.json()['id']}"


async def test_a_device_is_registered_read_changed_and_removed(api):
    admin = await api.client("admin")
    made = await admin.post(DEVICES, json=SCOPE)
    assert (made.status_code, set(made.json()), made.json()["name"]) == (201, {"id", "name"}, "Axio 7")
    path = f"{DEVICES}{made.json()['id']}"
    device = (await admin.get(path)).json()
    assert set(device) == FIELDS
    assert SCOPE.items() <= device.items()
    assert (device["is_online"], device["last_seen"]) == (False, None)
    assert device["registered_at"].endswith("Z")
    for at in (path, f"{path}/"):
        changed = await admin.patch(at, json={"location": None, "firmware_version": "1.3"})
        assert (changed.status_code, changed.json()["location"], changed.json()["firmware_version"]) == (200, None, "1.3")
    assert (await admin.delete(path)).status_code == 204
    for gone in (await admin.get(path), await admin.delete(path), await admin.patch(path, json={"name": "x"})):
        assert (gone.status_code, gone.json()["detail"]) == (404, "Device not found")
    assert (await admin.get(DEVICES)).json() == []


async def test_a_sign_of_life_says_when_it_was_seen(api):
    admin = await api.client("admin")
    path = await registered(admin)
    online = (await admin.patch(f"{path}/status", json={"is_online": True})).json()
    assert online["is_online"] is True
    again = (await admin.patch(f"{path}/status", json={"is_online": True})).json()
    assert datetime.fromisoformat(again["last_seen"]) > datetime.fromisoformat(online["last_seen"])
    offline = (await admin.patch(f"{path}/status/", json={"is_online": False})).json()
    assert (offline["is_online"], offline["last_seen"]) == (False, again["last_seen"])
    assert (await admin.get(path)).json() == offline


async def test_signs_of_life_are_read_everywhere_and_append_nothing(api):
    admin, log = await api.client("admin"), api.services.log
    path = await registered(admin)
    online = (await admin.patch(f"{path}/status", json={"is_online": True})).json()
    head = log.head()
    for _ in range(3):
        alive = await admin.patch(f"{path}/status", json={"is_online": True})
        assert (alive.status_code, alive.headers["etag"]) == (200, '"2"')
    assert log.head() == head
    observed = alive.json()["last_seen"]
    assert datetime.fromisoformat(observed) > datetime.fromisoformat(online["last_seen"])
    assert (await admin.get(path)).json()["last_seen"] == observed
    assert [device["last_seen"] for device in (await admin.get(DEVICES)).json()] == [observed]
    described = (await admin.patch(path, json={"name": "Axio 8"})).json()
    assert described["last_seen"] == observed


async def test_when_a_device_that_is_removed_was_last_seen_is_forgotten(api):
    admin = await api.client("admin")
    path = await registered(admin)
    device = UUID(path.removeprefix(DEVICES))
    await admin.patch(f"{path}/status", json={"is_online": True})
    assert api.services.last_seen.of(device) is not None
    assert (await admin.delete(path)).status_code == 204
    assert api.services.last_seen.of(device) is None
    assert (await admin.patch(f"{path}/status", json={"is_online": True})).status_code == 404
    assert api.services.last_seen.of(device) is None


async def test_of_a_device_that_only_an_earlier_release_saw_the_log_says_when(api, owner_url):
    admin = await api.client("admin")
    path = await registered(admin)
    online = (await admin.patch(f"{path}/status", json={"is_online": True})).json()
    with psycopg.connect(owner_url) as connection:
        connection.execute("delete from ops.devices_seen")
    observed = datetime.fromisoformat((await admin.get(path)).json()["last_seen"])
    assert timedelta() <= datetime.fromisoformat(online["last_seen"]) - observed < timedelta(minutes=1)


async def test_changes_to_one_thing_beyond_the_limit_are_answered_with_the_time_to_wait(api):
    admin = await api.client("admin")
    path, other = await registered(admin), await registered(admin, hostname="scope-2")
    for number in range(60):
        assert (await admin.patch(path, json={"name": f"Axio {number}"})).status_code == 200
    refused = await admin.patch(path, json={"name": "Axio 61"})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 60
    assert refused.json()["detail"] == f"This was changed 60 times within a minute; try again in {wait} s"
    assert (await admin.patch(path, json={"name": "Axio 59"})).status_code == 200, "what changes nothing does not count"
    assert (await admin.patch(other, json={"name": "Axio 61"})).status_code == 200
    assert (await admin.get(path)).json()["name"] == "Axio 59"


async def test_the_list_is_narrowed_by_state_and_place(api):
    admin, analyst = await api.client("admin"), await api.client("analyst")
    first = await registered(admin)
    await registered(admin, hostname="scope-2", location="Room 2")
    await admin.patch(f"{first}/status", json={"is_online": True})
    for query, names in (
        ("", ["scope-1", "scope-2"]),
        ("?is_online=true", ["scope-1"]),
        ("?is_online=false", ["scope-2"]),
        ("?location=Room 2", ["scope-2"]),
        ("?location=room", []),
        ("?is_online=true&location=Room 2", []),
    ):
        assert [device["hostname"] for device in (await analyst.get(DEVICES + query)).json()] == names
    page = await analyst.get(f"{DEVICES}?page_size=1&location=Room 1")
    assert "next" not in page.links
    page = await analyst.get(f"{DEVICES}?page_size=1")
    assert [device["hostname"] for device in (await analyst.get(page.links["next"]["url"])).json()] == ["scope-2"]
    wrong = await analyst.get(f"{DEVICES}?is_online=perhaps")
    assert (wrong.status_code, wrong.json()["errors"][0]["loc"]) == (422, ["query", "is_online"])


async def test_links_lead_on_below_a_path_that_a_proxy_removes(api):
    admin = await api.client("admin")
    for name in ("scope-1", "scope-2"):
        await registered(admin, hostname=name)
    app = api.with_options(base_url="https://lab.example.org/bioscope").app

    async def proxy(scope, receive, send):
        assert scope["path"].startswith("/bioscope/")
        await app(scope | {"path": scope["path"].removeprefix("/bioscope")}, receive, send)

    address = {"transport": httpx.ASGITransport(proxy), "base_url": "https://lab.example.org/bioscope"}
    async with httpx.AsyncClient(**address, headers={"Authorization": admin.headers["Authorization"]}) as http:
        first = await http.get(f"{DEVICES}?page_size=1")
        second = await http.get(first.url.join(first.links["next"]["url"]))
        assert {page.json()[0]["hostname"] for page in (first, second)} == {"scope-1", "scope-2"}


async def test_a_host_name_belongs_to_one_device_until_it_is_given_up(api):
    admin = await api.client("admin")
    first = await registered(admin)
    for body in ({"hostname": "scope-1"}, {"hostname": " SCOPE-1 "}):
        accepted = await admin.post(DEVICES, json=SCOPE | body)
        assert (accepted.status_code, accepted.json()["code"]) == (409, "taken")
    second = await registered(admin, hostname="scope-2")
    assert (await admin.patch(second, json={"hostname": "scope-1"})).status_code == 409
    assert (await admin.patch(first, json={"hostname": "scope-9"})).status_code == 200
    assert (await admin.patch(second, json={"hostname": "scope-1"})).status_code == 200
    assert (await admin.delete(second)).status_code == 204
    await registered(admin)


async def test_a_device_of_an_older_release_is_read_and_changed_in_clear(api):
    """Its registration stands in clear in the log; what is said of it later is sealed."""
    admin, log = await api.client("admin"), api.services.log
    path = f"{DEVICES}{registered_long_ago(log)}"
    for changes in ({"firmware_version": "2.0"}, {"name": "Axio 8", "location": "Room 2"}, {"hostname": "scope-2", "location": None}):
        changed = await admin.patch(path, json=changes)
        assert (changed.status_code, changes.items() <= changed.json().items()) == (200, True)
        assert (await admin.get(path)).json() == changed.json()
    body = b"".join(one.data for one in log.history(path.removeprefix(DEVICES))[1:])
    assert not [text for text in (b"Axio 8", b"Room 2", b"scope-2") if text in body]


async def test_only_administrators_change_devices(api):
    admin, researcher, viewer = [await api.client(role) for role in ("admin", "researcher", "viewer")]
    path = await registered(admin)
    for method, at, body in (
        ("POST", DEVICES, SCOPE),
        ("PATCH", path, {"name": "mine"}),
        ("PATCH", f"{path}/status", {"is_online": True}),
        ("PATCH", f"{DEVICES}{uuid4()}", {"name": "mine"}),
        ("DELETE", path, None),
    ):
        refused = await researcher.request(method, at, json=body)
        assert (refused.status_code, refused.json()["detail"].startswith("Insufficient permissions")) == (403, True)
    assert (await researcher.get(path)).status_code == 200
    for at in (path, DEVICES, f"{DEVICES}{uuid4()}"):
        assert (await viewer.get(at)).status_code == 403


async def test_a_wrong_field_is_named(api):
    admin = await api.client("admin")
    path = await registered(admin)
    for body, field in (
        ({"name": ""}, "name"),
        ({"hostname": "x" * 256}, "hostname"),
        ({"hostname": None}, "hostname"),
        ({"firmware_version": "x" * 51}, "firmware_version"),
        ({"location": 5}, "location"),
        ({"id": "1"}, "id"),
    ):
        for answer in (await admin.post(DEVICES, json=SCOPE | body), await admin.patch(path, json=body)):
            assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", field])


async def test_a_device_guarded_by_its_version_is_not_overwritten(api):
    admin = await api.client("admin")
    path = await registered(admin)
    etag = (await admin.get(path)).headers["etag"]
    moved = await admin.patch(path, json={"name": "other"}, headers={"If-Match": etag})
    assert moved.status_code == 200
    for answer in (
        await admin.patch(path, json={"name": "third"}, headers={"If-Match": etag}),
        await admin.delete(path, headers={"If-Match": etag}),
    ):
        assert answer.status_code == 412
    assert (await admin.delete(path, headers={"If-Match": moved.headers["etag"]})).status_code == 204
