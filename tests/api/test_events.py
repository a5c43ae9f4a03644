"""The event feed over HTTP: complete, in order, from any position, with private fields in clear for administrators."""

import asyncio
import time

import jsonschema
import msgspec
import pytest

from api.clock import utc_now
from api.options import FeedLimits
from application.history import event_schemas
from domain.events import SEALED_PREFIX
from domain.registry import EVENTS
from tests.api.observed_position import ObservedPosition
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio


def service(api, *scopes):
    token = api.services.access_tokens.issue_service(name="downstream", scopes=frozenset(scopes), seconds=600, at=utc_now())
    return api.anonymous(Authorization=f"Bearer {token}")


async def made(http, name="cells"):
    answer = await http.post("/api/datasets", json={"name": name})
    assert answer.status_code == 201, answer.text
    return answer


async def followed(http, **query):
    answer = await http.get("/api/events", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_whole_log_comes_in_order_without_a_gap_whatever_the_page(api):
    admin = await api.client("admin")
    for number in range(7):
        await made(admin, f"cells {number}")
    head = api.services.log.head()
    for limit in (1, 3, 1000):
        after, positions = 0, []
        while (page := await followed(admin, after=after, limit=limit))["events"]:
            assert len(page["events"]) <= limit
            positions += [event["position"] for event in page["events"]]
            assert page["next"] == positions[-1]
            after = page["next"]
        assert positions == list(range(1, head + 1))
        assert page == {"events": [], "next": head}


async def test_an_event_has_all_that_a_consumer_needs(api):
    admin = await api.client("admin")
    position = int((await made(admin)).headers["x-event-position"])
    (event,) = (await followed(admin, after=position - 1))["events"]
    recorded = api.services.log.read(position - 1, 1)[0]
    assert event.keys() == {
        *("position", "id", "type", "schema_version", "stream", "version", "time"),
        *("actor", "correlation_id", "causation_id", "traceparent", "hash", "data"),
    }
    assert event["hash"] == recorded.hash.hex()
    assert (event["type"], event["schema_version"], event["version"]) == ("DatasetCreated", 1, 1)
    assert (event["id"], event["stream"]) == (str(recorded.event_id), str(recorded.stream))
    assert event["time"].endswith("Z")
    assert event["actor"]["role"] == "admin"
    assert event["data"]["name"] == "cells"


async def test_events_fit_the_published_schemas(api):
    admin = await api.client("admin")
    await made(admin)
    for sealed in (False, True):
        events = (await followed(admin, sealed=sealed))["events"]
        assert events
        for event in events:
            schema = (await admin.get(f"/api/events/schemas/{event['type']}", params={"sealed": sealed})).json()
            assert schema == msgspec.json.decode(msgspec.json.encode(event_schemas.schema(event["type"], sealed=sealed)))
            jsonschema.validate(event["data"], schema)


async def test_a_service_gets_private_fields_sealed_whatever_it_asks_for(api):
    admin = await api.client("admin")
    await made(admin, "patient 17")
    follower = service(api, "events:read")
    for sealed in (False, True):
        created = [event for event in (await followed(follower, sealed=sealed))["events"] if event["type"] == "DatasetCreated"]
        assert created
        assert all(event["data"]["name"].startswith(SEALED_PREFIX) for event in created)
    assert "patient 17" in (await admin.get("/api/events")).text
    assert "patient 17" not in (await admin.get("/api/events", params={"sealed": True})).text


async def test_nobody_else_may_follow(api):
    assert (await api.anonymous().get("/api/events")).status_code == 401
    for other in (await api.client("researcher"), service(api, "images:read"), service(api)):
        assert (await other.get("/api/events")).status_code == 403


async def test_a_waiting_request_is_answered_as_soon_as_an_event_is_recorded(api):
    observed = ObservedPosition(api.services.read_position)
    unpolled = api.with_options(feed=FeedLimits(poll_interval_seconds=3600.0)).with_services(read_position=observed)
    admin, researcher = await unpolled.client("admin"), await api.client("researcher")
    head = api.services.log.head()
    waiting = asyncio.create_task(followed(admin, after=head, wait=20))
    await wait_until_async(lambda: observed.waits)
    assert not waiting.done()
    await made(researcher)
    found = await asyncio.wait_for(waiting, 10)  # half of its own limit, at which it would look once more
    assert found["events"][0]["position"] == head + 1


async def test_waiting_ends_in_time_with_nothing(api):
    admin = await api.client("admin")
    head = api.services.log.head()
    began = time.monotonic()
    async with asyncio.timeout(10):
        assert await followed(admin, after=head, wait=0.5) == {"events": [], "next": head}
    assert time.monotonic() - began > 0.4


async def test_waiting_requests_hold_no_thread_and_their_number_is_limited(api):
    admin = await api.client("admin")
    head = api.services.log.head()
    waiting = [asyncio.create_task(followed(admin, after=head, wait=20)) for _ in range(70)]
    await wait_until_async(lambda: sum(task.done() for task in waiting) >= 6, within=15)
    assert (await made(admin)).status_code == 201
    pages = await asyncio.gather(*waiting)
    assert sum(not page["events"] for page in pages) == 6, "they were answered at once"
    assert all(page["next"] == head + 1 for page in pages if page["events"])


@pytest.mark.parametrize(
    "wrong", [{"after": -1}, {"after": 2**60}, {"after": "x"}, {"limit": "many"}, {"limit": 1001}, {"wait": "long"}, {"wait": 21}]
)
async def test_wrong_parameters_are_named(api, wrong):
    answer = await (await api.client("admin")).get("/api/events", params=wrong)
    assert answer.status_code == 422
    assert next(iter(wrong)) in answer.text


async def test_a_page_is_bounded_by_its_bytes_too(api):
    api = api.with_options(feed=FeedLimits(max_page_bytes=1000))
    admin = await api.client("admin")
    for number in range(10):
        await made(admin, f"cells {number}")
    after, positions = 0, []
    while (page := await followed(admin, after=after, limit=1000))["events"]:
        positions += [event["position"] for event in page["events"]]
        after = page["next"]
    assert positions == list(range(1, api.services.log.head() + 1))
    assert len((await followed(admin, after=0, limit=1000))["events"]) < 10


async def test_every_type_is_described_to_who_signed_in(api):
    http = await api.client("viewer")
    described = (await http.get("/api/events/schemas")).json()
    assert {one["type"] for one in described} == set(EVENTS)
    assert all(one["meaning"] and one["versions"][-1] == EVENTS[one["type"]].schema_version for one in described)
    schema = await http.get("/api/events/schemas/ChunkJudged", params={"version": 1})
    assert schema.headers["content-type"].startswith("application/schema+json")
    assert (await http.get("/api/events/schemas/ChunkJudged", params={"version": 2})).status_code == 404
    assert (await http.get("/api/events/schemas/Nothing")).status_code == 404
    assert (await api.anonymous().get("/api/events/schemas")).status_code == 401
