"""Live events as server-sent events from the real server: complete, in order, filtered by access rights, and ended when they must be."""

import asyncio
import json
import random
import re
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest

from api.live.event_stream import RECONNECT_MILLISECONDS, encoded
from api.live.messages import CaughtUp, EventMessage
from api.options import LiveLimits, WebOptions
from application import datasets
from domain import session, user
from domain.access import Grant
from tests.api.live_messages import expected_events, receive
from tests.api.live_server import MUCH, ORIGIN, live_server
from tests.given import NOW
from tests.rigs.scenario import SYSTEM

pytestmark = pytest.mark.anyio
DATABASE = "test_live_stream"
PER_ACCOUNT = 20


@pytest.fixture(scope="module")
def served(postgres, redis_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    with live_server(postgres, redis_server, folder, database=DATABASE, websockets_per_account=PER_ACCOUNT) as served:
        yield served


class Reader:
    """A client of a stream. `heard` are its messages with their ids, `comments` its comments."""

    def __init__(self, response):
        self.response, self._lines = response, response.aiter_lines()
        self.comments, self.retry = [], None

    async def blocks(self):
        """The lines between two empty lines."""
        block = []
        async for line in self._lines:
            if line:
                block.append(line)
            else:
                yield block
                block = []

    async def message(self, within=20):
        """The next message and its id, or None at the end of the stream."""
        async with asyncio.timeout(within):
            async for block in self.blocks():
                self.comments += [line for line in block if line.startswith(":")]
                fields = dict(line.split(": ", 1) for line in block if not line.startswith(":"))
                self.retry = fields.get("retry", self.retry)
                if "data" in fields:
                    assert set(fields) <= {"id", "data"}
                    return json.loads(fields["data"]), fields.get("id")
        return None

    async def until_caught_up(self):
        """The events up to the next moment at which there is nothing more."""
        events = []
        while (found := (await self.message())[0])["type"] != "caught_up":
            if found["type"] == "event":
                events.append(found)
        return events

    async def until_passed(self, marker):
        """The types of the events before the one of that image."""
        types = []
        while (found := (await self.message())[0]).get("stream") != marker:
            types += [found["event"]] if found["type"] == "event" else []
        return types

    async def all_within(self, seconds):
        """The events of that time; the stream can be read no further."""
        events = []
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    message, _ = await self.message(seconds)
                    events += [message] if message["type"] == "event" else []
        return events

    async def until_closed(self, within=30):
        """The code of the last message, after which the response ends."""
        async with asyncio.timeout(within):
            while (found := (await self.message(within))[0])["type"] != "closed":
                pass
        assert await self.message() is None
        return found["code"]


@asynccontextmanager
async def reading(served, member, *, token=None, last=None, **query):
    headers = {"Authorization": f"Bearer {token or served.token(member)[0]}"} | ({"Last-Event-ID": str(last)} if last is not None else {})
    async with (
        httpx.AsyncClient(base_url=served.settings.base_url, timeout=30) as http,
        http.stream("GET", "/api/live", headers=headers, params=query) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Reader(response)


async def refusal(served, token, *, headers=None, **query):
    signed = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=served.settings.base_url) as http:
        return await http.get("/api/live", headers=signed | (headers or {}), params=query)


async def test_a_stream_begins_with_the_account_and_the_time_to_reconnect_and_is_not_kept_by_proxies(served):
    ada = served.user()
    async with reading(served, ada) as reader:
        first, number = await reader.message()
        assert (first["type"], first["user"], number) == ("authenticated", str(ada.id), None)
        assert reader.retry == str(RECONNECT_MILLISECONDS)
        headers = reader.response.headers
        assert headers["content-type"].split(";")[0] == "text/event-stream"
        assert {"no-cache", "no-store", "no-transform"} <= {one.strip() for one in headers["cache-control"].split(",")}
        assert headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers
        assert "content-encoding" not in headers


async def test_a_resume_after_any_drop_is_complete_and_without_duplicates(served):
    ada = served.user()
    cells = served.appended(served.dataset, ada)
    chance = random.Random(7)

    def write():
        for number in range(300):
            served.image(ada, cells, f"{number}.png")
            if number % 7 == 0:
                served.follow()
        return served.follow()

    writing = asyncio.create_task(asyncio.to_thread(write))
    observed, drops, last = [], 0, 0
    while not (writing.done() and last >= writing.result()):
        async with reading(served, ada, last=last) as reader:
            for _ in range(chance.randrange(1, 40)):
                body, number = await reader.message()
                if body["type"] == "event":
                    observed.append((body["position"], body["event"]))
                    assert number == str(body["position"])
                last = int(number or last)
                if writing.done() and last >= writing.result():
                    break
            drops += 1
    assert drops > 5
    assert observed == expected_events(served, ada, cells, until=last)


async def test_both_transports_send_the_same_messages(served):
    ada = served.user()
    served.model()
    cells = served.dataset(ada)
    images = [served.image(ada, cells, f"{number}.png") for number in range(3)]
    job = served.job(ada, dataset=cells)
    served.plan(job, images)
    served.judge(job, 0, images[:2], images[2:])
    token, _ = served.token(ada)
    served.follow()
    async with reading(served, ada, token=token, after=0, datasets=str(cells)) as reader, served.connected() as watch:
        streamed = await reader.until_caught_up()
        await watch.send(json.dumps({"type": "auth", "token": token}))
        await watch.send(json.dumps({"type": "subscribe", "after": 0, "datasets": [str(cells)]}))
        sent = []
        while (message := await receive(watch))["type"] != "caught_up":
            sent += [message] if message["type"] == "event" else []
    assert len(streamed) == 7
    assert streamed == sent
    assert streamed[-1]["job"]["succeeded"] == 2


async def test_without_a_position_one_hears_from_now_on(served):
    ada = served.user()
    cells = served.appended(served.dataset, ada)
    token, _ = served.token(ada)
    served.follow()
    async with reading(served, ada, token=token) as reader:
        assert await reader.until_caught_up() == []
        uploaded = served.appended(served.image, ada, cells)
        (event,) = await reader.until_caught_up()
        assert (event["event"], event["stream"]) == ("ImageUploaded", str(uploaded))


async def test_the_last_id_wins_over_the_position_in_the_address(served):
    """As a browser connects again: to the same address, with what it heard last."""
    ada = served.user()
    cells = served.dataset(ada)
    served.image(ada, cells)
    end = served.follow()
    async with reading(served, ada, last=end - 1, after=0, datasets=str(cells)) as reader:
        assert [event["event"] for event in await reader.until_caught_up()] == ["ImageUploaded"]


async def test_foreign_datasets_are_not_heard_of_until_they_are_shared_and_not_after(served):
    ada, bob = served.user(), served.user(name="bob")
    cells, own = served.dataset(ada), served.dataset(bob)
    served.follow()
    async with reading(served, bob, datasets=[str(cells), str(own)]) as reader:
        await reader.until_caught_up()
        served.image(ada, cells)
        assert await reader.until_passed(served.mark(bob, own)) == []
        served.share(ada, cells, bob, Grant.VIEWER)
        assert await reader.until_passed(served.mark(bob, own)) == ["DatasetShared"]
        served.image(ada, cells)
        assert await reader.until_passed(served.mark(bob, own)) == ["ImageUploaded"]
        datasets.withdraw(cells, user_id=bob.id, command=served.command(ada), log=served.log)
        served.follow()
        served.image(ada, cells)
        assert await reader.until_passed(served.mark(bob, own)) in ([], ["DatasetShareWithdrawn"])


async def test_only_the_requested_datasets_are_reported(served):
    ada = served.user()
    cells, others, more = (served.dataset(ada, name) for name in ("cells", "others", "more"))
    served.follow()
    async with reading(served, ada, after=0, datasets=[str(others), str(more)]) as reader:
        assert [event["dataset"] for event in await reader.until_caught_up()] == [str(others), str(more)]
    assert cells not in {others, more}


@pytest.mark.parametrize("token", [None, "nonsense"])
async def test_without_a_valid_token_there_is_no_stream(served, token):
    answer = await refusal(served, token)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize(("scope", "status"), [("events:read", 200), ("images:read", 403)])
async def test_a_program_hears_everything_or_nothing(served, scope, status):
    cells = served.appended(served.dataset, served.user())
    token = served.service_token(scope)
    if status != 200:
        assert (await refusal(served, token)).status_code == status
        return
    async with reading(served, None, token=token, after=0, datasets=str(cells)) as reader:
        assert [event["event"] for event in await reader.until_caught_up()] == ["DatasetCreated"]


WRONG = [
    ({"after": "-1"}, {}),
    ({"after": "soon"}, {}),
    ({"datasets": "cells"}, {}),
    ({"datasets": ["0b9bb4ae-1c4f-4e3e-9a54-5f0c0a3d7c03"] * 101}, {}),
    ({}, {"Last-Event-ID": "x"}),
    ({}, {"Last-Event-ID": "-5"}),
    ({}, {"Last-Event-ID": str(2**60)}),
    ({"after": str(2**60)}, {}),
]


@pytest.mark.parametrize(("query", "headers"), WRONG)
async def test_what_is_wrong_is_refused_and_named(served, query, headers):
    answer = await refusal(served, served.token(served.user())[0], headers=headers, **query)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["loc"][1] in {*query, *headers}


async def test_a_revoked_session_ends_its_stream_and_no_other(served):
    ada = served.user()
    token, revoked = served.token(ada)
    async with reading(served, ada, token=token) as reader, reading(served, ada) as other:
        served.change(revoked, session, lambda it: session.revoke(it, session.Reason.LOGOUT, by=ada.id, at=served.now))
        assert await reader.until_closed(15) == 4401
        served.appended(served.dataset, ada)
        while (await other.message())[0].get("event") != "DatasetCreated":
            pass


async def test_a_suspended_account_ends_its_streams(served):
    ada = served.user()
    async with reading(served, ada) as reader:
        await reader.until_caught_up()
        served.change(ada.id, user, lambda it: user.change_status(it, user.Status.SUSPENDED, by=SYSTEM.id, at=served.now))
        assert await reader.until_closed(15) == 4401


async def test_a_token_that_ends_ends_the_stream(served):
    ada = served.user()
    async with reading(served, ada, token=served.token(ada, ttl=4)[0]) as reader:
        assert await reader.until_closed() == 4401


async def test_an_account_has_a_limited_number_of_connections_and_gets_one_back(served):
    ada, bob = served.user(), served.user(name="bob")
    token, _ = served.token(ada)
    async with AsyncExitStack() as streams:
        readers = [await streams.enter_async_context(reading(served, ada, token=token)) for _ in range(PER_ACCOUNT - 1)]
        await asyncio.gather(*(reader.message() for reader in readers))
        async with served.watching(ada):
            answer = await refusal(served, token)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many")
            assert int(answer.headers["retry-after"]) > 0
            async with reading(served, bob) as other:
                assert (await other.message())[0]["type"] == "authenticated"
    async with reading(served, ada, token=token) as reader:
        assert (await reader.message())[0]["type"] == "authenticated"


async def test_streams_leave_room_for_requests(served):
    """More of them are open than requests may be in progress."""
    normal = WebOptions(base_url="").admission.normal
    async with AsyncExitStack() as streams:
        for _ in range(normal // PER_ACCOUNT + 1):
            ada = served.user()
            token, _ = served.token(ada)
            readers = [await streams.enter_async_context(reading(served, ada, token=token)) for _ in range(PER_ACCOUNT)]
            await asyncio.gather(*(reader.message() for reader in readers))
        async with httpx.AsyncClient(base_url=served.settings.base_url, headers={"Authorization": f"Bearer {token}"}) as http:
            answers = await asyncio.gather(*(http.get("/api/users/me") for _ in range(30)))
        assert {answer.status_code for answer in answers} == {200}


async def test_head_is_answered_at_once(served):
    token, _ = served.token(served.user())
    async with httpx.AsyncClient(base_url=served.settings.base_url, timeout=5) as http:
        answer = await http.head("/api/live", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_page_of_an_allowed_origin_may_resume(served):
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization, last-event-id"}
    async with httpx.AsyncClient(base_url=served.settings.base_url) as http:
        answer = await http.options("/api/live", headers=asked)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "last-event-id" in answer.headers["access-control-allow-headers"]


def test_a_message_is_one_line_of_data_with_its_position():
    event = EventMessage(position=7, at=NOW, event="A\nB", stream="s", actor="a", dataset=None, subjects=())
    for message in (event, CaughtUp(position=7)):
        text = encoded(message)
        assert re.fullmatch(r"id: 7\ndata: [^\r\n]+\n\n", text)
        assert json.loads(text.splitlines()[1].removeprefix("data: "))["position"] == 7


@pytest.mark.long
async def test_a_quiet_stream_has_heartbeats(served):
    async with reading(served, served.user()) as reader:
        await reader.until_caught_up()
        assert await reader.all_within(LiveLimits().ping_interval_seconds + 3) == []
        assert reader.comments == [": ping"]


@pytest.mark.long
async def test_a_client_that_does_not_read_is_disconnected_and_nobody_else_waits(served):
    """Ten megabytes, more than the kernel keeps for a connection."""
    ada = served.user()
    cells = served.appended(served.dataset, ada)
    token, _ = served.token(ada)
    with served.much_to_send(cells) as after, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", served.settings.port))
        slow.sendall(f"GET /api/live?after={after} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with reading(served, ada, token=token, after=after) as quick:
            began = time.monotonic()
            assert len(await quick.until_caught_up()) == MUCH
            assert time.monotonic() - began < LiveLimits().send_timeout_seconds, (
                "the quick client did not wait until the slow one was closed"
            )
            await asyncio.sleep(50)  # 10 until its turn is over, 30 until the server notices that nothing is read
            slow.setblocking(False)
            with pytest.raises(ConnectionResetError):
                b"".join(iter(lambda: slow.recv(65536), b""))
            assert (await refusal(served, token, after="x")).status_code == 422


@pytest.mark.long
async def test_the_streams_of_a_server_that_stops_end_with_a_reason(postgres, redis_server, tmp_path):
    with live_server(postgres, redis_server, tmp_path, database=f"{DATABASE}_stops") as served:
        async with reading(served, served.user()) as reader:
            await reader.until_caught_up()
            served.process.terminate()
            assert await reader.until_closed() == 1012
        assert await asyncio.to_thread(served.process.wait, 20) == 0
