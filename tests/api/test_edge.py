"""Properties of every route: secure headers, CORS, problems that echo no input, limits, idempotency, versions and positions."""

import asyncio
import re
from itertools import product
from uuid import UUID, uuid4

import httpx
import pytest

from api.middleware.allowed_methods import METHODS
from api.options import AdmissionLimits, BodyTimeouts
from infrastructure.observability.metrics import exposition
from tests.api.conftest import ORIGIN

pytestmark = pytest.mark.anyio

DATASETS = "/api/datasets"
SECURE = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
MARK = "canary-4711"  # part of every hostile input: it must come back nowhere
JSON = {"Content-Type": "application/json"}


def check_problem(answer, status, code=None):
    """Every error: RFC 9457, the headers of every answer, and nothing of what was sent."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"].startswith("application/problem+json")
    check_headers(answer)
    body = answer.json()
    assert set(body) <= {"type", "title", "status", "detail", "code", "instance", "errors", "reason"}
    assert body["status"] == status
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert body["type"] == f"urn:bioscope:problem:{body['code']}"
    assert body["instance"] == answer.headers["x-request-id"]
    assert code is None or body["code"] == code
    assert MARK not in answer.text
    return body


def check_headers(answer):
    assert SECURE.items() <= dict(answer.headers).items()
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["server"] == "bioscope", "nothing of what stands behind it"


async def browsing(api, role="researcher"):
    http = await api.client(role)
    http.headers["Origin"] = ORIGIN
    return http


# ---- every error -------------------------------------------------------------------------------------------------------------------
async def test_every_error_is_a_problem_with_cors_and_secure_headers(api):
    http, viewer = await browsing(api), await browsing(api, "viewer")
    anonymous = api.anonymous(Origin=ORIGIN)
    check_problem(await http.post(DATASETS, content=f'{{"{MARK}', headers=JSON), 400, "malformed")
    check_problem(await anonymous.get(f"{DATASETS}?x={MARK}"), 401, "not_authenticated")
    check_problem(await anonymous.get(DATASETS, headers={"Authorization": f"Bearer {MARK}"}), 401)
    check_problem(await viewer.post(DATASETS, json={"name": MARK}), 403, "forbidden")
    check_problem(await http.get(f"{DATASETS}/{uuid4()}"), 404, "not_found")
    for path in (f"/{MARK}", f"/api/{MARK}", f"{DATASETS}/{MARK}", f"{DATASETS}/{uuid4()}/{MARK}", "/api", "/%00", "/api/..%2fx"):
        check_problem(await http.get(path), 404)
    check_problem(await http.put(DATASETS, json={"name": MARK}), 405, "method_not_allowed")
    check_problem(await http.post(DATASETS, json={"name": "x" * 256}), 422, "invalid")
    check_problem(await http.post(DATASETS, json={"name": "a"}, headers={"Content-Encoding": "gzip"}), 415)
    check_problem(await http.post(DATASETS, content=b'"' + b"x" * 1024**2 + b'"', headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize("path", ["/api/keys", DATASETS, f"{DATASETS}/{UUID(int=7)}", "/sign-in", "/account/sessions", "/health/live"])
async def test_an_address_lists_all_of_its_methods(api, path):
    http = await api.client()
    listed = (await http.options(path)).headers["allow"]
    assert (await http.request("MADEUP", path)).headers["allow"] == listed
    allowed = listed.split(", ")
    for method in METHODS:
        assert ((await http.request(method, path)).status_code == 405) is (method not in allowed), method


async def test_two_credentials_in_one_request_are_refused(api):
    users = [await api.client(), await api.client("viewer")]
    headers = [("Authorization", http.headers["Authorization"]) for http in users]
    for method, path in (("GET", "/api/users/me"), ("POST", "/api/auth/refresh"), ("GET", "/api/live")):
        answer = await api.anonymous(Origin=ORIGIN).request(method, path, headers=headers)
        assert "Send one Authorization header" in check_problem(answer, 401, "not_authenticated")["detail"]


async def test_an_error_of_ours_is_opaque_and_still_a_problem(api):
    broken = api.with_services(reads=None)
    http = await browsing(api)
    async with broken.anonymous(**http.headers) as http:
        body = check_problem(await http.get(DATASETS), 500, "internal_error")
    assert "NoneType" not in str(body)


async def test_good_answers_have_the_same_headers(api):
    http = await browsing(api)
    for answer in (await http.get(DATASETS), await http.post(DATASETS, json={"name": "slides"}), await http.get("/api/health/")):
        assert answer.is_success
        check_headers(answer)
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.headers["access-control-expose-headers"].split(", ")) >= {"etag", "link", "x-next-cursor", "x-event-position"}


async def test_other_origins_get_no_cors_headers(api):
    http = await api.client()
    for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example", ORIGIN.upper(), ORIGIN.replace("http", "https")):
        for answer in (await http.get(DATASETS, headers={"Origin": origin}), await http.get("/nowhere", headers={"Origin": origin})):
            assert "access-control-allow-origin" not in answer.headers
            assert "origin" in answer.headers["vary"].lower()


async def test_a_request_has_an_id_its_own_when_that_is_harmless(api):
    http = await api.client()
    assert (await http.get(DATASETS, headers={"X-Request-Id": "abc-123"})).headers["x-request-id"] == "abc-123"
    for wrong in ("x" * 65, "a b", "a;b", "<script>", ""):
        given = (await http.get(DATASETS, headers={"X-Request-Id": wrong})).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


async def test_methods_that_do_not_exist_are_counted_as_one(api):
    http = await api.client()
    for number in range(3):
        assert (await http.request(f"MADEUP{number}", DATASETS)).status_code == 405
    kept = exposition("api").decode()
    assert 'method="unknown"' in kept
    assert "MADEUP" not in kept


# ---- preflights, HEAD --------------------------------------------------------------------------------------------------------------
async def test_a_preflight_is_answered_without_a_token(api):
    expected = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,content-type,if-match"}
    for path in (DATASETS, "/api/auth/login", "/api/nowhere", f"{DATASETS}/"):
        answer = await api.anonymous(Origin=ORIGIN).options(path, headers=expected)
        assert answer.status_code == 204
        check_headers(answer)
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        allowed = set(answer.headers["access-control-allow-headers"].split(", "))
        assert {"authorization", "content-type", "if-match", "idempotency-key"} <= allowed
        assert "x-requested-with" not in allowed, "that header proves that a page of ours asked"
        foreign = await api.anonymous(Origin="https://evil.example").options(path, headers=expected)
        assert not [name for name in foreign.headers if name.startswith("access-control")]


async def test_head_is_get_without_a_body(api):
    http = await browsing(api)
    made = (await http.post(DATASETS, json={"name": "slides"})).json()
    for path in (DATASETS, f"{DATASETS}/{made['id']}", "/api/users/me", "/api/health", f"{DATASETS}/{uuid4()}"):
        got, head = await http.get(path), await http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        same = {"etag", "content-type", "content-length", "cache-control"}
        assert {name: head.headers.get(name) for name in same} == {name: got.headers.get(name) for name in same}
    assert (await api.anonymous().head(DATASETS)).status_code == 401


# ---- limits ------------------------------------------------------------------------------------------------------------------------
async def test_what_is_too_long_is_refused_before_it_costs_anything(api):
    http = await browsing(api)
    check_problem(await http.get(f"{DATASETS}?cursor={MARK}{'x' * 8192}"), 414)
    check_problem(await http.get(DATASETS, headers={"X-Junk": MARK + "x" * 32768}), 431)
    deep = b'{"name":' + b"[" * 65 + b"]" * 65 + b"}"
    for body in (deep, b"[" * 100_000, b"[" * 1000 + b"]" * 1000):
        check_problem(await http.post(DATASETS, content=body, headers=JSON), 400, "malformed")


async def test_only_hosts_that_are_served_are_answered(api):
    """By default this machine's own names and that of the public address; the settings add others."""
    hosts = ("bioscope.Example.org", "2001:db8::1")
    app = api.with_options(base_url="https://Lab.example.org/bioscope", allowed_hosts=hosts).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://evil.example", headers={"Origin": ORIGIN}) as http:
        body = check_problem(await http.get("/api/health"), 421, "wrong_host")
        assert "BIOSCOPE_ALLOWED_HOSTS" in body["detail"]
        for host in SERVED:
            assert (await http.get("/api/health", headers={"Host": host})).status_code == 200, host
        for host in NOT_SERVED:
            check_problem(await http.get("/api/health", headers={"Host": host}), 421, "wrong_host")
        twice = [("Host", "localhost"), ("Host", "evil.example")]
        check_problem(await http.get("/api/health", headers=twice), 421, "wrong_host")
        for path in ("/health", "/health/live", "/metrics"):
            assert (await http.get(path)).status_code == 200, "whoever keeps us running asks by address"


SERVED = ("lab.example.org", "LAB.example.org:443", "bioscope.example.org:8000", "localhost:8000", "127.0.0.1", "[::1]:8000", "localhost.")
SERVED += ("[2001:db8::1]:8000",)
NOT_SERVED = (
    "",
    "lab.example.org.evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "[::2]",
    "x-localhost",
    "lab.example.org@evil",
)


async def opened(app, path="/api/ws", *, headers=(), readable=True):
    """What the edge says to a WebSocket, before anything is accepted."""
    body = []

    async def receive():
        return {"type": "websocket.connect"} if not body else {"type": "websocket.disconnect", "code": 1006}

    async def send(message):
        body.append(message)

    extensions = {"websocket.http.response": {}} if readable else {}
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "extensions": extensions,
    }
    await app({**scope, "subprotocols": [], "client": ("127.0.0.1", 1), "scheme": "ws", "asgi": {"version": "3.0"}}, receive, send)
    return body


async def test_a_websocket_passes_the_same_checks(api):
    for headers, status in (([(b"host", b"evil.example")], 421), ([(b"host", b"localhost"), (b"x", b"x" * 33_000)], 431), ([], 421)):
        start, body = await opened(api.app, headers=headers)
        assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
        assert (b"content-type", b"application/problem+json") in start["headers"]
        assert b'"code"' in body["body"]
        (closed,) = await opened(api.app, headers=headers, readable=False)
        assert closed["type"] == "websocket.close", "a server that can only close the handshake"
    accepted, *_ = await opened(api.app, headers=[(b"host", b"localhost:8000")])
    assert accepted["type"] == "websocket.accept"


# ---- bodies ------------------------------------------------------------------------------------------------------------------------
async def test_what_is_no_json_is_malformed(api):
    http = await browsing(api)
    for body in (
        b"{",
        b"\xff\xfe",
        b'{"name": "\xc3\x28"}',
        b"{'name': 'x'}",
        b'{"name": NaN}',
        b"\x00",
        b'{"name": "a"} x',
        b'{"name": 1e999999}x',
    ):
        check_problem(await http.post(DATASETS, content=body, headers=JSON), 400, "malformed")


async def test_text_that_the_database_cannot_hold_is_refused_everywhere(api):
    http = await browsing(api)
    for text in (r"a\u0000b", r"\ud800", r"\udc00x", r"\ud800\ud800"):
        for body in (f'{{"name": "{text}"}}', f'{{"{text}": "x"}}', f'{{"name": ["{text}"]}}'):
            check_problem(await http.post(DATASETS, content=body.encode(), headers=JSON), 400, "malformed")
        for path in ("/api/auth/login", "/api/auth/refresh", "/api/auth/register"):
            body = f'{{"email": "{text}", "password": "{text}", "refresh_token": "{text}"}}'
            check_problem(await http.post(path, content=body.encode(), headers=JSON), 400, "malformed")
    for query in ("cursor=%00", "cursor=%ED%A0%80", "cursor=%ff", "page_size=%00", "cursor=%F0%9F%92%A9"):
        check_problem(await http.get(f"{DATASETS}?{query}"), 422, "invalid")


async def test_json_under_another_name_is_refused(api):
    http = await browsing(api)
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", ""):
        for path in (DATASETS, "/api/auth/login", "/api/auth/refresh"):
            answer = await http.post(path, content=b'{"name": "x"}', headers={"Content-Type": media_type})
            check_problem(answer, 415, "unsupported_media_type")


async def test_an_empty_body_under_the_name_of_json_is_none(api):
    http = await browsing(api)
    made = (await http.post(DATASETS, json={"name": "slides"})).json()
    assert (await http.get(DATASETS, headers=JSON)).status_code == 200
    assert (await http.delete(f"{DATASETS}/{made['id']}", headers=JSON)).status_code == 204
    body = check_problem(await http.post(DATASETS, headers=JSON), 422, "invalid")
    assert body["errors"][0]["loc"] == ["body"]


async def test_a_wrong_field_is_named_and_not_echoed(api):
    http = await browsing(api)
    for body, location in (
        ({"name": "x", "owner_id": MARK}, ["body", "owner_id"]),
        ({"name": ["x"]}, ["body", "name"]),
        ({"name": None}, ["body", "name"]),
        ({}, ["body", "name"]),
        ([], ["body"]),
        ("x", ["body"]),
        ({"name": f"  {MARK} \x07"}, ["body", "name"]),
    ):
        message = check_problem(await http.post(DATASETS, json=body), 422, "invalid")
        assert message["errors"][0]["loc"] == location
        assert all(set(one) == {"loc", "msg"} for one in message["errors"])


async def test_a_wrong_query_is_named(api):
    http = await browsing(api)
    for query in ("page_size=x", "page_size=1.5", "page_size=", f"cursor={MARK}", "cursor=W10", "cursor=WyJ4IiwieCJd", "min_position=-1"):
        check_problem(await http.get(f"{DATASETS}?{query}"), 422, "invalid")
    for path, size in product((DATASETS, "/api/teams", "/api/images"), (0, -1, 201, 2**70)):
        message = check_problem(await http.get(f"{path}?page_size={size}"), 422, "invalid")
        assert message["errors"][0]["loc"] == ["query", "page_size"]
    assert (await http.get(f"{DATASETS}?page_size=200")).status_code == 200


# ---- the same command twice --------------------------------------------------------------------------------------------------------
async def test_one_key_sent_fifty_times_at_once_makes_one_dataset(api):
    http, other = await browsing(api), await browsing(api)
    key = {"Idempotency-Key": "slide-box-7"}
    answers = await asyncio.gather(*(http.post(DATASETS, json={"name": "slides"}, headers=key) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert {(answer.headers["etag"], answer.headers["x-event-position"]) for answer in answers} == {
        ('"1"', answers[0].headers["x-event-position"])
    }
    later = await http.post(f"{DATASETS}/", json={"name": "slides"}, headers=key)
    assert later.content == answers[0].content
    assert [one["id"] for one in (await http.get(DATASETS)).json()] == [answers[0].json()["id"]]
    check_problem(await http.post(DATASETS, json={"name": "others"}, headers=key), 422, "idempotency_key_reused")
    foreign = await other.post(DATASETS, json={"name": "others"}, headers=key)
    assert foreign.status_code == 201
    assert foreign.json()["id"] != answers[0].json()["id"]


async def test_a_key_is_short_visible_ascii(api):
    http = await browsing(api)
    for key in ("", "x" * 256, "a b", "\u00e4"):
        answer = await http.post(DATASETS, json={"name": "slides"}, headers={"Idempotency-Key": key.encode()})
        (error,) = check_problem(answer, 422, "invalid")["errors"]
        assert error == {"loc": ["header", "Idempotency-Key"], "msg": "must have 1 to 255 visible ASCII characters"}


async def test_a_repeat_answers_as_the_first_time_whatever_happened_since(api):
    http = await browsing(api)
    key = {"Idempotency-Key": "k"}
    first = await http.post(DATASETS, json={"name": "slides"}, headers=key)
    await http.patch(f"{DATASETS}/{first.json()['id']}", json={"name": "renamed"})
    await http.delete(f"{DATASETS}/{first.json()['id']}")
    again = await http.post(DATASETS, json={"name": "slides"}, headers=key)
    assert (again.status_code, again.content, again.headers["etag"]) == (201, first.content, first.headers["etag"])


# ---- versions and positions --------------------------------------------------------------------------------------------------------
async def test_a_moved_version_is_not_overwritten(api):
    http = await browsing(api)
    path = f"{DATASETS}/{(await http.post(DATASETS, json={'name': 'slides'})).json()['id']}"
    assert (await http.get(path)).headers["etag"] == '"1"'
    answers = await asyncio.gather(*(http.patch(path, json={"name": f"n{n}"}, headers={"If-Match": '"1"'}) for n in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    for answer in answers:
        if answer.status_code == 412:
            check_problem(answer, 412, "version_mismatch")
    assert (await http.patch(path, json={"name": "any"}, headers={"If-Match": "*"})).status_code == 200
    assert (await http.patch(path, json={"name": "weak"}, headers={"If-Match": 'W/"3"'})).status_code == 200
    for wrong in ("3", '"x"', '""', '"1", "2"', '"-1"'):
        body = check_problem(await http.patch(path, json={"name": "x"}, headers={"If-Match": wrong}), 422, "invalid")
        assert body["errors"][0]["loc"] == ["header", "If-Match"]
    check_problem(await http.delete(path, headers={"If-Match": '"1"'}), 412)
    assert (await http.delete(path, headers={"If-Match": '"4"'})).status_code == 204


async def test_a_request_for_a_position_waits_for_it_or_gets_retry_after(api):
    http = await browsing(api)
    for n in range(10):
        made = await http.post(DATASETS, json={"name": f"n{n}"}, headers={"Prefer": "respond-async"})
        position = made.headers["x-event-position"]
        listed = await http.get(f"{DATASETS}?min_position={position}")
        assert UUID(made.json()["id"]) in {UUID(one["id"]) for one in listed.json()}
    beyond = check_problem(await http.get(f"{DATASETS}?min_position={int(position) + 1000}"), 422, "invalid")
    assert beyond["errors"][0]["loc"] == ["query", "min_position"]
    for wrong in ("x", "-1", "1.5", "9" * 19, "", "\u00b2"):
        check_problem(await http.get(f"{DATASETS}?min_position={wrong}"), 422, "invalid")


class Behind:
    """Read models that do not follow the log."""

    position = 0

    async def wait(self, position, timeout):
        self.waited = timeout
        return False


async def test_a_request_for_a_position_that_the_read_models_do_not_reach_gets_retry_after(api):
    http = await browsing(api)
    await http.post(DATASETS, json={"name": "slides"})
    async with api.with_services(read_position=Behind()).anonymous(**http.headers) as late:
        away = await late.get(DATASETS, params={"min_position": api.services.log.head()})
    check_problem(away, 503, "unavailable")
    assert away.headers["retry-after"] == "1"


async def test_a_command_is_done_even_when_it_does_not_show_in_time(api):
    behind = Behind()
    http = await browsing(api)
    async with api.with_services(read_position=behind).anonymous(**http.headers) as late:
        assert (await late.post(DATASETS, json={"name": "slides"}, headers={"Prefer": "respond-async"})).status_code == 201
        assert not hasattr(behind, "waited")
        assert (await late.post(DATASETS, json={"name": "slides"})).status_code == 201
        assert behind.waited == 2.0


async def test_trailing_slashes_are_the_same_route(api):
    http = await browsing(api)
    made = (await http.post(f"{DATASETS}/", json={"name": "slides"})).json()
    for path in (DATASETS, f"{DATASETS}/", f"{DATASETS}/{made['id']}", f"{DATASETS}/{made['id']}/", f"{DATASETS}?", "/api/users/me/"):
        assert (await http.get(path)).status_code == 200


# ---- too many at once --------------------------------------------------------------------------------------------------------------
async def test_requests_beyond_the_limit_get_retry_after(api):
    class HeldPosition:
        position, arrived, reached = 0, asyncio.Semaphore(0), asyncio.Event()

        async def wait(self, position, timeout):
            self.arrived.release()
            return await self.reached.wait()

    held = HeldPosition()
    http = await browsing(api)
    api = api.with_options(admission=AdmissionLimits(normal=3)).with_services(read_position=held)
    http = api.anonymous(**http.headers)
    waiting = [asyncio.create_task(http.get(DATASETS, params={"min_position": api.services.log.head()})) for _ in range(3)]
    for _ in waiting:
        await asyncio.wait_for(held.arrived.acquire(), 10)
    refused = await http.get(DATASETS)
    check_problem(refused, 503)
    assert refused.headers["retry-after"] == "1"
    assert (await http.get("/health/live")).status_code == 200
    held.reached.set()
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
    assert (await http.get(DATASETS)).status_code == 200


async def test_slow_clients_do_not_delay_others(api):
    api = api.with_options(admission=AdmissionLimits(normal=3))
    http = await browsing(api)
    go_on, reading = asyncio.Event(), asyncio.Semaphore(0)

    async def slowly():
        yield b'{"name": '
        reading.release()
        await go_on.wait()
        yield b'"cells"}'

    slow = []
    for _ in range(8):
        slow.append(asyncio.create_task(http.post(DATASETS, content=slowly(), headers=JSON)))
        await asyncio.wait_for(reading.acquire(), 10)
    assert (await http.get(DATASETS)).status_code == 200
    go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*slow)} == {201}
    assert (await http.get(DATASETS)).status_code == 200


async def test_a_body_that_trickles_is_refused(api):
    api = api.with_options(body_timeouts=BodyTimeouts(idle_seconds=0.2))
    http = await browsing(api)

    async def trickles():
        while True:
            await asyncio.sleep(0.1)
            yield b" "

    check_problem(await http.post(DATASETS, content=trickles(), headers=JSON), 408, "too_slow")


async def test_a_body_that_does_not_go_on_is_refused_and_the_connection_serves_others(api):
    api = api.with_options(body_timeouts=BodyTimeouts(idle_seconds=0.2))
    http = await browsing(api)

    async def stops():
        yield b'{"name": '
        await asyncio.sleep(3600)

    check_problem(await asyncio.wait_for(http.post(DATASETS, content=stops(), headers=JSON), 10), 408, "too_slow")
    assert (await http.get(DATASETS)).status_code == 200
