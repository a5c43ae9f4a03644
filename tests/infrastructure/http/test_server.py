"""The HTTP server: connections, limits, and an end in time whatever clients do."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.installation import with_free_port
from infrastructure.http.server import DEFAULT_TIMEOUTS
from tests.rigs.waiting import wait_until

SERVE = """
import sys
from infrastructure.configuration.settings import Settings
from infrastructure.http.server import ServerTimeouts, serve
if __name__ == "__main__":
    timeouts = ServerTimeouts(send_seconds=1.0, drain_seconds=float(sys.argv[2]))
    serve("tests.infrastructure.http.served_app:small", Settings(port=int(sys.argv[1])), timeouts=timeouts)
"""


@pytest.fixture
def server(request, tmp_path):
    """The process, its address, and the file that it leaves at a clean end. Who has come in is let in for as long as is asked."""
    given, ended = with_free_port(Settings(port=0)), tmp_path / "ended"
    let_in = getattr(request, "param", DEFAULT_TIMEOUTS.drain_seconds)
    (tmp_path / "serve.py").write_text(SERVE)
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "serve.py"), str(given.port), str(let_in)],
        env=os.environ | {"ENDED": str(ended), "ASKED": str(tmp_path / "asked"), "PYTHONPATH": str(root)},
        cwd=root,
    )
    wait_until(lambda: httpx.get(given.base_url), within=15, ignoring=[httpx.TransportError])
    yield process, given, ended
    process.kill()
    process.wait()


def until_there(path):
    wait_until(path.exists, explain=lambda: f"{path} is not there")


def ends_cleanly(process, ended):
    """Whether it ends by itself after SIGTERM: a forced exit leaves no file at `ended`."""
    process.send_signal(signal.SIGTERM)
    return process.wait(15) == 0 and ended.exists()


def test_it_finishes_the_answer_under_way_and_ends_cleanly(server):
    process, given, ended = server
    with ThreadPoolExecutor(1) as threads, httpx.Client() as resting:
        resting.get(given.base_url)
        answer = threads.submit(httpx.get, f"{given.base_url}/slow")
        until_there(ended.parent / "asked")
        assert ends_cleanly(process, ended)
        assert answer.result().status_code == 200


def test_a_request_that_waits_for_something_is_answered_when_the_server_is_told_to_stop(server):
    process, given, ended = server
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(httpx.get, f"{given.base_url}/until-drained")
        until_there(ended.parent / "asked")
        assert ends_cleanly(process, ended)
        assert answer.result().status_code == 200


def test_an_application_hears_of_a_client_that_disconnects(server):
    _, given, ended = server
    with socket.create_connection((given.host, given.port)) as connection:
        connection.sendall(b"GET /until-disconnected HTTP/1.1\r\nHost: x\r\n\r\n")
        assert httpx.get(given.base_url).status_code == 200
        assert not (ended.parent / "asked").exists()
    until_there(ended.parent / "asked")


def test_an_application_that_stops_listening_for_a_disconnect_can_still_answer(server):
    _, given, _ = server
    with httpx.Client(base_url=given.base_url) as client:
        for _ in range(3):
            assert client.get("/stop-listening").status_code == 200


def test_clients_with_open_requests_do_not_delay_the_end(server):
    process, given, ended = server
    held = [socket.create_connection((given.host, given.port)) for _ in range(20)]
    for number, connection in enumerate(held):
        start = b"POST /body HTTP/1.1\r\nHost: x\r\n" + (b"Content-Length: 100\r\n\r\n{" if number % 2 else b"")
        connection.sendall(start)
    assert httpx.get(given.base_url).status_code == 200
    assert ends_cleanly(process, ended)
    for connection in held:
        connection.close()


@pytest.mark.parametrize("server", [4.0], indirect=True)
def test_a_connection_opened_before_the_end_is_answered(server):
    process, given, ended = server
    came = [socket.create_connection((given.host, given.port), 5) for _ in range(20)]
    process.send_signal(signal.SIGTERM)
    until_there(ended.parent / "drained")
    for connection in came:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answers = [connection.recv(500).lower() for connection in came]
    assert all(answer.startswith(b"http/1.1 200 ok") and b"connection: close" in answer for answer in answers)
    assert process.wait(15) == 0
    for connection in came:
        connection.close()


def test_it_is_one_process(server):
    process, given, _ = server
    assert int(httpx.get(given.base_url).text) == process.pid


def test_it_listens_on_its_address_only_and_hides_its_name(server):
    _, given, _ = server
    assert httpx.get(given.base_url).headers["server"] == "bioscope"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", given.port), 1)


# ---- connections -------------------------------------------------------------------------------------------------------------------
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def heard(server, said, *, within=5.0):
    """All that comes until the server closes, in answer to `said`."""
    _, given, _ = server
    with socket.create_connection((given.host, given.port), within) as connection:
        connection.sendall(said)
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def test_requests_that_follow_each_other_without_waiting_are_all_answered(server):
    assert heard(server, GET * 3 + LAST).count(b"HTTP/1.1 200") == 4


def test_more_requests_without_waiting_than_anybody_sends_end_the_connection(server):
    assert heard(server, GET * 10_000).count(b"HTTP/1.1 200") < 10
    assert httpx.get(server[1].base_url).status_code == 200


def test_what_follows_a_request_and_is_none_does_not_cost_its_answer(server):
    answer = heard(server, GET + b"\0 nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


def test_http_2_is_answered_in_http_1(server):
    answer = heard(server, GET[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n")
    assert answer.lower().startswith(b"http/1.1 200")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("wrong", [b"\x16\x03\x01\x02\0", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET  /\0 HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_answered_with_400_and_closed(server, wrong):
    answer = heard(server, wrong)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer


def test_a_client_that_takes_nothing_is_closed_and_one_that_is_slow_is_not(server):
    _, given, _ = server
    with socket.socket() as deaf, socket.socket() as slow:
        for connection in (deaf, slow):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((given.host, given.port))
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        taken, until = 0, time.monotonic() + 3.0
        while time.monotonic() < until:
            taken += len(slow.recv(65536))
            time.sleep(0.02)
        slow.settimeout(10)
        while part := slow.recv(1024**2):
            taken += len(part)
        assert taken > 64 * 256 * 1024
        with pytest.raises(ConnectionResetError):
            _read_to_the_end(deaf)


def _read_to_the_end(connection):
    while connection.recv(65536):
        pass
