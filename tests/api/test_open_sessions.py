"""Open sessions: listed, ended by their owner and by administrators, everywhere within ten seconds and even during a request."""

import asyncio
import time
from uuid import uuid4

import pytest

from api import request as requests
from application import accounts
from domain.access import Role
from domain.session import SessionRevoked, SessionStarted
from infrastructure.container import services
from tests.api.conftest import ApiWithProjector
from tests.api.http_calls import PICTURE, dataset
from tests.api.test_sessions import ME, REFRESH, bearer, happened, login

pytestmark = pytest.mark.anyio

SESSIONS = "/api/sessions"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
EFFECTIVE_WITHIN = 10.0


async def signed_in(api, address, agent=FIREFOX):
    """A client, and its tokens."""
    http = api.anonymous(**{"User-Agent": agent})
    tokens = (await login(http, address)).json()
    http.cookies.clear()
    http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    return http, tokens


async def listed(http, path=SESSIONS):
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sessions_of(user_id):
    return f"/api/users/users/{user_id}/sessions"


def id_of(api, address):
    return accounts.find(address, api.services.log).id


async def test_each_sign_in_is_listed_with_device_address_and_times(api):
    address = api.account()
    browser, _ = await signed_in(api, address)
    program, _ = await signed_in(api, address, "bioscope/1.0 (Linux)")
    newest, first = await listed(browser)
    assert (newest["device"], newest["is_current"]) == ("bioscope command line on Linux", False)
    assert (first["device"], first["address"], first["is_current"]) == ("Firefox on Windows", "127.0.0.1", True)
    assert first["started_at"] <= first["last_used_at"] < newest["last_used_at"]
    assert [one["is_current"] for one in await listed(program)] == [True, False]


async def test_a_refresh_is_a_use(api):
    address = api.account()
    http, tokens = await signed_in(api, address)
    await signed_in(api, address)
    (before,) = [one for one in await listed(http) if one["is_current"]]
    assert (await http.post(REFRESH, json={"refresh_token": tokens["refresh_token"]})).status_code == 200
    (after,) = [one for one in await listed(http) if one["is_current"]]
    assert (await listed(http))[0] == after
    assert after["last_used_at"] > before["last_used_at"]
    assert after["started_at"] == before["started_at"]


async def test_ended_and_expired_sessions_are_not_listed(api, owner_url):
    address = api.account()
    http, _ = await signed_in(api, address)
    ended, _ = await signed_in(api, address)
    await ended.post("/api/auth/logout")
    await asyncio.to_thread(api.services.refresh_tokens.revoke, uuid4())
    assert len(await listed(http)) == 1


async def test_one_session_is_ended_and_a_repeat_changes_nothing(api):
    address = api.account()
    http, _ = await signed_in(api, address)
    other, tokens = await signed_in(api, address)
    (session_id,) = [one["id"] for one in await listed(http) if not one["is_current"]]
    for _ in range(2):
        assert (await http.delete(f"{SESSIONS}/{session_id}")).status_code == 204
    assert (await other.get(ME)).status_code == 401
    assert (await http.post(REFRESH, json={"refresh_token": tokens["refresh_token"]})).status_code == 401
    assert [(str(event.originator_id), event.reason) for event in happened(api, SessionRevoked)] == [(session_id, "ended_by_user")]
    assert (await http.get(ME)).status_code == 200


async def test_the_own_session_can_be_ended_too(api):
    http, _ = await signed_in(api, api.account())
    ((own),) = await listed(http)
    assert (await http.delete(f"{SESSIONS}/{own['id']}")).status_code == 204
    assert (await http.get(ME)).status_code == 401


async def test_all_others_are_ended_and_this_one_lasts(api):
    address = api.account()
    http, _ = await signed_in(api, address)
    others = [(await signed_in(api, address))[0] for _ in range(3)]
    stranger, _ = await signed_in(api, api.account())
    assert (await http.delete(SESSIONS)).status_code == 204
    assert [one["is_current"] for one in await listed(http)] == [True]
    assert {(await other.get(ME)).status_code for other in others} == {401}
    assert (await stranger.get(ME)).status_code == 200


async def test_sessions_of_others_and_absent_ones_are_refused_alike(api):
    http, _ = await signed_in(api, api.account())
    stranger, _ = await signed_in(api, api.account("admin"))
    (theirs,) = await listed(stranger)
    answers = [await http.delete(f"{SESSIONS}/{each}") for each in (theirs["id"], uuid4())]
    bodies = [{name: value for name, value in answer.json().items() if name != "instance"} for answer in answers]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert bodies[0] == bodies[1]
    assert (await stranger.get(ME)).status_code == 200


async def test_an_administrator_sees_and_ends_the_sessions_of_an_account(api):
    address = api.account()
    http, tokens = await signed_in(api, address)
    await signed_in(api, address)
    admin, _ = await signed_in(api, api.account("admin"))
    user_id = id_of(api, address)
    assert await listed(admin, sessions_of(user_id)) == [one | {"is_current": False} for one in await listed(http)]
    first = (await listed(admin, sessions_of(user_id)))[0]["id"]
    assert (await admin.delete(f"{sessions_of(user_id)}/{first}")).status_code == 204
    assert len(await listed(admin, sessions_of(user_id))) == 1
    (of_admin,) = await listed(admin)
    assert (await admin.delete(f"{sessions_of(user_id)}/{of_admin['id']}")).status_code == 404, "it belongs to another account"
    assert (await admin.delete(sessions_of(user_id))).status_code == 204
    assert await listed(admin, sessions_of(user_id)) == []
    assert (await http.get(ME)).status_code == 401
    assert (await http.post(REFRESH, json={"refresh_token": tokens["refresh_token"]})).status_code == 401
    assert {event.reason for event in happened(api, SessionRevoked)} == {"ended_by_administrator"}
    assert (await signed_in(api, address))[1]["access_token"], "the account can sign in again"


async def test_a_deleted_account_has_no_sessions_to_see(api):
    address = api.account()
    await signed_in(api, address)
    user_id = id_of(api, address)
    admin, _ = await signed_in(api, api.account("admin"))
    assert (await admin.delete(f"/api/users/users/{user_id}")).status_code == 204
    for method, path in (("GET", sessions_of(user_id)), ("DELETE", sessions_of(user_id)), ("GET", sessions_of(uuid4()))):
        assert (await admin.request(method, path)).status_code == 404


async def test_a_change_that_ends_sessions_is_recorded_together_with_their_end(api):
    address = api.account()
    http, _ = await signed_in(api, address)
    await signed_in(api, address)
    admin, _ = await signed_in(api, api.account("admin"))
    user_id = id_of(api, address)
    assert (await admin.patch(f"/api/users/users/{user_id}", json={"status": "suspended"})).status_code == 200
    log = api.services.log
    newest = list(log.read(0, 1000))[-3:]
    assert [one.type for one in newest] == ["SessionRevoked", "SessionRevoked", "UserStatusChanged"]
    assert {log.history(user_id)[-1].position} == {newest[-1].position}
    assert (await http.get(ME)).status_code == 401


async def test_a_session_that_has_ended_in_the_log_is_not_refreshed_even_if_its_tokens_were_left(api):
    """As after a crash between the end of a session and the deletion of its tokens."""
    address = api.account()
    http, tokens = await signed_in(api, address)
    (started,) = happened(api, SessionStarted)

    class KeptTokens:
        def __getattr__(self, name):
            return getattr(api.services.refresh_tokens, name)

        def revoke(self, session):
            """The process ends here."""

    crashing = api.with_services(refresh_tokens=KeptTokens())
    again = crashing.anonymous(**http.headers)
    assert (await again.delete(f"{SESSIONS}/{started.originator_id}")).status_code == 204
    assert await asyncio.to_thread(api.services.refresh_tokens.session_of, tokens["refresh_token"]) == started.originator_id
    for _ in range(2):
        assert (await api.anonymous().post(REFRESH, json={"refresh_token": tokens["refresh_token"]})).status_code == 401
    assert await asyncio.to_thread(api.services.refresh_tokens.session_of, tokens["refresh_token"]) is None


async def upload_during(http, cells, interruption):
    """The status of an upload, in the midst of whose body `interruption` happens."""
    boundary = "limit"
    fields = f'--{boundary}\r\nContent-Disposition: form-data; name="dataset_id"\r\n\r\n{cells}\r\n'.encode()
    file = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'.encode()

    async def body():
        yield fields + file + PICTURE[:100]
        await interruption()
        yield PICTURE[100:] + f"\r\n--{boundary}--\r\n".encode()

    length = len(fields) + len(file) + len(PICTURE) + len(boundary) + 8
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
    return (await http.post("/api/images/upload", content=body(), headers=headers)).status_code


async def nothing_happens():
    """For comparison."""


async def test_an_upload_does_not_outlast_its_session(api, monkeypatch):
    monkeypatch.setattr(requests, "AUTHENTICATED_FOR_SECONDS", 0.0)
    http, _ = await signed_in(api, api.account())
    cells = await dataset(http)
    (own,) = await listed(http)

    async def end():
        assert (await http.delete(f"{SESSIONS}/{own['id']}")).status_code == 204

    assert [await upload_during(http, cells, each) for each in (nothing_happens, end)] == [201, 401]


async def test_an_upload_does_not_outlast_its_key_nor_the_role_of_its_owner(api, monkeypatch):
    monkeypatch.setattr(requests, "AUTHENTICATED_FOR_SECONDS", 0.0)
    owner = await api.client(Role.ANALYST)
    admin = await api.client(Role.ADMIN)
    cells = await dataset(owner)
    issued = [(await owner.post("/api/keys", json={"name": name, "scopes": ["images:write"]})).json() for name in ("first", "second")]
    first, second = (api.anonymous(Authorization=f"Bearer {one['key']}") for one in issued)

    async def revoke():
        assert (await owner.delete(f"/api/keys/{issued[0]['id']}")).status_code == 204

    async def demote():
        user_id = (await owner.get(ME)).json()["id"]
        assert (await admin.patch(f"/api/users/users/{user_id}", json={"role": Role.VIEWER})).status_code == 200

    assert [await upload_during(first, cells, each) for each in (nothing_happens, revoke)] == [201, 401]
    assert [await upload_during(second, cells, each) for each in (nothing_happens, demote)] == [201, 403]


async def test_another_process_learns_within_ten_seconds_of_an_end_and_of_a_lost_role(api, lab_settings):
    address = api.account("admin")
    http, _ = await signed_in(api, address)
    ended, _ = await signed_in(api, address)
    demoted, _ = await signed_in(api, api.account("admin"))
    admin, _ = await signed_in(api, api.account("admin"))
    of_demoted = (await demoted.get(ME)).json()["id"]
    (session_id,) = [one["id"] for one in await listed(http) if not one["is_current"]]
    other = ApiWithProjector(services(lab_settings), api.options)
    async with other.app.lifespan():
        there_ended, there_demoted = (other.anonymous(**one.headers) for one in (ended, demoted))
        assert (await there_ended.get(ME)).status_code == (await there_demoted.get("/api/users/users")).status_code == 200
        began = time.monotonic()
        assert (await http.delete(f"{SESSIONS}/{session_id}")).status_code == 204
        assert (await admin.patch(f"/api/users/users/{of_demoted}", json={"role": Role.VIEWER})).status_code == 200
        assert (await ended.get(ME)).status_code == 401, "at once in the process that ended it"
        assert (await demoted.get("/api/users/users")).status_code == 403
        while ((await there_ended.get(ME)).status_code, (await there_demoted.get("/api/users/users")).status_code) != (401, 403):
            assert time.monotonic() - began < EFFECTIVE_WITHIN
            await asyncio.sleep(0.2)


async def test_one_token_used_thirty_two_times_at_once_by_two_processes_has_one_child(api, lab_settings):
    _, tokens = await signed_in(api, api.account())
    other = ApiWithProjector(services(lab_settings), api.options)
    async with other.app.lifespan():
        clients = [each.anonymous() for each in (api, other) for _ in range(16)]
        answers = await asyncio.gather(*(http.post(REFRESH, headers=bearer(tokens["refresh_token"])) for http in clients))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
