"""Accounts of people: registration with verification, resets, invitations, the first administrator, and who may do which."""

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest

from api.live.feed import LiveFeed
from api.middleware.authentication import NOT_VERIFIED
from application import accounts, registrations
from domain.access import Role
from domain.errors import Forbidden
from domain.registration import LIFETIME, RegistrationDiscarded
from domain.user import PasswordReset, UserRegistered
from infrastructure.operations.registration_expiry import RegistrationExpiry
from tests.api.conftest import PASSWORD
from tests.api.http_calls import events_of
from tests.rigs.links import Links
from tests.twins.key_uses import identity_cache

pytestmark = pytest.mark.anyio

ME, USERS, INVITATIONS = "/api/users/me", "/api/users/users", "/api/invitations"
EMAIL, OTHER = "grace@example.org", "another horse battery 9"
NAMES = {"username": "grace", "first_name": "Grace", "last_name": "Hopper"}


@pytest.fixture
def verifying(api):
    """The application with verification of addresses."""
    return api.with_options(verifies_email=True, equal_answer_seconds=0.0)


@pytest.fixture
def links(api):
    return Links(api.services)


async def post(api, path, **body):
    return await api.anonymous().post(path, json=body)


async def register(api, email=EMAIL, password=PASSWORD, **changes):
    return await post(api, "/api/auth/register", email=email, password=password, **NAMES | changes)


async def login(api, email=EMAIL, password=PASSWORD):
    return await post(api, "/api/auth/login", email=email, password=password)


async def signed_in(api, email=EMAIL, password=PASSWORD):
    http = api.anonymous()
    tokens = (await http.post("/api/auth/login", json={"email": email, "password": password})).json()
    http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    return http, tokens


def happened(api, kind):
    return [one for one in api.services.log.read(0, 1000) if one.type == kind.__name__]


# ---- registration --------------------------------------------------------------------------------------------------------------------
async def test_a_person_registers_verifies_the_address_and_works(verifying, links):
    answer = await register(verifying)
    assert (answer.status_code, answer.json()["email"]) == (201, EMAIL)
    pending, _ = await signed_in(verifying)
    me = (await pending.get(ME)).json()
    assert (me["id"], me["status"], me["role"], me["username"]) == (answer.json()["id"], "pending", "viewer", "grace")
    token = links.of_stream(UUID(me["id"]))
    verified = await post(verifying, "/api/auth/verify", token=token, password=PASSWORD)
    assert verified.status_code == 201, verified.text
    assert (await pending.get(ME)).status_code == 401
    http, _ = await signed_in(verifying)
    me = (await http.get(ME)).json()
    assert (me["id"], me["status"]) == (verified.json()["id"], "active")
    assert (await http.get("/api/datasets")).status_code == 200


async def test_nobody_learns_from_a_registration_whether_an_address_has_an_account(verifying):
    known, unknown = verifying.account(), "nobody@example.org"
    for email in (known, unknown):
        answer = await register(verifying, email, OTHER)
        assert (answer.status_code, set(answer.json()), answer.json()["email"]) == (201, {"id", "email"}, email)
        http, tokens = await signed_in(verifying, email, OTHER)
        me = (await http.get(ME)).json()
        assert (me["status"], me["id"]) == ("pending", answer.json()["id"])
        assert (await http.get("/api/datasets")).json()["detail"] == NOT_VERIFIED
        assert (await http.post("/api/auth/refresh", json={"refresh_token": tokens["refresh_token"]})).status_code == 200
        assert (await http.post("/api/auth/logout")).status_code == 204
    assert (await login(verifying, known)).status_code == 200, "the account keeps its own password"


@pytest.mark.parametrize(
    "email", ["gra@@example.org", "grace@exam\u00adple.org", "grace@example.org,bob@example.org", "z\u202ec@example.org"]
)
async def test_an_address_that_can_get_no_mail_is_refused_wherever_it_is_new(api, verifying, email):
    admin, http = await api.client("admin"), await verifying.client()
    me, other = (await http.get(ME)).json()["id"], (await (await api.client()).get(ME)).json()["id"]
    for answer in (
        await register(api, email),
        await register(verifying, email),
        await admin.post(INVITATIONS, json={"email": email}),
        await admin.patch(f"{USERS}/{other}", json={"email": email}),
        await http.patch(f"{USERS}/{me}", json={"email": email}),
    ):
        assert (answer.status_code, [error["loc"] for error in answer.json()["errors"]]) == (422, [["body", "email"]]), answer.text
        assert email not in answer.text


async def test_a_person_signs_in_with_either_spelling_of_the_domain(api, verifying):
    spellings = "grace@münchen.example", "grace@xn--mnchen-3ya.example"
    answers = [await register(verifying, spellings[number % 2]) for number in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert (await register(api, spellings[1])).json()["email"] == spellings[1]
    assert (await register(api, spellings[0], username="other")).json()["detail"] == "Email already used"
    assert [(await login(api, email)).status_code for email in spellings] == [200, 200]


async def test_a_pending_session_may_use_no_other_route(verifying):
    await register(verifying)
    http, _ = await signed_in(verifying)
    me = (await http.get(ME)).json()["id"]
    for method, path in (
        ("GET", "/api/datasets"),
        ("POST", "/api/datasets"),
        ("GET", f"{USERS}/{me}"),
        ("PATCH", f"{USERS}/{me}"),
        ("GET", "/api/models"),
        ("GET", "/api/v2"),
        ("GET", "/api/events"),
        ("GET", "/api/live"),
        ("GET", INVITATIONS),
    ):
        answer = await http.request(method, path, json={"name": "x"} if method != "GET" else None)
        assert answer.status_code == 403, path
        assert NOT_VERIFIED in answer.text


async def test_a_pending_session_opens_no_live_feed(verifying):
    await register(verifying)
    _, tokens = await signed_in(verifying)
    hub = SimpleNamespace(
        services=verifying.services,
        identities=identity_cache(verifying.services.log),
        options=verifying.options,
        network_of=lambda _: "192.0.2.1",
    )
    feed = LiveFeed(hub, send=None, scope={})
    with pytest.raises(Forbidden, match="not verified"):
        await feed.sign_in(tokens["access_token"])


async def test_a_taken_user_name_shows_at_the_verification_and_can_be_replaced(verifying, links):
    verifying.account()
    taken = (await (await verifying.client()).get(ME)).json()["username"]
    pending = (await register(verifying, username=taken)).json()["id"]
    token = links.of_stream(UUID(pending))
    refused = await post(verifying, "/api/auth/verify", token=token, password=PASSWORD)
    assert (refused.status_code, refused.json()["code"]) == (409, "taken")
    verified = await post(verifying, "/api/auth/verify", token=token, password=PASSWORD, username="grace")
    assert verified.status_code == 201
    assert "x-event-position" not in verified.headers, "two of them would show whether an event was appended in between"


async def test_no_answer_to_a_registration_shows_a_position_of_the_log(verifying):
    answers = [await register(verifying), await register(verifying.with_options(verifies_email=False), email="ada@example.org")]
    assert [(one.status_code, "x-event-position" in one.headers, one.headers["etag"]) for one in answers] == [(201, False, '"1"')] * 2


async def test_another_mail_can_be_requested_and_the_answer_is_always_the_same(verifying, links):
    first = links.of_stream(UUID((await register(verifying)).json()["id"]))
    answers = [await post(verifying, "/api/auth/verification", email=email) for email in (EMAIL, "nobody@example.org", verifying.account())]
    assert {(one.status_code, one.text) for one in answers} == {(202, answers[0].text)}
    assert all("x-event-position" not in one.headers for one in answers)
    assert (await post(verifying, "/api/auth/verify", token=first, password=PASSWORD)).status_code == 400


@pytest.mark.parametrize("path", ["/api/auth/forgot-password", "/api/auth/verification"])
async def test_mails_are_limited_by_address_alike_for_known_and_unknown_ones(verifying, path):
    for email in (verifying.account(), "nobody@example.org"):
        assert [(await post(verifying, path, email=email)).status_code for _ in range(6)] == [202] * 5 + [429]


async def test_a_request_for_a_mail_takes_as_long_for_an_unknown_address(api):
    slow = api.with_options(equal_answer_seconds=0.2)
    loop = asyncio.get_running_loop()
    for email in (api.account(), "nobody@example.org"):
        started = loop.time()
        await post(slow, "/api/auth/forgot-password", email=email)
        assert loop.time() - started >= 0.2


async def test_an_expired_registration_disappears_in_the_background(verifying, links):
    pending = UUID((await register(verifying)).json()["id"])
    given = verifying.services
    await given.read_position.wait(given.log.head(), 5)
    expiry = RegistrationExpiry(given.log, given.refresh_tokens, clock=lambda: links.clock() + LIFETIME - timedelta(minutes=1))
    assert await asyncio.to_thread(expiry.discard) == 0
    expiry = RegistrationExpiry(given.log, given.refresh_tokens, clock=lambda: links.clock() + LIFETIME)
    assert await asyncio.to_thread(expiry.discard) == 1
    assert given.log.history(pending)[-1].type == RegistrationDiscarded.__name__
    await given.read_position.wait(given.log.head(), 5)
    assert await asyncio.to_thread(expiry.discard) == 0
    assert (await login(verifying)).status_code == 401


@pytest.mark.parametrize(("mode", "registers", "invites"), [("open", 201, 201), ("invite", 403, 201), ("closed", 403, 403)])
async def test_the_mode_says_who_may_create_an_account(api, links, mode, registers, invites):
    given = api.with_options(registration=mode)
    pending, invited = links.of_registration("ada@example.org", password=PASSWORD), links.of_invitation("jean@example.org")
    assert (await register(given)).status_code == registers
    verified = await post(given, "/api/auth/verify", token=pending, password=PASSWORD, username="ada")
    assert verified.status_code == registers
    admin = await api.client(Role.ADMIN)
    admin._transport = given.anonymous()._transport
    assert (await admin.post(INVITATIONS, json={"email": "bob@example.org"})).status_code == invites
    accepted = await post(given, "/api/auth/accept-invitation", token=invited, password=PASSWORD, **NAMES | {"username": "jean"})
    assert accepted.status_code == invites
    if mode == "closed":
        refused = await admin.post(INVITATIONS, json={"email": "bob@example.org"})
        assert "BIOSCOPE_REGISTRATION" in refused.json()["detail"]


@pytest.mark.parametrize(("mode", "mails"), [("open", 2), ("invite", 1), ("closed", 1)])
async def test_a_link_that_the_mode_refuses_is_not_sent_again(verifying, mode, mails):
    await register(verifying)
    given = verifying.with_options(registration=mode)
    assert (await post(given, "/api/auth/verification", email=EMAIL)).status_code == 202
    assert events_of(given, "RegistrationRequested") + events_of(given, "VerificationRequested") == mails


# ---- passwords and addresses ---------------------------------------------------------------------------------------------------------
async def test_a_forgotten_password_is_reset_and_all_sessions_end(api, links):
    email = api.account()
    http, tokens = await signed_in(api, email)
    await http.get(ME)
    token = links.of_reset(email)
    reset = {"token": token, "password": OTHER}
    assert (await post(api, "/api/auth/reset-password", **reset)).status_code == 200
    assert (await post(api, "/api/auth/reset-password", **reset)).json()["code"] == "invalid_link"
    assert (await http.get(ME)).status_code == 401
    assert (await post(api, "/api/auth/refresh", refresh_token=tokens["refresh_token"])).status_code == 401
    assert [(await login(api, email, password)).status_code for password in (PASSWORD, OTHER)] == [401, 200]


async def test_an_administrator_sends_a_reset(api):
    admin = await api.client(Role.ADMIN)
    user_id = accounts.find(api.account(), api.services.log).id
    assert (await admin.post(f"{USERS}/{user_id}/password-reset")).status_code == 202
    assert api.services.log.history(user_id)[-1].type == "PasswordResetRequested"
    await admin.patch(f"{USERS}/{user_id}", json={"status": "suspended"})
    assert (await admin.post(f"{USERS}/{user_id}/password-reset")).status_code == 409


async def test_a_new_address_is_confirmed_by_its_link(verifying, links):
    email = verifying.account()
    http, _ = await signed_in(verifying, email)
    me = (await http.get(ME)).json()
    changed = await http.patch(f"{USERS}/{me['id']}", json={"email": "new@example.org", "phone": "1"})
    assert (changed.json()["email"], changed.json()["pending_email"], changed.json()["phone"]) == (email, "new@example.org", "1")
    assert (await http.get(ME)).json()["pending_email"] == "new@example.org"
    account = accounts.find(email, links.log)
    token = links._token(account.email_link, account.id, account.new_email)
    assert (await post(verifying, "/api/auth/confirm-email", token=token)).status_code == 200
    assert (await http.get(ME)).json()["email"] == "new@example.org"
    assert (await login(verifying, "new@example.org")).status_code == 200


# ---- administration ------------------------------------------------------------------------------------------------------------------
async def test_an_administrator_invites_sends_again_and_withdraws(api, links):
    admin = await api.client(Role.ADMIN)
    invited = (await admin.post(INVITATIONS, json={"email": EMAIL, "role": "analyst"})).json()
    assert (invited["email"], invited["role"], invited["status"], invited["user_id"]) == (EMAIL, "analyst", "open", None)
    first = links.of_stream(UUID(invited["id"]))
    assert (await admin.post(f"{INVITATIONS}/{invited['id']}/resend")).status_code == 200
    accepting = {"password": PASSWORD, **NAMES}
    assert (await post(api, "/api/auth/accept-invitation", token=first, **accepting)).status_code == 400
    token = links.of_stream(UUID(invited["id"]))
    accepted = await post(api, "/api/auth/accept-invitation", token=token, **accepting)
    assert accepted.status_code == 201
    http, _ = await signed_in(api)
    assert (await http.get(ME)).json()["role"] == "analyst"
    other = (await admin.post(INVITATIONS, json={"email": "jean@example.org"})).json()
    assert (await admin.delete(f"{INVITATIONS}/{other['id']}")).status_code == 204
    listed = (await admin.get(INVITATIONS)).json()
    assert [(one["status"], one["email"]) for one in listed] == [("withdrawn", None), ("accepted", None)]
    assert listed[1]["user_id"] == accepted.json()["id"]
    assert (await admin.get(f"{INVITATIONS}?status=open")).json() == []
    page = await admin.get(f"{INVITATIONS}?page_size=1")
    following = await admin.get(INVITATIONS, params={"page_size": 1, "cursor": page.headers["x-next-cursor"]})
    assert [one["id"] for one in (*page.json(), *following.json())] == [other["id"], invited["id"]]


async def test_accounts_are_found_by_text_role_and_status(api):
    admin = await api.client(Role.ADMIN)
    await register(api)
    viewer = api.account(Role.VIEWER)
    position = api.services.log.head()

    async def found(**query):
        answer = await admin.get(USERS, params=query | {"min_position": position})
        assert answer.status_code == 200, answer.text
        return [one["email"] for one in answer.json()]

    assert await found(q="HOPPER") == await found(q="grace hop") == await found(q="grace@") == [EMAIL]
    assert await found(q="%") == []
    assert await found(role="viewer") == [viewer, EMAIL]
    assert await found(status="suspended") == []
    assert (await admin.get(USERS, params={"role": "king"})).status_code == 422


async def test_the_first_administrator_is_set_up_with_the_printed_token(api):
    body = {"token": api.services.bootstrap_tokens.token(), "email": EMAIL, "password": PASSWORD, **NAMES}
    wrong = (await post(api, "/api/auth/bootstrap", **body | {"token": "bsb_wrong"})).json()
    assert (wrong["status"], wrong["title"], "the server prints" in wrong["detail"]) == (400, "Invalid link", True)
    assert (await post(api, "/api/auth/bootstrap", **body)).status_code == 201
    http, _ = await signed_in(api)
    assert (await http.get(USERS)).status_code == 200
    again = await post(api, "/api/auth/bootstrap", **body | {"email": "bob@example.org", "username": "bob"})
    assert (again.status_code, again.json()["code"]) == (400, "invalid_link")


# ---- at the same time ----------------------------------------------------------------------------------------------------------------
async def test_of_32_parallel_requests_about_one_subject_one_wins(api, links):
    """In a real database. The limits of hashes at the same time and of user names refuse some of the others before they could lose."""
    given = api.with_options(equal_answer_seconds=0.0)
    invited, email = links.of_invitation("jean@example.org"), api.account()
    reset = links.of_reset(email)
    registering = [post(given, "/api/auth/register", email=EMAIL, password=PASSWORD, **NAMES) for _ in range(32)]
    accepting = [
        post(given, "/api/auth/accept-invitation", token=invited, password=PASSWORD, **NAMES | {"username": f"jean{number}"})
        for number in range(32)
    ]
    resetting = [post(given, "/api/auth/reset-password", token=reset, password=OTHER) for _ in range(32)]
    before = len(happened(api, UserRegistered))
    for work, success, refusals in ((registering, 201, {409, 503}), (accepting, 201, {400, 429, 503}), (resetting, 200, {400, 503})):
        statuses = [one.status_code for one in await asyncio.gather(*work)]
        assert statuses.count(success) == 1
        assert set(statuses) - {success} <= refusals
    assert len(happened(api, UserRegistered)) == before + 2
    assert len(happened(api, PasswordReset)) == 1
    assert (await login(api, email, OTHER)).status_code == 200


# ---- what is sent --------------------------------------------------------------------------------------------------------------------
HOSTILE = ["\x00", "\ud800", "x" * 300, "a\r\nBcc: b@example.org", "", "bsl_" + "A" * 92, "../../etc/passwd", "<script>"]


@pytest.mark.parametrize("path", ["verify", "reset-password", "confirm-email", "accept-invitation", "bootstrap"])
async def test_a_hostile_token_is_refused_and_not_repeated(api, path):
    body = {"token": "", "password": PASSWORD, "email": EMAIL, **NAMES}
    needed = {"verify": ("token", "password"), "reset-password": ("token", "password"), "confirm-email": ("token",)}
    fields = needed.get(path, ("token", "password", *NAMES, *(("email",) if path == "bootstrap" else ())))
    http = api.anonymous()
    for token in HOSTILE:
        raw = json.dumps({name: body[name] for name in fields} | {"token": token}).encode()
        answer = await http.post(f"/api/auth/{path}", content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code in {400, 422}, (token[:20], answer.text)
        assert not token.strip("\x00") or token not in answer.text


async def test_a_hostile_address_names_its_field(verifying):
    for email in ("x", "a b@example.org", "a\r\nBcc: b@example.org", "x" * 101, "a@b"):
        answer = await register(verifying, email)
        assert (answer.status_code, answer.json()["errors"][0]["loc"][-1]) == (422, "email")
    assert registrations.find("x", verifying.services.log) is None
