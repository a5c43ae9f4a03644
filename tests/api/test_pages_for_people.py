"""The pages: who is signed in, forms of other sites, bad input, and what the pages contain. tests/pages has them in a browser."""

import re
from datetime import timedelta
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.clock import utc_now
from api.options import WebOptions
from api.pages.forms import shown
from api.pages.registrations import REGISTER
from api.pages.rendering import rendered
from api.pages.routes import PAGES
from api.pages.visits import has_page_token
from application import accounts, invitations, passwords
from application.ports import MailLink
from domain import session
from domain.access import Role
from domain.errors import Unavailable
from domain.invitation import UserInvited
from domain.links import LinkPurpose
from domain.registration import RegistrationRequested
from domain.user import EmailChangeRequested, PasswordResetRequested, Status
from tests.api.conftest import PASSWORD, SYSTEM
from tests.given import command
from tests.rigs.html import Parsed

pytestmark = pytest.mark.anyio

COOKIE = "bioscope_page"
OWN = {"Origin": "http://127.0.0.1:8000"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SOMEBODY = {"email": "ada@example.org", "username": "ada", "first_name": "Ada", "last_name": "Byron", "password": PASSWORD}
STYLES = (Path(__file__).parents[2] / "api" / "pages" / "assets" / "pages.css").read_text()
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' autofocus onfocus='alert(1)",
        "{{ 7 * 7 }}",
        "</title><b>",
        "&lt;b&gt;",
    ]
)


@pytest.fixture
def api(api):
    """Answers to requests for mails are not delayed."""
    return api.with_options(equal_answer_seconds=0)


def paths(method):
    return sorted(path for handler in PAGES for path in handler.paths if method in handler.http_methods)


def browser(api):
    http = api.anonymous()
    http.headers.update(OWN | {"Accept": "text/html,*/*"})
    return http


async def signed_in(api, address=None):
    http = browser(api)
    answer = await http.post("/sign-in", data={"email": address or api.account(), "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    return http


def newest(api, kind):
    log = api.services.log
    return [event for one in log.read(0, 10_000) if isinstance(event := log.decode(one), kind)][-1]


def token(api, purpose, event, address):
    return api.services.mail_links.token(MailLink(purpose, event.originator_id, event.request_id), address=address)


def invited(api, address="new@example.org"):
    invitations.invite(email=address, role=Role.ANALYST, command=command(SYSTEM, at=utc_now()), log=api.services.log)
    return token(api, LinkPurpose.ACCEPT_INVITATION, newest(api, UserInvited), address)


async def reset_link(api, address):
    await browser(api).post("/forgot-password", data={"email": address})
    return token(api, LinkPurpose.RESET_PASSWORD, newest(api, PasswordResetRequested), address)


async def pending(api, **changes):
    """A registration whose address is not verified: the application, the token of its link."""
    app = api.with_options(verifies_email=True)
    answer = await browser(app).post("/register", data=SOMEBODY | changes)
    assert (answer.status_code, answer.headers["location"]) == (303, "/register?sent=true"), answer.text
    return app, token(api, LinkPurpose.VERIFY_EMAIL, newest(api, RegistrationRequested), (SOMEBODY | changes)["email"])


# ---- the start page ----------------------------------------------------------------------------------------------------------------
async def test_the_start_page_is_for_people_and_a_pointer_for_programs(api):
    http = api.anonymous()
    page = await http.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert "Sign in" in Parsed(page.text).text
    for accepted in ("*/*", "application/json", ""):
        pointer = await http.get("/", headers={"Accept": accepted})
        assert pointer.json()["openapi"] == "http://127.0.0.1:8000/api/openapi.json"
        assert pointer.headers["vary"] == "Accept, Origin"
    for name in ("documentation", "openapi", "health"):
        assert (await http.get(pointer.json()[name])).status_code == 200


@pytest.mark.parametrize(("mode", "status"), [("open", 200), ("invite", 403), ("closed", 403)])
async def test_an_account_can_be_created_only_where_the_mode_allows_it(api, mode, status):
    http = browser(api.with_options(registration=mode))
    assert (await http.get("/register")).status_code == status
    assert ("/register" in (await http.get("/")).text) is (mode == "open")
    assert ("/register" in (await http.get("/sign-in")).text) is (mode == "open")
    answer = await http.post("/register", data=SOMEBODY)
    assert answer.status_code == (303 if mode == "open" else 403)


# ---- who is signed in --------------------------------------------------------------------------------------------------------------
def attributes_of(answer):
    name, *attributes = [part.strip() for part in answer.headers["set-cookie"].split(";")]
    return name.partition("=")[0], {attribute.lower() for attribute in attributes}


@pytest.mark.parametrize(
    ("base_url", "name", "path"),
    [
        ("http://127.0.0.1:8000", COOKIE, "/"),
        ("https://lab.example.org", f"__Host-{COOKIE}", "/"),
        ("https://lab.example.org/bioscope", f"__Secure-{COOKIE}", "/bioscope"),
    ],
)
async def test_the_cookie_is_for_this_site_alone(api, base_url, name, path):
    secure = base_url.startswith("https")
    app = api.with_options(base_url=base_url, secure_cookies=secure)
    origin = "/".join(base_url.split("/")[:3])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.app), base_url=origin, headers={"Origin": origin}) as http:
        answer = await http.post("/sign-in", data={"email": api.account(), "password": PASSWORD})
        assert answer.headers["location"] == base_url[len(origin) :] + "/account"
        wanted = {"httponly", "samesite=strict", f"path={path}", "max-age=43200"} | ({"secure"} if secure else set())
        assert attributes_of(answer) == (name, wanted)
        cookie = {"Cookie": f"{name}={answer.cookies[name]}"}
        assert (await http.get("/account", headers=cookie)).status_code == 200


async def test_only_the_pages_accept_the_cookie(api):
    http = await signed_in(api)
    for method, path in (("GET", "/api/users/me"), ("GET", "/api/datasets"), ("POST", "/api/auth/refresh"), ("POST", "/api/auth/logout")):
        assert (await http.request(method, path)).status_code == 401
    assert (await http.get("/account")).status_code == 200


async def test_the_pages_accept_no_token_of_the_api(api):
    http = api.anonymous()
    answer = await http.post("/api/auth/login", json={"email": api.account(), "password": PASSWORD})
    http.cookies.clear()
    for value in (answer.json()["access_token"], answer.json()["refresh_token"]):
        for headers in ({"Authorization": f"Bearer {value}"}, {"Cookie": f"{COOKIE}={value}"}, {"Cookie": f"refresh_token={value}"}):
            assert (await http.get("/account", headers=headers)).status_code == 303


async def test_a_person_on_the_pages_is_none_of_the_anonymous_clients_under_overload(api):
    http = await signed_in(api)
    genuine = http.cookies[COOKIE]

    def is_recognised(cookie, path="/account"):
        scope = {"path": path, "headers": [(b"accept", b"*/*"), (b"cookie", cookie.encode())]}
        return has_page_token(scope, api.app._context)

    assert not is_recognised(f"{COOKIE}={genuine}"), "a cookie does not expire, so it counts after its session was accepted"
    assert (await http.get("/account")).status_code == 200
    assert is_recognised(f"{COOKIE}={genuine}")
    assert is_recognised(f"other=1; {COOKIE}={genuine}; last=2")
    assert is_recognised(f"another_{COOKIE}=1; {COOKIE}={genuine}")
    forged = ("", f"{COOKIE}=", f"{COOKIE}={genuine[:-1]}", f"{COOKIE}={genuine[::-1]}", f"{COOKIE}={genuine}x", genuine)
    assert not any(map(is_recognised, forged))
    assert not is_recognised(f"{COOKIE}={genuine}", path="/api/datasets"), "no route of the API reads it"


@pytest.mark.parametrize(
    ("path", "form", "field"),
    [
        ("/api/auth/login-swagger", b"username=ada&password=%ff", "password"),
        ("/api/auth/login-swagger", b"username=\xc3\xa9&password=x", "username"),
        ("/sign-in", b"email=%ed%a0%80&password=x", "email"),
        ("/sign-in", b"%ff=x&email=ada&password=x", None),
    ],
)
async def test_a_form_that_is_not_utf_8_is_refused_and_its_field_named(api, path, form, field):
    answer = await browser(api).post(path, content=form, headers=FORM)
    assert answer.status_code == 400
    said = answer.json()["detail"] if path.startswith("/api/") else Parsed(answer.text).text
    assert f"{f'its field {field}' if field else 'it'} must be percent-encoded UTF-8" in said
    if path.startswith("/api/"):
        assert answer.json()["errors"] == [{"loc": ["body", field], "msg": "must be percent-encoded UTF-8"}]


async def test_no_other_value_of_the_cookie_signs_in(api):
    http = await signed_in(api)
    genuine = http.cookies[COOKIE]
    http.cookies.clear()
    tokens = api.services.page_tokens
    for position, character in enumerate(genuine):
        other = genuine[:position] + ("A" if character != "A" else "B") + genuine[position + 1 :]
        assert (await http.get("/account", headers={"Cookie": f"{COOKIE}={other}"})).status_code == 303, position
    absent = tokens.issue(uuid4())
    for other in ("", "x", genuine[:-1], genuine + "A", genuine + "=", f'"{genuine}"x', genuine.swapcase(), absent, "A" * 10_000):
        assert (await http.get("/account", headers={"Cookie": f"{COOKIE}={other}"})).status_code == 303, other
    assert (await http.get("/account", headers={"Cookie": f"{COOKIE}={genuine}"})).status_code == 200


async def test_a_session_on_the_pages_ends_after_twelve_hours(api):
    address = api.account()
    member = api.services.log.claimed("email", address)
    for hours, status in ((11.9, 200), (12.1, 303)):
        started = session.start(uuid4(), user=member, address="", agent="", at=utc_now() - timedelta(hours=hours))
        api.services.log.append(command(SYSTEM), started)
        cookie = {"Cookie": f"{COOKIE}={api.services.page_tokens.issue(started.originator_id)}"}
        assert (await browser(api).get("/account", headers=cookie)).status_code == status, hours


async def test_a_session_ends_with_the_sign_out_also_for_a_copy_of_the_cookie(api):
    http = await signed_in(api)
    copy = {"Cookie": f"{COOKIE}={http.cookies[COOKIE]}"}
    answer = await http.post("/sign-out", content=b"", headers=FORM)
    assert attributes_of(answer)[0] == COOKIE
    assert "max-age=0" in attributes_of(answer)[1]
    http.cookies.clear()
    ended = await http.get("/account", headers=copy)
    assert (ended.status_code, ended.headers["location"]) == (303, "/sign-in?after=ended")


async def test_a_new_password_ends_the_other_sessions_on_the_pages(api):
    address = api.account()
    one, other = await signed_in(api, address), await signed_in(api, address)
    answer = await one.post("/account/password", data={"current_password": PASSWORD, "password": "another horse battery 9"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?after=password")
    assert (await one.get("/account")).status_code == 200
    assert (await other.get("/account")).status_code == 303


async def test_a_session_ends_only_if_the_form_says_which(api):
    address = api.account()
    http, other, stranger = await signed_in(api, address), await signed_in(api, address), await signed_in(api)
    foreign = newest(api, session.SessionStarted).originator_id
    wrong = ({}, *({"session": str(one)} for one in ("", foreign, uuid4(), "none", "x" * 3000)), {"sesion": "zzz"}, {"end": "all"})
    for form in (*wrong, {"session": "", "end": "others"}):
        answer = await http.post("/account/sessions", data=form, headers=FORM)
        assert (answer.status_code, Parsed(answer.text).text.count("No session has ended")) == (422, 1), form
    assert [(await one.get("/account")).status_code for one in (http, other, stranger)] == [200, 200, 200]
    answer = await http.post("/account/sessions", data={"end": "others"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?after=sessions")
    assert [(await one.get("/account")).status_code for one in (http, other, stranger)] == [200, 303, 200]


async def test_a_field_of_the_profile_that_is_not_sent_stays_as_it_is(api):
    address = api.account()
    http, names = await signed_in(api, address), {"first_name": "Ada", "last_name": "Byron"}
    await http.post("/account/profile", data=names | {"email": address, "institution": "Analytical Society", "phone": "+44 1"})
    await http.post("/account/profile", data=names | {"email": address, "phone": ""})
    shown = (await http.get("/account/profile")).text
    assert 'value="Analytical Society"' in shown
    assert "+44 1" not in shown


# ---- forms -------------------------------------------------------------------------------------------------------------------------
OF_OTHERS = (
    {},
    {"Origin": "null"},
    {"Origin": "http://evil.example.org"},
    {"Origin": "http://127.0.0.1:8000.evil.example.org"},
    {"Origin": "http://127.0.0.1"},
    OWN | {"Sec-Fetch-Site": "cross-site"},
    OWN | {"Sec-Fetch-Site": "same-site"},
    OWN | {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Referer": "http://127.0.0.1:8000/sign-in"},
    {"X-Requested-With": "XMLHttpRequest"},
)


async def test_a_form_of_another_site_changes_nothing(api):
    http = await signed_in(api)
    del http.headers["Origin"]
    head = api.services.log.head()
    assert len(paths("POST")) > 10
    for path, headers in product(paths("POST"), OF_OTHERS):
        answer = await http.post(path, data=SOMEBODY, headers=headers)
        assert (answer.status_code, Parsed(answer.text).text.count("This form was not sent from a page of this site")) == (403, 1), headers
        assert "set-cookie" not in answer.headers
    assert api.services.log.head() == head


BAD_BODIES = (
    (b"email=%ff&password=secret-echo", FORM, 400),
    (b"email=%ed%a0%80", FORM, 400),
    ("email=\u00e9".encode(), FORM, 400),
    (b"&".join(b"f%d=1" % number for number in range(40)), FORM, 400),
    (b"email=" + b"a" * 9000, FORM, 413),
    (b'{"email": "secret-echo"}', {"Content-Type": "application/json"}, 415),
    (b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
)


async def test_a_bad_body_is_a_page_that_says_so(api):
    http = await signed_in(api)
    head = api.services.log.head()
    for path, (body, headers, status) in product(paths("POST"), BAD_BODIES):
        answer = await http.post(path, content=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), body[:20]
        assert "secret-echo" not in answer.text
        assert_sound(answer)
    assert api.services.log.head() == head


async def test_an_error_names_the_field_keeps_what_was_typed_and_forgets_passwords(api):
    http = browser(api)
    for change, field, sentence in (
        ({"email": "nowhere"}, "email", "E-mail address must be an address like name@example.org."),
        ({"email": ""}, "email", "E-mail address is missing."),
        ({"username": "x" * 51}, "username", "User name must have at most 50 characters."),
        ({"username": "ab"}, "username", "User name must have 3 to 50 characters, has 2."),
        ({"first_name": "a\x00b"}, "first_name", "First name must not contain control characters."),
        ({"password": "short-echo"}, "password", "Password must have 15 to 128 characters, has 10."),
        ({"password": "x-echo" * 100}, "password", "Password must have at most 128 characters."),
    ):
        answer = await http.post("/register", data=SOMEBODY | change)
        page = Parsed(answer.text)
        typed = {name: value.replace("\0", "") for name, value in (SOMEBODY | change).items()}
        assert answer.status_code == 422, change
        assert page.text.count(sentence) == 2, "in the summary, and at the field"
        (wrong,) = [one for one in page.all("input") if one.get("aria-invalid")]
        assert wrong["name"] == field
        assert f"{field}-problem" in wrong["aria-describedby"].split()
        assert page.values == {name: typed[name] for name in ("email", "username", "first_name", "last_name")} | {"password": ""}
        assert "echo" not in answer.text
        assert_sound(answer)
    assert api.services.log.head() == 0


async def test_a_taken_user_name_can_be_replaced_when_the_address_is_verified(api):
    api.account()
    taken = api.account().partition("@")[0]
    app, link = await pending(api, username=taken)
    http = browser(app)
    answer = await http.post("/account/verify", data={"token": link, "password": PASSWORD, "username": ""})
    assert answer.status_code == 409
    assert "This user name is used already: choose another one" in Parsed(answer.text).text
    answer = await http.post("/account/verify", data={"token": link, "password": PASSWORD, "username": "somebody"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?after=verified")
    assert (await signed_in(app, SOMEBODY["email"])).cookies[COOKIE]


async def test_a_person_whose_address_is_not_verified_sees_only_that(api):
    app, _ = await pending(api)
    http = await signed_in(app, SOMEBODY["email"])
    page = await http.get("/account")
    assert "Your e-mail address is not verified" in Parsed(page.text).text
    assert (await http.get("/account/password")).headers["location"] == "/account"
    refused = await http.post("/account/password", data={"current_password": PASSWORD, "password": "another horse battery 9"})
    assert refused.headers["location"] == "/account"
    again = await http.post("/account/verification", content=b"", headers=FORM)
    assert (again.status_code, again.headers["location"]) == (303, "/account?after=sent")
    http._transport = browser(app.with_options(registration="closed"))._transport
    assert (await http.post("/account/verification", content=b"", headers=FORM)).status_code == 403


async def test_a_stolen_session_changes_no_address(api, monkeypatch):
    address = api.account()
    http, program = await signed_in(api, address), await api.client(Role.VIEWER)
    monkeypatch.setattr(passwords, "RECENT_SIGN_IN_SECONDS", -1)  # the sign-ins were long ago
    profile = {"email": "stranger@example.org", "first_name": "Ada", "last_name": "Byron"}
    answer = await http.post("/account/profile", data=profile)
    assert answer.status_code == 403
    assert "sign out and in again" in Parsed(answer.text).text
    assert accounts.find(address, api.services.log).email == address
    own = (await program.get("/api/users/me")).json()
    path, body = f"/api/users/users/{own['id']}", {"email": "stranger@example.org"}
    statuses = [(await program.patch(path, json=body | proof)).status_code for proof in ({}, {"current_password": PASSWORD})]
    assert statuses == [403, 200]
    assert (await program.patch(path, json={"email": "stranger@example.org", "phone": "1"})).status_code == 200


async def test_a_person_changes_the_profile(api):
    address = api.account()
    http = await signed_in(api, address)
    profile = {"email": address, "first_name": "Ada", "last_name": "King", "institution": "Lab", "department": "", "phone": ""}
    assert Parsed((await http.get("/account/profile")).text).values == profile | {"last_name": "Byron", "institution": ""}
    answer = await http.post("/account/profile", data=profile)
    assert answer.headers["location"] == "/account?after=profile"
    assert Parsed((await http.get("/account/profile")).text).values == profile
    assert "Ada King" in (await http.get("/account")).text
    refused = await http.post("/account/profile", data=profile | {"email": api.account(), "phone": "1" * 20})
    assert (refused.status_code, "Email already registered" in refused.text) == (409, True)
    assert Parsed(refused.text).values["phone"] == "1" * 20


async def test_a_new_address_counts_once_its_link_is_opened(api):
    address, app = api.account(), api.with_options(verifies_email=True)
    http = await signed_in(app, address)
    answer = await http.post("/account/profile", data={"email": "new@example.org", "first_name": "Ada", "last_name": "Byron"})
    assert answer.headers["location"] == "/account?after=address"
    assert "new@example.org, not confirmed yet" in (await http.get("/account")).text
    link = token(api, LinkPurpose.CHANGE_EMAIL, newest(api, EmailChangeRequested), "new@example.org")
    assert "new@example.org" in (await http.get(f"/account/email?token={link}")).text
    assert (await browser(app).post("/account/email", data={"token": link})).headers["location"] == "/sign-in?after=email"
    assert (await signed_in(app, "new@example.org")).cookies[COOKIE]


async def test_a_forgotten_password_is_answered_alike_for_known_and_unknown_addresses(api):
    http = browser(api)
    answers = [await http.post("/forgot-password", data={"email": address}) for address in (api.account(), "nobody@example.org")]
    seen = [(answer.status_code, answer.headers["location"], answer.text) for answer in answers]
    assert seen[0] == seen[1] == (303, "/forgot-password?sent=true", "")


async def test_too_many_attempts_are_a_page_that_says_when_to_try_again(api):
    http = browser(api)
    answers = [await http.post("/forgot-password", data={"email": "ada@example.org"}) for _ in range(6)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    assert "Too many attempts; try again in" in Parsed(answers[-1].text).text
    assert Parsed(answers[-1].text).values["email"] == "ada@example.org"


async def test_looking_at_a_link_does_not_use_it_up(api):
    address = api.account()
    app, verification = await pending(api)
    links = {"/account/verify": verification, "/account/reset": await reset_link(api, address), "/account/invitation": invited(api)}
    head, http = api.services.log.head(), browser(app)
    for path, link in links.items():
        for method in ("GET", "HEAD", "GET"):
            answer = await http.request(method, f"{path}?token={quote(link)}")
            assert answer.status_code == 200, path
            assert "set-cookie" not in answer.headers
    assert api.services.log.head() == head
    answer = await http.post("/account/reset", data={"token": links["/account/reset"], "password": "another horse battery 9"})
    assert answer.headers["location"] == "/sign-in?after=reset"


async def test_a_link_that_does_not_work_says_what_to_do(api):
    address, http = api.account(), browser(api)
    link = await reset_link(api, address)
    await http.post("/account/reset", data={"token": link, "password": "another horse battery 9"})
    for path in ("/account/verify", "/account/reset", "/account/email", "/account/invitation", "/setup"):
        for value in (link, "", "x", "bsl_" + "A" * 92, "<b>", "x" * 5000):
            for answer in (
                await http.get(path, params={"token": value}),
                await http.post(path, data={"token": value, "password": PASSWORD} | SOMEBODY),
            ):
                assert answer.status_code == 400, (path, value[:10])
                assert "This link does not work" in Parsed(answer.text).text
                assert_sound(answer)
    assert "new@example.org" in (await http.get(f"/account/invitation?token={invited(api)}")).text


async def test_a_new_account_is_offered_its_sign_in_also_where_another_person_is_signed_in(api):
    http = await signed_in(api)
    answer = await http.post("/account/invitation", data={"token": invited(api)} | SOMEBODY)
    assert answer.headers["location"] == "/sign-in?after=accepted"
    page = Parsed((await http.get("/sign-in?after=accepted")).text)
    assert "Your account is ready" in page.text
    assert (await http.get("/sign-in")).headers["location"] == "/account"
    answer = await http.post("/sign-in", data={"email": "new@example.org", "password": PASSWORD})
    assert answer.headers["location"] == "/account"
    assert "new@example.org" in (await http.get("/account")).text


async def test_a_new_address_is_not_confirmed_on_the_page_of_another_person(api):
    address, app = api.account(), api.with_options(verifies_email=True)
    mine, other = await signed_in(app, address), await signed_in(app)
    for http, page in ((other, "/sign-in"), (mine, "/account")):
        new = f"{page.strip('/')}@example.org"
        await mine.post("/account/profile", data={"email": new, "first_name": "Ada", "last_name": "Byron"})
        link = token(api, LinkPurpose.CHANGE_EMAIL, newest(api, EmailChangeRequested), new)
        answer = await http.post("/account/email", data={"token": link})
        assert answer.headers["location"] == f"{page}?after=email"
        assert "Your new e-mail address is confirmed" in (await http.get(answer.headers["location"])).text


async def test_an_unknown_address_is_a_page_for_browsers_and_a_problem_for_programs(api):
    people, programs = browser(api), api.anonymous()
    for path in ("/nothing", "/account/nothing", "/apis"):
        answer = await people.get(path)
        assert answer.status_code == 404
        assert "There is no such page" in Parsed(answer.text).text
        assert_sound(answer)
        assert (await programs.get(path)).json()["code"] == "not_found"
    assert (await people.get("/api/nothing")).json()["code"] == "not_found"


class Failing:
    """Page tokens whose use fails."""

    def __init__(self, error):
        self._error = error

    def session_of(self, _):
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (RuntimeError("secret-echo"), 500, "The server's log has details under the id req-1."),
        (Unavailable("The database is unavailable", retry_after=3), 503, "The database is unavailable."),
    ],
)
async def test_a_failure_of_the_server_is_a_page_without_details(api, error, status, sentence):
    http = browser(api.with_services(page_tokens=Failing(error)))
    for path in ("/", "/account", "/account/password"):
        answer = await http.get(path, headers={"Cookie": f"{COOKIE}=x", "X-Request-ID": "req-1"})
        assert answer.status_code == status
        assert sentence in Parsed(answer.text).text
        assert "secret-echo" not in answer.text
        assert_sound(answer)


async def test_no_log_line_has_a_token_a_password_or_a_cookie(api, capfd):
    address = api.account()
    http = await signed_in(api, address)
    link = await reset_link(api, address)
    await http.get(f"/account/reset?token={link}")
    await http.post("/account/reset", data={"token": link, "password": "short-password"})
    await http.post("/account/reset", data={"token": link, "password": "another horse battery 9"})
    await http.get(f"/account/reset?token={link}")
    lines = capfd.readouterr().err
    assert "route=/account/reset" in lines
    for secret in (link, "short-password", "another horse battery 9", http.cookies.get(COOKIE) or "bioscope_page=", PASSWORD, address):
        assert secret not in lines


# ---- what the pages contain --------------------------------------------------------------------------------------------------------
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"


def assert_sound(answer):
    """A page that loads nothing from elsewhere, runs nothing, and can be used with a keyboard and a screen reader."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    page = Parsed(answer.text)
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.tags.count("title") == page.tags.count("main") == page.tags.count("h1") == 1
    assert not {"script", "style", "iframe", "object", "img", "base"} & set(page.tags)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("href", "/").startswith(("/", "#"))
        assert set(attributes.get("aria-describedby", "").split()) <= set(ids)
    labelled = {label["for"] for label in page.all("label")}
    for field in page.all("input"):
        if field.get("type") != "hidden" and "hidden" not in field:
            assert field["id"] in labelled
            assert field["autocomplete"]
    for form in page.all("form"):
        assert form["method"] == "post"
        assert form["action"] in paths("POST")
    if "form" in page.tags:
        assert "button" in page.tags


async def test_every_page_is_sound(api):
    address = api.account()
    http, seen = await signed_in(api, address), set()
    tokens = {
        "/account/reset": await reset_link(api, address),
        "/account/invitation": invited(api),
        "/setup": api.services.bootstrap_tokens.token(),
    }
    app, tokens["/account/verify"] = await pending(api)
    waiting = await signed_in(app, SOMEBODY["email"])
    for client in (http, waiting, browser(api)):
        for path in set(paths("GET")) - {"/pages.css"}:
            for query in (f"?token={tokens.get(path, '')}", "?sent=true", "?after=ended", "?after=session"):
                answer = await client.get(path + query)
                if answer.status_code != 303:
                    assert_sound(answer)
                    seen.add(path)
    assert seen == set(paths("GET")) - {"/pages.css"}


async def test_an_unknown_word_for_what_led_here_is_ignored(api):
    http = browser(api)
    plain = (await http.get("/sign-in")).text
    assert (await http.get("/sign-in?after=verified")).text != plain
    for word in ("x", "<script>", "a" * 1000, "", "VERIFIED"):
        assert (await http.get("/sign-in", params={"after": word})).text == plain


CONTEXT = SimpleNamespace(options=WebOptions(base_url="http://127.0.0.1:8000"))
NAMES = ("email", "username", "first_name", "last_name")


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, TEXT)), TEXT, TEXT)
def test_whatever_is_typed_is_shown_as_text(typed, address, token):
    plain = shown(CONTEXT, REGISTER, values=dict.fromkeys(NAMES, "x"), address="x", token="x", facts={"Role": "x"})
    page = shown(CONTEXT, REGISTER, values=typed, address=address or "x", token=token or "x", facts={"Role": address})
    assert Parsed(page.content).tags == Parsed(plain.content).tags
    assert Parsed(page.content).values == typed | {"password": "", "token": token or "x"}
    assert Parsed(page.content).text.count(" ".join((address or "x").split())) >= 1


@given(TEXT, TEXT)
def test_names_devices_and_addresses_are_shown_as_text(text, other):
    def page_with(text, other):
        account = SimpleNamespace(first_name=text, last_name=other, username=text, email=other, role=Role.VIEWER, status=Status.ACTIVE)
        moments = {"started_at": utc_now(), "last_used_at": utc_now()}
        listed = [SimpleNamespace(id=other, device=text, address=other, is_current=current, **moments) for current in (True, False)]
        return Parsed(
            rendered(
                "account.html", CONTEXT.options, account=account, pending_email=text or "x", sessions=listed, keys=0, notice=""
            ).content
        )

    page = page_with(text, other)
    assert page.tags == page_with("x", "x").tags
    assert page.values == {"session": other, "end": "others"}
    assert " ".join(f"{text} {other}".split()) in page.text


async def test_names_and_devices_are_shown_as_text(api):
    hostile = "<script>alert(1)</script>\"'&amp;{{ 7 * 7 }}"
    names = {"email": "mallory@example.org", "username": "mallory", "first_name": hostile, "last_name": "</dd><b>"}
    http = browser(api)
    assert (await http.post("/register", data=SOMEBODY | names)).status_code == 303
    for agent in (hostile, "plain"):
        signed = await http.post("/sign-in", data={"email": names["email"], "password": PASSWORD}, headers={"User-Agent": agent})
        assert signed.status_code == 303
    answer = await http.get("/account")
    assert_sound(answer)
    page = Parsed(answer.text)
    assert f"{hostile} </dd><b>" in page.text
    assert "b" not in page.tags


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """The ratio as WCAG 2.2 defines it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast(scheme):
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", STYLES, re.DOTALL)[scheme]))
    texts = (("text", "card"), ("text", "page"), ("quiet", "card"), ("accent", "card"), ("on-accent", "accent"), ("wrong", "card"))
    for one, other in (*texts, ("wrong", "wrong-page"), ("text", "wrong-page"), ("text", "good-page")):
        assert contrast(colours[one], colours[other]) >= 4.5, (one, other)
    for one, other in (("line", "card"), ("accent", "page"), ("wrong", "wrong-page"), ("good", "good-page")):
        assert contrast(colours[one], colours[other]) >= 3, (one, other)
