"""Registration, sign-in, refresh and sign-out: the contract, and attacks."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import psycopg
import pytest

from application import accounts, sessions
from application.passwords import NewPassword
from domain import session
from domain.access import Actor, Role
from domain.errors import NotAuthenticated
from domain.session import RefreshReuseDetected, SessionRevoked, SessionStarted
from tests.api.conftest import ORIGIN, PASSWORD
from tests.given import command

pytestmark = pytest.mark.anyio

REFRESH, LOGOUT, ME = "/api/auth/refresh", "/api/auth/logout", "/api/users/me"
SOMEBODY = {"email": "ada@example.org", "username": "ada", "first_name": "Ada", "last_name": "Byron", "password": PASSWORD}
JSON = {"Content-Type": "application/json"}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def login(http, address, password=PASSWORD):
    return await http.post("/api/auth/login", json={"email": address, "password": password})


async def tokens_of(api, role="researcher"):
    """Somebody new: a client without cookies or headers, and the pair of tokens."""
    http = api.anonymous()
    answer = await login(http, api.account(role))
    http.cookies.clear()
    return http, answer.json()


def happened(api, kind):
    log = api.services.log
    return [event for one in log.read(0, 1000) if isinstance(event := log.decode(one), kind)]


def age(owner_url, seconds):
    """All refresh tokens as if they had been used so much earlier."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("update es.refresh_tokens set used_at = used_at - make_interval(secs => %s)", [seconds])


# ---- registering -------------------------------------------------------------------------------------------------------------------
async def test_who_registers_is_a_viewer_and_may_sign_in_at_once(api):
    http = api.anonymous()
    made = await http.post("/api/auth/register", json=SOMEBODY)
    assert (made.status_code, set(made.json()), made.json()["email"]) == (201, {"id", "email"}, SOMEBODY["email"])
    answer = await login(http, SOMEBODY["email"])
    assert answer.status_code == 200
    me = (await http.get(ME, headers=bearer(answer.json()["access_token"]))).json()
    assert (me["id"], me["role"], me["status"]) == (made.json()["id"], "viewer", "active")


async def test_a_taken_address_is_distinguished_from_a_taken_name(api):
    http = api.anonymous()
    await http.post("/api/auth/register", json=SOMEBODY)
    for change, detail in (
        ({"username": "other"}, "Email already used"),
        ({"username": "other", "email": "ADA@Example.ORG"}, "Email already used"),
        ({"email": "other@example.org", "username": "\uff21\uff24\uff21"}, "Username already used"),
    ):
        answer = await http.post("/api/auth/register", json=SOMEBODY | change)
        assert (answer.status_code, answer.json()["detail"], answer.json()["code"]) == (409, detail, "taken")


async def test_of_many_who_register_one_address_at_once_one_wins(api):
    http = api.anonymous()
    expected = [SOMEBODY | {"username": f"ada{n}", "email": "ada@example.org" if n % 2 else "Ada@EXAMPLE.org"} for n in range(16)]
    answers = await asyncio.gather(*(http.post("/api/auth/register", json=body) for body in expected))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 15


async def test_a_registration_names_the_field_that_is_wrong_without_echoing_it(api):
    http = api.anonymous()
    for change, field in (
        ({"password": "short"}, "password"),
        ({"password": "passwordpassword"}, "password"),
        ({"password": "a" * 20}, "password"),
        ({"email": "nowhere"}, "email"),
        ({"username": "ab"}, "username"),
        ({"first_name": ""}, "first_name"),
        ({"first_name": "a\x07b"}, "first_name"),
        ({"last_name": "x" * 51}, "last_name"),
        ({"role": "admin"}, "role"),
        ({"id": "00000000-0000-4000-8000-000000000000"}, "id"),
    ):
        answer = await http.post("/api/auth/register", json=SOMEBODY | change)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert answer.json()["errors"][0]["loc"] == ["body", field]
        assert PASSWORD not in answer.text
        assert "passwordpassword" not in answer.text
    assert api.services.log.head() == 0


async def test_registrations_of_one_address_are_limited(api):
    http = api.anonymous()
    for _ in range(api.services.sign_in_limits.rates.registrations_per_hour):
        api.services.sign_in_limits.registration("127.0.0.1")
    answer = await http.post("/api/auth/register", json=SOMEBODY)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many")
    assert int(answer.headers["retry-after"]) > 0


# ---- signing in --------------------------------------------------------------------------------------------------------------------
async def test_signing_in_gives_both_tokens_and_a_cookie_that_scripts_cannot_read(api):
    answer = await login(api.anonymous(), api.account())
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"access_token", "token_type", "refresh_token", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("bearer", 600)
    name, *attributes = [part.strip() for part in answer.headers["set-cookie"].split(";")]
    assert name == f"refresh_token={body['refresh_token']}"
    assert {attribute.lower() for attribute in attributes} == {"httponly", "samesite=strict", "path=/api/auth", "max-age=604800"}
    assert answer.headers["cache-control"] == "no-store"


async def test_over_tls_the_cookie_is_secure_and_browsers_stay_with_tls(api):
    app = api.with_options(secure_cookies=True, base_url="https://bioscope.example.org").app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://bioscope.example.org") as http:
        answer = await login(http, api.account())
        assert "secure" in {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        again = await http.post(REFRESH, headers={"Origin": "https://bioscope.example.org"})
        assert again.status_code == 200, "by the cookie that the client kept"


async def test_below_a_path_cookies_links_and_the_description_carry_it(api):
    app = api.with_options(base_url="https://lab.example.org/bioscope").app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://lab.example.org") as http:
        answer = await login(http, api.account())
        assert "path=/bioscope/api/auth" in {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
        cookie = {"Cookie": f"refresh_token={answer.json()['refresh_token']}"}
        stranger = await http.post(REFRESH, headers=cookie | {"Origin": "https://lab.example.org.evil"})
        assert stranger.status_code == 403
        assert (await http.post(REFRESH, headers=cookie | {"Origin": "https://lab.example.org"})).status_code == 200
        assert (await http.get("/api/openapi.json")).json()["servers"] == [{"url": "/bioscope"}]
    assert (await api.anonymous().get("/api/openapi.json")).json()["servers"] == [{"url": "/"}]


async def test_the_form_of_the_documentation_signs_in_too(api):
    address = api.account()
    form = {"grant_type": "password", "username": address, "password": PASSWORD, "scope": "", "client_id": ""}
    http = api.anonymous()
    answer = await http.post("/api/auth/login-swagger", data=form)
    assert answer.status_code == 200
    assert (await http.get(ME, headers=bearer(answer.json()["access_token"]))).json()["email"] == address
    assert (await http.post("/api/auth/login-swagger", json=form)).status_code == 415
    missing = await http.post("/api/auth/login-swagger", data={"username": address})
    assert (missing.status_code, missing.json()["errors"][0]["loc"]) == (422, ["body", "password"])


async def test_every_refused_sign_in_looks_the_same(api):
    http, admin = api.anonymous(), await api.client("admin")
    suspended, deleted = api.account(), api.account()
    for address, method, body in ((suspended, "PATCH", {"status": "suspended"}), (deleted, "DELETE", None)):
        user_id = api.services.log.claimed("email", address)
        assert (await admin.request(method, f"/api/users/users/{user_id}", json=body)).is_success
    answers = [
        await login(http, api.account(), "not the password 1"),
        await login(http, "nobody@example.org"),
        await login(http, "not even an address"),
        await login(http, suspended),
        await login(http, deleted),
    ]
    bodies = [{name: value for name, value in answer.json().items() if name != "instance"} for answer in answers]
    assert [body["detail"] for body in bodies] == ["Invalid credentials"] * 5
    assert all(body == bodies[0] for body in bodies)
    assert {answer.status_code for answer in answers} == {401}
    assert {frozenset(answer.headers) for answer in answers} == {frozenset(answers[0].headers)}


class Meanwhile:
    """A port whose method `name` does `then` as well, the first time, before or after."""

    def __init__(self, real, name, then, *, before=False):
        self._real, self._name, self._then, self._before = real, name, [then], before

    def __getattr__(self, name):
        real = getattr(self._real, name)
        if name != self._name:
            return real

        def called(*args, **kwargs):
            if self._then and self._before:
                self._then.pop()()
            found = real(*args, **kwargs)
            if self._then:
                self._then.pop()()
            return found

        return called


@pytest.mark.parametrize("change", ["password", "status"])
async def test_an_account_that_changes_during_a_sign_in_lets_nobody_in_on_its_old_state(api, change):
    given, address = api.services, api.account()
    me = accounts.find(address, given.log)
    ports = {"log": given.log, "passwords": given.passwords, "tokens": given.refresh_tokens, "sign_in_limits": given.sign_in_limits}
    expected = {
        "password": {"password": NewPassword(password="another horse battery 9", signed_in_for=0)},
        "status": {"status": accounts.Status.SUSPENDED},
    }[change]
    actor = Actor(id=me.id if change == "password" else uuid4(), role=Role.ADMIN)

    def changed():
        accounts.update(me.id, profile={}, **expected, command=command(actor), **ports)

    def sign_in(**meanwhile):
        query = {"email": address, "password": PASSWORD, "address": "", "network": "", "agent": ""}
        return sessions.sign_in(**query, command=command(at=datetime.now(UTC)), **ports | meanwhile)

    def back():
        old = {"password": NewPassword(password=PASSWORD, signed_in_for=0)} if change == "password" else {"status": accounts.Status.ACTIVE}
        accounts.update(me.id, profile={}, **old, command=command(actor), **ports)

    for meanwhile in (
        {"passwords": Meanwhile(given.passwords, "matching", changed)},
        {"tokens": Meanwhile(given.refresh_tokens, "issue", changed, before=True)},
        {"tokens": Meanwhile(given.refresh_tokens, "issue", changed)},
    ):
        with pytest.raises(NotAuthenticated):
            sign_in(**meanwhile)
        back()
    token = sign_in(log=Meanwhile(given.log, "append", changed)).refresh_token
    with pytest.raises(NotAuthenticated):
        given.refresh_tokens.rotate(token, at=datetime.now(UTC))
    started = happened(api, SessionStarted)
    assert started
    assert all(revoked(api, event.originator_id) for event in started)
    back()
    assert given.refresh_tokens.rotate(sign_in().refresh_token, at=datetime.now(UTC)), "without a change meanwhile it lasts"


def revoked(api, session_id):
    return api.services.log.load(session_id, session.evolve).revoked


async def test_a_password_is_hashed_once_for_an_unknown_account_as_for_a_known_one(api):
    class CountedPasswords:
        hashed = 0

        def __getattr__(self, name):
            return getattr(api.services.passwords, name)

        def matching(self, *given, **how):
            self.hashed += 1
            return api.services.passwords.matching(*given, **how)

    counted = CountedPasswords()
    http = api.with_services(passwords=counted).anonymous()
    for number, address in enumerate((api.account(), "nobody@example.org"), 1):
        assert (await login(http, address, "not the password 1")).status_code == 401
        assert counted.hashed == number


# ---- staying signed in -------------------------------------------------------------------------------------------------------------
async def test_a_refresh_token_is_taken_from_body_bearer_or_cookie(api):
    for sent in (
        lambda token: {"json": {"refresh_token": token}},
        lambda token: {"headers": bearer(token) | JSON},
        lambda token: {"headers": bearer(token)},
        lambda token: {"headers": {"Cookie": f"refresh_token={token}", "Origin": ORIGIN} | JSON},
        lambda token: {"headers": {"Cookie": f"refresh_token={token}", "Origin": api.url}},
        lambda token: {"headers": {"Cookie": f"refresh_token={token}", "X-Requested-With": "fetch"} | bearer("an.access.token")},
    ):
        http, body = await tokens_of(api)
        answer = await http.post(REFRESH, **sent(body["refresh_token"]))
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"access_token", "token_type", "refresh_token", "expires_in"}
        assert answer.json()["refresh_token"] != body["refresh_token"]
        assert f"refresh_token={answer.json()['refresh_token']}" in answer.headers["set-cookie"]
        assert (await http.get(ME, headers=bearer(answer.json()["access_token"]))).status_code == 200


async def test_a_cookie_is_not_taken_from_another_sites_page(api):
    http, body = await tokens_of(api)
    cookie = {"Cookie": f"refresh_token={body['refresh_token']}"}
    others = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://["}, {}]
    for more in (*others, {"Origin": "https://evil.example", "X-Requested-With": "x"}):
        for path in (REFRESH, LOGOUT):
            answer = await http.post(path, headers=cookie | more)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await http.post(REFRESH, json={"refresh_token": body["refresh_token"]})).status_code == 200


async def test_one_token_used_thirty_two_times_at_once_has_one_child(api):
    http, body = await tokens_of(api)
    answers = await asyncio.gather(*(http.post(REFRESH, headers=bearer(body["refresh_token"])) for _ in range(32)))
    assert {answer.status_code for answer in answers} == {200}
    (child,) = {answer.json()["refresh_token"] for answer in answers}
    assert (await http.post(REFRESH, json={"refresh_token": child})).status_code == 200
    assert happened(api, RefreshReuseDetected) == []


async def test_a_token_used_again_after_its_grace_ends_the_whole_session_and_is_recorded(api, owner_url):
    http, body = await tokens_of(api)
    child = (await http.post(REFRESH, json={"refresh_token": body["refresh_token"]})).json()
    assert (await http.get(ME, headers=bearer(child["access_token"]))).status_code == 200
    age(owner_url, 11)
    again = await http.post(REFRESH, json={"refresh_token": body["refresh_token"]})
    assert (again.status_code, again.json()["detail"]) == (401, "Invalid or expired refresh token")
    for token in (body, child):
        assert (await http.post(REFRESH, json={"refresh_token": token["refresh_token"]})).status_code == 401
        refused = await http.get(ME, headers=bearer(token["access_token"]))
        assert (refused.status_code, refused.json()["detail"]) == (401, "Invalid token")
    assert len(happened(api, RefreshReuseDetected)) == 1
    assert [event.reason for event in happened(api, SessionRevoked)] == ["refresh_token_reused"]


async def test_a_missing_and_an_unknown_token_are_refused_in_the_words_of_the_contract(api):
    http = api.anonymous()
    for sent in (
        {},
        {"headers": JSON},
        {"json": {}},
        {"json": {"refresh_token": None}},
        {"json": None},
        {"headers": {"Authorization": "Bearer"}},
    ):
        answer = await http.post(REFRESH, **sent)
        assert (answer.status_code, answer.json()["detail"]) == (401, "Refresh token missing"), sent
        assert answer.headers["www-authenticate"] == "Bearer"
    for token in ("x", "a" * 5000, "\N{SNOWMAN}"):
        answer = await http.post(REFRESH, json={"refresh_token": token})
        assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid or expired refresh token")


async def test_an_access_token_refreshes_nothing_and_a_refresh_token_opens_nothing(api):
    http, body = await tokens_of(api)
    assert (await http.post(REFRESH, json={"refresh_token": body["access_token"]})).status_code == 401
    assert (await http.post(REFRESH, headers=bearer(body["access_token"]))).json()["detail"] == "Refresh token missing"
    assert (await http.get(ME, headers=bearer(body["refresh_token"]))).status_code == 401


# ---- signing out -------------------------------------------------------------------------------------------------------------------
WAYS_OUT = {
    "access token": lambda tokens: {"headers": bearer(tokens["access_token"]) | JSON},
    "refresh token": lambda tokens: {"json": {"refresh_token": tokens["refresh_token"]}},
    "refresh token as bearer": lambda tokens: {"headers": bearer(tokens["refresh_token"])},
    "cookie": lambda tokens: {"headers": {"Cookie": f"refresh_token={tokens['refresh_token']}", "Origin": ORIGIN}},
    "unknown refresh token": lambda tokens: {"json": {"refresh_token": "unknown"}, "headers": bearer(tokens["access_token"])},
    "access token and cookie": lambda tokens: {
        "headers": bearer(tokens["access_token"]) | {"Cookie": f"refresh_token={tokens['refresh_token']}"}
    },
    "ended access token": lambda tokens: {"json": {"refresh_token": tokens["refresh_token"]}, "headers": bearer("not.a.token")},
}


async def test_signing_out_ends_the_session_at_once(api):
    for number, sent in enumerate(WAYS_OUT.values(), 1):
        http, body = await tokens_of(api)
        assert (await http.get(ME, headers=bearer(body["access_token"]))).status_code == 200
        answer = await http.post(LOGOUT, **sent(body))
        assert (answer.status_code, answer.content) == (204, b"")
        assert "max-age=0" in answer.headers["set-cookie"].lower()
        assert body["refresh_token"] not in answer.headers["set-cookie"]
        assert (await http.get(ME, headers=bearer(body["access_token"]))).status_code == 401
        assert (await http.post(REFRESH, json={"refresh_token": body["refresh_token"]})).status_code == 401
        assert [event.reason for event in happened(api, SessionRevoked)] == ["logout"] * number
        assert (await http.post(LOGOUT, **sent(body))).status_code == 204


async def test_signing_out_without_any_token_we_know(api):
    http = api.anonymous()
    nothing = await http.post(LOGOUT)
    assert (nothing.status_code, nothing.json()["detail"]) == (401, "Refresh token missing")
    assert (await http.post(LOGOUT, json={"refresh_token": "unknown"})).status_code == 204
    assert (await http.post(LOGOUT, headers=bearer("not.a.token"))).status_code == 401
    given = {"name": "classifier", "scopes": frozenset({"images:read"}), "seconds": 60, "at": datetime.now(UTC)}
    service = api.services.access_tokens.issue_service(**given)
    assert (await http.post(LOGOUT, headers=bearer(service))).status_code == 403


async def test_signing_out_leaves_other_sessions_alone(api):
    http, address = api.anonymous(), api.account()
    one, other = [(await login(http, address)).json() for _ in range(2)]
    http.cookies.clear()
    assert (await http.post(LOGOUT, headers=bearer(one["access_token"]))).status_code == 204
    assert (await http.get(ME, headers=bearer(other["access_token"]))).status_code == 200


# ---- tokens ------------------------------------------------------------------------------------------------------------------------
async def test_only_a_bearer_token_of_ours_that_lasts_is_believed(api):
    http, body = await tokens_of(api)
    token = body["access_token"]
    for header in (None, "", "Bearer", "Bearer ", f"Basic {token}", token, f"Bearer {token} x", "Bearer a.b.c", f"Bearer {token[:-4]}AAAA"):
        answer = await http.get(ME, headers={} if header is None else {"Authorization": header})
        assert answer.status_code == 401, header
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await http.get(ME, headers={"Authorization": f"bearer {token}"})).status_code == 200
    assert (await http.get(f"{ME}?access_token={token}")).status_code == 401
    user_id, there = (await http.get(ME, headers=bearer(token))).json()["id"], datetime.now(UTC) - timedelta(hours=1)
    claims = api.services.access_tokens.verify(token, at=datetime.now(UTC))
    ended = api.services.access_tokens.issue(user=claims.subject, session=claims.session_id, role=claims.role, at=there)
    assert str(claims.subject) == user_id
    assert (await http.get(ME, headers=bearer(ended))).json()["detail"] == "Invalid token"
