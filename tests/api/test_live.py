"""Live status from the real server: complete, in order, filtered by access rights, and closed when it must be."""

import asyncio
import json
import random
import socket
import time
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from api.live.feed import OUTDATED
from api.options import LiveLimits
from application import datasets, models, teams
from application.key_identities import SECRET
from application.key_text import KeySecret
from application.ports import Secret
from domain import api_key, classification, session
from domain.access import Grant, Role, Scope
from domain.api_key import OwnerKind
from tests.api.live_messages import expected_events, receive, send
from tests.api.live_server import MUCH, ORIGIN, live_server
from tests.rigs.scenario import SYSTEM

pytestmark = pytest.mark.anyio
DATABASE = "test_live"


@pytest.fixture(scope="module")
def served(postgres, redis_server, tmp_path_factory):
    with live_server(postgres, redis_server, tmp_path_factory.mktemp("live"), database=DATABASE) as served:
        yield served


async def test_a_socket_under_a_foreign_name_is_not_opened(served):
    """As a page elsewhere asks whose name leads to this machine."""
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    url = served.url.replace("ws:", "http:")
    assert httpx.get(url, headers=handshake | {"Host": "evil.example"}).status_code in {403, 421}


async def until_caught_up(watch):
    """The events up to the next moment at which there is nothing more, and that moment's position."""
    events = []
    while (body := await receive(watch))["type"] != "caught_up":
        if body["type"] == "event":
            events.append(body)
    return events, body["position"]


async def closed(watch, within=30):
    """With which code."""
    try:
        async with asyncio.timeout(within):
            while True:
                await watch.recv()
    except ConnectionClosed as ended:
        return ended.rcvd.code if ended.rcvd else None


async def until_passed(watch, marker):
    """The types of the events before the one of that image."""
    types = []
    while (found := await receive(watch)).get("stream") != marker:
        types += [found["event"]] if found["type"] == "event" else []
    return types


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
    observed, drops, after = [], 0, 0
    while not (writing.done() and after >= writing.result()):
        async with served.watching(ada, after=after) as watch:
            for _ in range(chance.randrange(1, 40)):
                body = await receive(watch)
                if body["type"] == "event":
                    observed.append((body["position"], body["event"]))
                after = body.get("position", after)
                if writing.done() and after >= writing.result():
                    break
            watch.transport.abort()
            drops += 1
    assert drops > 5
    assert observed == expected_events(served, ada, cells, until=after)


async def test_without_a_position_one_hears_from_now_on(served):
    ada = served.user()
    cells = served.appended(served.dataset, ada)
    async with served.watching(ada) as watch:
        assert (await until_caught_up(watch))[0] == []
        served.follow()
        assert [event["event"] for event in (await until_caught_up(watch))[0]] == ["SessionStarted"]
        uploaded = served.appended(served.image, ada, cells)
        (event,), position = await until_caught_up(watch)
        assert (event["event"], event["stream"], event["dataset"]) == ("ImageUploaded", str(uploaded), str(cells))
        assert event["subjects"] == [str(uploaded), str(cells)]
        assert event["position"] == position


async def test_foreign_datasets_are_not_heard_of_until_they_are_shared_and_not_after(served):
    ada, bob = served.user(), served.user(name="bob")
    cells, own = served.dataset(ada), served.dataset(bob)
    served.follow()
    async with served.watching(bob, datasets=[cells, own]) as watch:
        await until_caught_up(watch)
        served.image(ada, cells)
        assert await until_passed(watch, served.mark(bob, own)) == []
        served.share(ada, cells, bob, Grant.VIEWER)
        assert await until_passed(watch, served.mark(bob, own)) == ["DatasetShared"]
        served.image(ada, cells)
        assert await until_passed(watch, served.mark(bob, own)) == ["ImageUploaded"]
        datasets.withdraw(cells, user_id=bob.id, command=served.command(ada), log=served.log)
        served.follow()
        served.image(ada, cells)
        assert await until_passed(watch, served.mark(bob, own)) in ([], ["DatasetShareWithdrawn"])


async def test_a_member_of_a_team_is_told_of_its_datasets_from_then_on_and_no_longer_than_that(served):
    ada, bob = served.user(), served.user()
    cells, own, group = served.dataset(ada), served.dataset(bob), served.team(ada)
    served.share_with_team(ada, cells, group, Grant.VIEWER)
    served.follow()
    async with served.watching(bob, datasets=[cells, own]) as watch:
        await until_caught_up(watch)
        served.image(ada, cells)
        assert await until_passed(watch, served.mark(bob, own)) == []
        teams.add_member(group, user_id=bob.id, command=served.command(ada), log=served.log)
        served.image(ada, cells)
        assert await until_passed(watch, served.mark(bob, own)) == ["ImageUploaded"]
        teams.remove_member(group, user_id=bob.id, command=served.command(ada), log=served.log)
        served.follow()
        served.image(ada, cells)
        assert await until_passed(watch, served.mark(bob, own)) == []


async def test_only_the_requested_datasets_are_reported(served):
    ada = served.user()
    cells, others = served.dataset(ada, "cells"), served.dataset(ada, "others")
    served.image(ada, cells)
    served.image(ada, others)
    served.follow()
    async with served.watching(ada, after=0, datasets=[others]) as watch:
        events, _ = await until_caught_up(watch)
        assert {event["dataset"] for event in events} == {str(others)}
        await send(watch, type="subscribe", after=0, datasets=[cells])
        events, _ = await until_caught_up(watch)
        assert {event["dataset"] for event in events} == {str(cells)}


async def test_an_event_of_a_job_carries_its_progress(served):
    ada = served.user()
    served.model()
    cells = served.dataset(ada)
    images = [served.image(ada, cells, f"{number}.png") for number in range(4)]
    served.follow()
    async with served.watching(ada) as watch:
        await until_caught_up(watch)
        served.follow()
        await until_caught_up(watch)
        job = served.appended(served.job, ada, dataset=cells)
        progress = [(await until_caught_up(watch))[0][-1]["job"]]
        served.appended(served.plan, job, images)
        progress.append((await until_caught_up(watch))[0][-1]["job"])
        served.appended(served.judge, job, 0, images[:3], images[3:])
        (judged,), _ = await until_caught_up(watch)
        progress.append(judged["job"])
        served.change(job, classification, lambda it: classification.complete(it, succeeded=3, failed=1, by=SYSTEM.id, at=served.now))
        served.follow()
        progress.append((await until_caught_up(watch))[0][-1]["job"])
    assert all(one["id"] == str(job) for one in progress)
    assert [(one["status"], one["images"], one["judged"], one["succeeded"], one["failed"]) for one in progress] == [
        ("pending", 0, 0, 0, 0),
        ("running", 4, 0, 0, 0),
        ("running", 4, 1, 3, 1),
        ("completed", 4, 1, 3, 1),
    ]
    assert {str(one) for one in images} <= set(judged["subjects"])
    assert set(judged) == {"type", "position", "at", "event", "stream", "actor", "dataset", "subjects", "job"}
    assert not {"label", "confidence", "value"} & set(judged["job"])


HANGING = "select count(*) from pg_locks where relation = 'read.activity'::regclass and not granted"


async def test_subscriptions_take_no_connection_from_queries(served, postgres):
    """Their queries hang, since the table that only they read is locked."""
    ada = served.user()
    cells = served.appended(served.dataset, ada)
    headers = {"Authorization": f"Bearer {served.token(ada)[0]}"}
    async with (
        httpx.AsyncClient(base_url=served.settings.base_url, headers=headers) as http,
        await psycopg.AsyncConnection.connect(postgres.url(user="postgres", database=DATABASE)) as owner,
        AsyncExitStack() as sockets,
    ):
        watches = [await sockets.enter_async_context(served.watching(served.user())) for _ in range(12)]
        await asyncio.gather(*(until_caught_up(watch) for watch in watches))
        await owner.execute("lock table read.activity in access exclusive mode")
        for watch in watches:
            await send(watch, type="subscribe", after=0)
        while (hanging := (await (await owner.execute(HANGING)).fetchone())[0]) < served.settings.live_connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        hanging = max(hanging, (await (await owner.execute(HANGING)).fetchone())[0])
        assert hanging == served.settings.live_connections
        answers = [await http.get("/api/datasets/") for _ in range(5)]
        await owner.rollback()
        assert [[one["id"] for one in answer.json()] for answer in answers] == [[str(cells)]] * 5
        await asyncio.gather(*(until_caught_up(watch) for watch in watches))


@pytest.mark.parametrize("origin", ["http://evil.example.org", "null", "http://web.example.org.evil.org", "https://web.example.org"])
async def test_a_foreign_origin_is_refused_with_a_reason(served, origin):
    async with served.connected(origin=origin) as watch:
        assert await closed(watch) == 4403


async def test_our_own_origin_and_those_named_may_watch(served):
    own = served.settings.base_url
    for origin in (own, own.replace("127.0.0.1", "localhost"), ORIGIN, None):
        async with served.connected(origin=origin) as watch:
            await send(watch, type="auth", token=served.token(served.user())[0])
            assert (await receive(watch))["type"] == "authenticated"


WRONG = {
    "no JSON": ("{", 4400),
    "an unknown word": ('{"type":"hello"}', 4400),
    "an unknown field": ('{"type":"ping","more":1}', 4400),
    "a negative position": ('{"type":"subscribe","after":-1}', 4400),
    "bytes": (b"\x00", 4400),
    "too long": (json.dumps({"type": "auth", "token": "x" * 70_000}), 1009),
    "somebody else's word": ('{"type":"auth","token":"nonsense"}', 4401),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_not_understood_closes_and_says_why(served, wrong):
    body, code = WRONG[wrong]
    async with served.watching(served.user()) as watch:
        await watch.send(body)
        assert await closed(watch) == code


async def test_who_does_not_say_who_he_is_hears_nothing(served):
    async with served.connected() as silent, served.connected() as rude, served.connected() as liar:
        await send(rude, type="subscribe", after=0)
        await send(liar, type="auth", token="nonsense")
        assert [await closed(rude), await closed(liar), await closed(silent)] == [4401, 4401, 4401]


@pytest.mark.parametrize(("scope", "code"), [("events:read", None), ("images:read", 4403)])
async def test_a_program_watches_everything_or_nothing(served, scope, code):
    cells = served.appended(served.dataset, served.user())
    async with served.connected() as watch:
        await send(watch, type="auth", token=served.service_token(scope))
        if code is not None:
            assert await closed(watch) == code
            return
        assert (await receive(watch))["type"] == "authenticated"
        await send(watch, type="subscribe", after=0, datasets=[cells])
        assert [event["event"] for event in (await until_caught_up(watch))[0]] == ["DatasetCreated"]


async def test_too_many_messages_close(served):
    async with served.watching(served.user()) as watch:
        for _ in range(25):
            await send(watch, type="ping")
        assert await closed(watch) == 4429


async def test_a_ping_is_answered(served):
    async with served.watching(served.user()) as watch:
        await until_caught_up(watch)
        await send(watch, type="ping")
        assert (await receive(watch))["type"] == "pong"


async def test_a_revoked_session_is_closed_and_others_are_not(served):
    ada = served.user()
    token, revoked = served.token(ada)
    async with served.connected() as watch, served.watching(ada) as other:
        await send(watch, type="auth", token=token)
        await send(watch, type="subscribe", after=0)
        served.change(revoked, session, lambda it: session.revoke(it, session.Reason.LOGOUT, by=ada.id, at=served.now))
        assert await asyncio.wait_for(closed(watch), 15) == 4401
        await send(other, type="ping")
        while (await receive(other))["type"] != "pong":
            pass


async def test_a_token_that_ends_closes_unless_a_newer_one_came(served):
    ada = served.user()
    async with served.watching(ada, ttl=4) as careless, served.watching(ada, ttl=4) as careful:
        await send(careful, type="auth", token=served.token(ada)[0])
        assert await closed(careless) == 4401
        await send(careful, type="ping")
        while (await receive(careful))["type"] != "pong":
            pass
        await send(careful, type="auth", token=served.token(served.user())[0])
        assert await closed(careful) == 4401


@pytest.mark.long
async def test_who_does_not_take_what_is_sent_is_closed_and_nobody_else_waits(served):
    """Ten megabytes, more than the kernel keeps for a connection."""
    ada = served.user()
    cells = served.appended(served.dataset, ada)
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", served.settings.port))
    with served.much_to_send(cells) as after:
        async with served.watching(ada, after=after) as quick, served.connected(sock=narrow, max_queue=1) as slow:
            await send(slow, type="auth", token=served.token(ada)[0])
            await send(slow, type="subscribe", after=after)
            began = time.monotonic()
            events, _ = await until_caught_up(quick)
            assert len(events) == MUCH
            assert time.monotonic() - began < LiveLimits().send_timeout_seconds, (
                "the quick client did not wait until the slow one was closed"
            )
            await asyncio.sleep(14)
            assert await closed(slow) in {None, 4408}
            await send(quick, type="ping")
            assert (await receive(quick))["type"] in {"pong", "ping"}


async def test_nobody_watches_on_once_a_newer_release_wrote_about_their_account(served):
    """It may have been closed in a way that this release does not know."""
    ada = served.user()
    async with served.watching(ada) as watch:
        with written_by_a_newer_release(served.owner_url, ada.id):
            await asyncio.wait_for(watch.wait_closed(), 20)
        assert (watch.close_code, watch.close_reason) == (1011, OUTDATED)


@contextmanager
def written_by_a_newer_release(owner_url, stream):
    """While the block runs, the stream has one more event, of a type that nobody knows here."""
    with psycopg.connect(owner_url, autocommit=True, options="-c session_replication_role=replica") as owner:
        owner.execute(
            """insert into es.events select 1000000, originator_id, originator_version + 1, 'UserLocked', 1, '{}', '{}',
            gen_random_uuid(), now(), '' from es.events where originator_id = %s order by originator_version desc limit 1""",
            (stream,),
        )
        (newest,) = owner.execute("select newest from es.streams where stream = %s", (stream,)).fetchone()
        owner.execute("update es.streams set newest = 1000000, version = version + 1 where stream = %s", (stream,))
        yield
        owner.execute("update es.streams set newest = %s, version = version - 1 where stream = %s", (newest, stream))
        owner.execute("delete from es.events where notification_id = 1000000")


async def test_events_of_models_reach_administrators_and_the_accounts_that_they_concern(served):
    ada, bob, eve, admin = served.user(), served.user(name="bob"), served.user(name="eve"), served.user(Role.ADMIN, name="carol")
    name, start = f"cells-{ada.id}", served.follow()
    passed, failed = served.package(ada), served.package(ada)
    served.pass_check(passed, name=name)
    served.fail_check(failed)
    models.add_promoter(name=name, user_id=bob.id, command=served.command(admin), log=served.log)
    models.move_alias(name=name, alias="production", number=1, reason="canary", command=served.command(bob), log=served.log)
    end = served.follow()
    checked = ["ModelPackageUploaded", "ModelPackageUploaded", "ModelCheckPassed", "ModelCheckFailed"]
    assert await heard_of_models(served, ada, start, end) == checked
    assert await heard_of_models(served, bob, start, end) == ["ModelPromoterAdded"]
    assert await heard_of_models(served, eve, start, end) == []
    assert sorted(await heard_of_models(served, admin, start, end)) == sorted(
        [*checked, "ModelVersionAdded", "ModelAliasMoved", "ModelPromoterAdded", "ModelAliasMoved"]
    )


async def heard_of_models(served, member, after, until):
    """The types of the events of models between two positions, none of which contains a private text."""
    async with served.watching(member, after=after) as watch:
        events, position = await until_caught_up(watch)
        while position < until:
            more, position = await until_caught_up(watch)
            events += more
    assert "canary" not in json.dumps(events)
    return [event["event"] for event in events if event["event"].startswith("Model")]


async def test_a_limited_key_hears_of_its_datasets_only_until_it_is_revoked(served):
    ada = served.user()
    first, second = served.dataset(ada), served.dataset(ada)
    secret, key = KeySecret(), uuid4()
    about = {"name": "wall", "scopes": [Scope.EVENTS_READ], "owner": ada.id, "owner_kind": OwnerKind.USER, "secret_hash": secret.hash}
    at = datetime.now(UTC)
    issued = api_key.issue(key, datasets=[first], by=ada.id, at=at, **about)
    served.log.append(served.command(ada), issued, secrets=[Secret(kind=SECRET, owner=key, value=secret.hash)])
    served.follow()
    async with served.connected() as watch:
        await send(watch, type="auth", token=secret.text(key))
        assert (await receive(watch))["type"] == "authenticated"
        await send(watch, type="subscribe", after=0)
        events, _ = await until_caught_up(watch)
        assert {event["dataset"] for event in events} == {str(first)}
        served.appended(served.image, ada, second)
        mine = served.appended(served.image, ada, first)
        news = await receive(watch)
        while news["type"] != "event":
            news = await receive(watch)
        assert news["stream"] == str(mine)
        revoked = api_key.revoke(served.log.load(key, api_key.evolve), by=ada.id, at=at)
        served.appended(served.log.append, served.command(ada), *revoked)
        assert await closed(watch) == 4401
