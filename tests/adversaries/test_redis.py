"""A Redis that lies: notifications are only hints, counters count for one window at most, and everything else goes on."""

import asyncio
import json
import os
import threading
import time
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import redis
from websockets.asyncio.client import connect

from api.cli.client.api_client import Client, RequestRefused
from application.services import CHANNEL
from infrastructure.realtime.redis_pubsub import MIN_WAKE_INTERVAL_SECONDS, RedisNotifications
from tests.system.conftest import PASSWORD, email, made_account

pytestmark = [pytest.mark.anyio, pytest.mark.long]
FAR = 2**62
FLOOD = 10_000


def forged(datasets, users, head):
    """Notifications as somebody would write them who knows the form of ours, and others."""
    ours = {"position": head + 1, "datasets": [str(one) for one in datasets], "users": [str(one) for one in users]}
    numbers = (0, -1, -FAR, head - 1, head + 1000, FAR, 10**400, 0.5, None, True, "1", [1], {})
    kinds = ("datasets", "users")
    strange = [{**ours, "position": number} for number in numbers] + [
        {**ours, kind: value} for kind in kinds for value in ([str(uuid4())] * 3, ["x"], "x", None, 7, {"a": [[]]})
    ]
    texts = [json.dumps(one).encode() for one in (ours, *strange)]
    return [*texts, b"", b"garbage", b"\xff\xfe\0", b"[" * 100_000, os.urandom(2**20), b'{"position": ' + b"9" * 2**20 + b"}"]


@pytest.fixture(scope="module")
def forger(stack):
    """A client of Redis."""
    with redis.Redis.from_url(stack.redis_url) as client:
        yield client


@asynccontextmanager
async def watching(stack, client, **asked):
    async with connect(f"ws://{urlsplit(stack.base_url).netloc}/api/ws", compression=None) as watch:
        for said in ({"type": "auth", "token": client.credentials.access_token}, {"type": "subscribe", **asked}):
            await watch.send(json.dumps(said))
        assert (await told(watch))["type"] == "authenticated"
        while (await told(watch))["type"] != "caught_up":
            pass
        yield watch


async def told(watch, within=10):
    return json.loads(await asyncio.wait_for(watch.recv(), within))


async def events_until(watch, position):
    """All up to that position."""
    events = []
    while not events or events[-1]["position"] < position:
        message = await told(watch)
        if message["type"] == "event":
            events.append(message)
    return events


async def nothing_is_told(watch, seconds):
    heard = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                heard.append(json.loads(await watch.recv()))
    except TimeoutError:
        return [one for one in heard if one["type"] == "event"] == []


@pytest.fixture(scope="module")
def stranger(stack):
    """Somebody to whom nothing was shared."""
    with Client.sign_in(stack.base_url, made_account(stack, "researcher", email("stranger")), PASSWORD) as client:
        yield client


def renamed(client, dataset, name):
    """The position of the event."""
    answer = client.call("PATCH", f"/api/datasets/{dataset}", json={"name": name})
    return int(answer.headers["x-event-position"])


def head(client):
    return int(client.call("POST", "/api/datasets", json={"name": "the newest"}).headers["x-event-position"])


# ---- notifications -------------------------------------------------------------------------------------------------------------------
async def test_forged_notifications_show_nobody_what_did_not_happen_or_is_not_shared(stack, researcher, stranger, forger):
    dataset = researcher.create_dataset("watched")
    me, other = (client.get("/api/users/me")["id"] for client in (researcher, stranger))
    before = head(stranger)
    async with watching(stack, researcher, datasets=[dataset]) as mine, watching(stack, stranger) as theirs:
        for message in forged([dataset], [me, other], before):
            forger.publish(CHANNEL, message)
        assert await nothing_is_told(mine, 0.5)
        assert await nothing_is_told(theirs, 0.5)
        position = renamed(researcher, dataset, "renamed under lies")
        (event,) = await events_until(mine, position)
        assert (event["position"], event["event"], event["stream"]) == (position, "DatasetDescribed", dataset)
        assert await nothing_is_told(theirs, 1.5)


async def test_a_flood_of_notifications_holds_nobody_up(stack, researcher, forger):
    """The API answers, and what happens meanwhile is told once, in order."""
    dataset = researcher.create_dataset("flooded")
    message = json.dumps({"position": FAR, "datasets": [dataset], "users": []}).encode()
    async with watching(stack, researcher, datasets=[dataset]) as watch:
        enough = threading.Event()
        flood = asyncio.create_task(asyncio.to_thread(flooded, forger, message, enough))
        positions = []
        for number in range(3):
            positions.append(await asyncio.to_thread(renamed, researcher, dataset, f"renamed {number}"))
            assert not flood.done(), "it is answered meanwhile"
        enough.set()
        assert await flood >= FLOOD
        assert [one["position"] for one in await events_until(watch, positions[-1])] == positions
        assert await nothing_is_told(watch, 0.5)


def flooded(forger, message, enough):
    """Publish the message until it is enough, but so many times at least; how often that was."""
    published = 0
    while published < FLOOD or not enough.is_set():
        with forger.pipeline(transaction=False) as pipe:
            for _ in range(FLOOD // 10):
                pipe.publish(CHANNEL, message)
            published += len(pipe.execute())
    return published


async def test_a_flood_rings_no_more_often_than_is_good_for_the_database(redis_url):
    """For half a second, a message each millisecond."""
    live = RedisNotifications(redis_url)
    await live.start()
    with redis.Redis.from_url(redis_url) as client:
        async with live.subscribe() as news:
            assert await news.wait(5)
            began, rings = time.monotonic(), 0
            while time.monotonic() - began < 0.5:
                client.publish(CHANNEL, b"x")
                rings += await news.wait(0.001)
            assert 2 <= rings <= 2 + (time.monotonic() - began) / MIN_WAKE_INTERVAL_SECONDS
    await live.stop()


# ---- counters ------------------------------------------------------------------------------------------------------------------------
FORGED_COUNTERS = (
    ("lpush", *[FAR] * 2000),
    ("lpush", *["garbage"] * 2000),
    ("set", "garbage"),
    ("hset", "a", "b"),
)


@pytest.mark.parametrize("written", FORGED_COUNTERS, ids=["times to come", "words", "a text", "a hash"])
def test_forged_counters_keep_nobody_from_signing_in(stack, forger, written):
    """Every counter that there is, those of this person and of this address among them: only failures leave any."""
    address = made_account(stack, "researcher", email("counted"))
    assert signs_in(stack, address, "not the password 1") == 401
    counters = forger.keys("limit:*")
    assert counters
    for key in counters:
        forger.delete(key)
        forger.execute_command(written[0], key, *written[1:])
    assert signs_in(stack, address) == 200
    assert httpx.get(f"{stack.base_url}/health/live").status_code == 200


def signs_in(stack, address, password=PASSWORD):
    return httpx.post(f"{stack.base_url}/api/auth/login", json={"email": address, "password": password}).status_code


def test_counters_that_are_taken_away_again_and_again_open_no_door(stack, stranger, forger):
    """Whoever guesses a password and empties Redis after each try gets no more tries than one who does not."""
    guess = {"password": "another horse battery 9", "current_password": "a wrong guess"}
    answers, me = [], stranger.get("/api/users/me")["id"]
    for _ in range(8):
        answers.append(refusal_of(stranger, "PATCH", f"/api/users/users/{me}", json=guess))
        forger.flushall()
    assert answers == [403] * 5 + [429] * 3


def refusal_of(client, *request, **given):
    with pytest.raises(RequestRefused) as refused:
        client.call(*request, **given)
    return refused.value.status
