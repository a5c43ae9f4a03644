"""Many unauthenticated clients from few addresses at the real server: users and health checks are still served."""

import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime
from http.client import HTTPConnection
from itertools import count

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from api.options import LiveLimits
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.installation import ensure_root_key, environment, with_free_port
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.keys import RootKey
from tests.conftest import TEMPLATE
from tests.overload.trial import memory
from tests.rigs.scenario import Scenario
from tests.rigs.waiting import wait_until

DATABASE = "test_strangers"
MANY = 1100
KIB, MIB = 1024, 1024**2
LOGIN = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = (
    b"GET /api/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
SOON = {"request_head_seconds": 2, "anonymous_body_seconds": 2}  # so that the tests take no longer
numbers = count()


class Served:
    """An API of its own, and a user of it."""

    def __init__(self, settings, pid, token):
        self.port, self.pid, self.token = settings.port, pid, token

    def get(self, path):
        """What a user gets on a new connection."""
        with contextlib.closing(self.connected()) as connection:
            return self.request(connection, path)

    def connected(self, source="127.0.0.1"):
        return HTTPConnection("127.0.0.1", self.port, timeout=5, source_address=(source, 0))

    def request(self, connection, path):
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        with connection.getresponse() as answer:
            answer.read()
            return answer.status

    def serves(self):
        return [self.get(path) for path in ("/health/live", "/api/users/me", "/api/datasets/")] == [200, 200, 200]

    def stranger(self, sent=b""):
        """A connection from one of three other addresses."""
        held = socket.create_connection(("127.0.0.1", self.port), 5, source_address=(f"127.0.0.{2 + next(numbers) % 3}", 0))
        with contextlib.suppress(OSError):  # others may have its place already
            held.sendall(sent)
        return held

    @contextlib.contextmanager
    def strangers(self, sent=b"", *, many=MANY):
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self.stranger(sent)) for _ in range(many)]

    def watching(self, **mode):
        return connect(f"ws://127.0.0.1:{self.port}/api/ws", compression=None, proxy=None, open_timeout=5, **mode)

    def memory(self):
        return memory(self.pid)


@pytest.fixture(scope="module", autouse=True)
def _many_sockets():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 4 * MANY)), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def served(postgres, redis_server, tmp_path_factory):
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {DATABASE} template {TEMPLATE}")
    settings = with_free_port(
        Settings(
            data=tmp_path_factory.mktemp("strangers"),
            port=0,
            postgres_url=postgres.url(user="bioscope_app", database=DATABASE),
            kafka_url="127.0.0.1:1",
            redis_url=redis_server.url,
            **SOON,
        )
    )
    ensure_root_key(settings)
    with subprocess.Popen([sys.executable, "-m", "api.cli", "api"], env=environment(settings, os.environ)) as server:
        try:
            api = Served(settings, server.pid, _token(settings))
            wait_until(lambda: api.get("/health/live") == 200, within=30, ignoring=[OSError])
            yield api
        finally:
            server.terminate()


def _token(settings):
    root = RootKey.read(settings.root_key_path)
    log = RecorderEventStore(PostgresRecorder(settings.postgres_url, root), root)
    scenario = Scenario(log, None)
    member = scenario.user()
    token = SignedAccessTokens(root, ttl=3600).issue(
        user=member.id, session=scenario.session(member), role=member.role, at=datetime.now(UTC)
    )
    log.close()
    return token


def heard(stranger, within=10):
    """All that comes until the server closes. Raises TimeoutError when it does not."""
    stranger.settimeout(within)
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := stranger.recv(65536):
            parts.append(part)
    return b"".join(parts)


# ---- connections -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-", PREFACE], ids=["nothing", "a line", "a head", "HTTP/2"]
)
def test_who_sends_no_request_holds_nobody_up_and_is_closed_soon(served, sent):
    before = served.memory()
    with served.strangers(sent) as strangers:
        assert served.serves()
        assert served.memory() - before < MANY * 64 * KIB
        for stranger in strangers[:: MANY // 20]:
            answer = heard(stranger)
            assert not answer or (sent == PREFACE and answer.startswith(b"HTTP/1.1 400") and b'"code":"malformed"' in answer)
        assert served.serves()


def test_a_head_that_comes_slowly_is_not_waited_for(served):
    with served.stranger(b"GET /health/live HTTP/1.1\r\n") as slow:

        def is_closed():
            try:
                slow.sendall(b"X: y\r\n")
            except OSError:
                return True
            return False

        assert not is_closed()
        wait_until(is_closed, within=5 * SOON["request_head_seconds"])


def test_a_users_connection_is_not_taken_by_strangers(served):
    with contextlib.closing(served.connected("127.0.0.2")) as kept:
        assert served.request(kept, "/api/users/me") == 200
        own = kept.sock
        with contextlib.ExitStack() as strangers:
            for _ in range(5):  # the connection is used meanwhile, because an idle one is closed
                strangers.enter_context(served.strangers(many=MANY // 5))
                assert served.request(kept, "/api/users/me") == 200
            assert kept.sock is own


def test_an_answer_that_is_not_taken_is_not_kept_for_ever(served):
    """Another client of the same address is served, though each asked for something large and reads nothing."""
    ask = b"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4
    wait_until(lambda: served.get("/api/openapi.json") == 200, within=30, ignoring=[OSError])  # the first one takes long
    before = served.memory()
    with served.strangers(ask, many=200):
        wait_until(served.serves, within=30, ignoring=[OSError])
        assert served.memory() - before < 200 * MIB


# ---- bodies ------------------------------------------------------------------------------------------------------------------------
def test_bodies_that_trickle_in_at_the_sign_in_hold_nobody_up(served):
    before = served.memory()
    with served.strangers(LOGIN % 8000 + b"{") as strangers:
        assert served.serves()
        assert sign_in(served, b'{"email":"nobody@example.org","password":"no"}', source="127.0.0.2").startswith(b"HTTP/1.1 401")
        for stranger in strangers[::50]:
            with contextlib.suppress(OSError):
                stranger.sendall(b" ")
        assert served.memory() - before < MANY * 64 * KIB
        assert served.serves()
        last = heard(strangers[-1])
    assert last.startswith(b"HTTP/1.1 408")
    assert b'"code":"too_slow"' in last


def test_a_large_body_at_the_sign_in_is_refused_before_it_is_read(served):
    body = b'{"email":"' + b"x" * (MIB - 20) + b'"}'
    assert sign_in(served, body).startswith(b"HTTP/1.1 413")
    assert sign_in(served, b'{"email":"' + b"x" * 8000 + b'"}').startswith(b"HTTP/1.1 422")
    assert served.serves()


def sign_in(served, body, source="127.0.0.9"):
    with socket.create_connection(("127.0.0.1", served.port), 5, source_address=(source, 0)) as connection:
        connection.sendall(LOGIN % len(body))
        with contextlib.suppress(OSError):
            connection.sendall(body)
        return connection.recv(65536)


def test_headers_that_are_too_large_are_a_problem_with_a_code_of_its_own(served):
    for headers in (b"X: " + b"x" * 40 * KIB, b"X: " + b"x" * 100 * KIB, b"X:\r\n" * 200):
        with served.stranger(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + b"\r\n\r\n") as stranger:
            answer = heard(stranger)
        assert answer.startswith(b"HTTP/1.1 431")
        assert b"content-type: application/problem+json" in answer
        assert b'"code":"headers_too_large"' in answer


def test_what_follows_a_body_in_chunks_is_not_kept(served):
    before = served.memory()
    sent = 0
    with (
        served.stranger(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n") as stranger,
        contextlib.suppress(OSError),
    ):
        for _ in range(40):
            stranger.sendall(b"a:b\r\n" * 200_000)
            sent += 1
    assert sent < 40
    assert served.memory() - before < 16 * MIB
    assert served.serves()


# ---- WebSockets --------------------------------------------------------------------------------------------------------------------
def test_sockets_that_do_not_say_who_they_are_take_no_users_place(served):
    before = served.memory()
    with served.strangers(UPGRADE, many=1000):
        with served.watching() as watch:
            watch.send(json.dumps({"type": "auth", "token": served.token}))
            assert json.loads(watch.recv(5))["type"] == "authenticated"
            assert served.serves()
        assert served.memory() - before < 1000 * 64 * KIB


def test_large_messages_are_refused_by_their_header(served):
    frame = b"\x81\xff" + struct.pack("!Q", 60 * MIB) + bytes(4)
    before = served.memory()
    with served.strangers(UPGRADE, many=8) as strangers:
        for stranger in strangers:
            with contextlib.suppress(OSError):
                stranger.sendall(frame)
                for _ in range(60):
                    stranger.sendall(bytes(MIB))
        assert served.memory() - before < 32 * MIB
        assert served.serves()


def test_a_message_may_be_larger_once_it_is_known_who_sends_it(served):
    long = json.dumps({"type": "ping", "more": "x" * 20_000})
    with served.watching() as watch:
        watch.send(long)
        assert code_of(watch) == 1009
    with served.watching() as watch:
        watch.send(json.dumps({"type": "auth", "token": served.token}))
        assert json.loads(watch.recv(5))["type"] == "authenticated"
        watch.send(long)
        assert code_of(watch) == 4400, "it was read, and not understood"


def test_messages_that_are_not_read_are_not_gathered(served):
    tiny = b"\x81\x80\0\0\0\0" * 40_000
    before = served.memory()
    with served.strangers(UPGRADE + tiny, many=20):
        assert served.serves()
        assert served.memory() - before < 20 * MIB


@pytest.mark.parametrize("frame", [b"\x89\x80\0\0\0\0", b"\x8a\x80\0\0\0\0", b"\x00\x80\0\0\0\0"], ids=["pings", "pongs", "fragments"])
def test_frames_that_are_no_messages_are_limited_too(served, frame):
    """Long before the server would have to know who it is."""
    first = b"\x01\x80\0\0\0\0" if frame[0] == 0 else b""
    began = time.monotonic()
    with served.stranger(UPGRADE) as stranger:
        assert stranger.recv(4096).startswith(b"HTTP/1.1 101")
        with contextlib.suppress(OSError):
            stranger.sendall(first + frame * 300)
        heard(stranger)
    assert time.monotonic() - began < LiveLimits().authenticate_timeout_seconds, "its silence did not end it"
    assert served.serves()


def test_a_socket_is_not_opened_behind_an_answer_under_way(served):
    wait_until(lambda: served.get("/api/openapi.json") == 200, within=30, ignoring=[OSError])
    query = b"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6
    with served.stranger(query + UPGRADE) as stranger:
        assert b"101 Switching" not in heard(stranger, within=4)


@pytest.mark.parametrize("headers", [b"X: " + b"x" * 9000 + b"\r\n", b"X:\r\n" * 200], ids=["too long", "too many"])
def test_a_socket_whose_head_is_not_taken_is_closed_at_once(served, headers):
    began = time.monotonic()
    with served.stranger(UPGRADE[:-2] + headers + b"\r\n") as stranger:
        assert b"101 Switching" not in heard(stranger, within=4)
    assert time.monotonic() - began < SOON["request_head_seconds"]


def code_of(watch):
    with pytest.raises(ConnectionClosed) as closed:
        watch.recv(5)
    return closed.value.rcvd.code
