"""The HTTP server: it ends in time whatever its clients do."""

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

from infrastructure.embedded.installation import with_free_port
from infrastructure.serving import LET_IN
from infrastructure.settings import Settings

SERVE = """
import sys
from infrastructure import serving
from infrastructure.settings import Settings
if __name__ == "__main__":
    serving.LET_IN = float(sys.argv[2])
    serving.serve("tests.infrastructure.served:small", Settings(port=int(sys.argv[1])))
"""


@pytest.fixture
def server(request, tmp_path):
    """The process, its address, and the file that it leaves at a clean end. Who has come in is let in for as long as is asked."""
    given, ended = with_free_port(Settings(port=0)), tmp_path / "ended"
    let_in = getattr(request, "param", LET_IN)
    (tmp_path / "serve.py").write_text(SERVE)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "serve.py"), str(given.port), str(let_in)],
        env=os.environ | {"ENDED": str(ended), "ASKED": str(tmp_path / "asked"), "PYTHONPATH": str(root)},
        cwd=root,
    )
    until = time.monotonic() + 15
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(given.base_url)
            break
        time.sleep(0.05)
    yield process, given, ended
    process.kill()
    process.wait()


def until_there(path):
    until = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def seconds_to_end(process):
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    return time.monotonic() - began


def test_it_finishes_the_answer_under_way_and_ends_cleanly(server):
    process, given, ended = server
    with ThreadPoolExecutor(1) as threads, httpx.Client() as resting:
        resting.get(given.base_url)
        answer = threads.submit(httpx.get, f"{given.base_url}/slow")
        until_there(ended.parent / "asked")
        assert seconds_to_end(process) < 3
        assert answer.result().status_code == 200
    assert ended.exists()


def test_a_request_that_waits_for_something_is_answered_when_the_server_is_told_to_stop(server):
    process, given, ended = server
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(httpx.get, f"{given.base_url}/until-drained")
        until_there(ended.parent / "asked")
        assert seconds_to_end(process) < 3
        assert answer.result().status_code == 200
    assert ended.exists()


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


def test_clients_that_hold_on_do_not_hold_it_up(server):
    process, given, _ = server
    held = [socket.create_connection((given.host, given.port)) for _ in range(20)]
    for number, connection in enumerate(held):
        start = b"POST /body HTTP/1.1\r\nHost: x\r\n" + (b"Content-Length: 100\r\n\r\n{" if number % 2 else b"")
        connection.sendall(start)
    time.sleep(0.3)
    assert httpx.get(given.base_url).status_code == 200
    assert seconds_to_end(process) < 4
    for connection in held:
        connection.close()


@pytest.mark.parametrize("server", [2.0], indirect=True)
def test_who_came_in_before_the_end_is_heard_and_answered(server):
    process, given, _ = server
    came = [socket.create_connection((given.host, given.port), 5) for _ in range(20)]
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
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


def test_it_listens_where_it_was_told_and_does_not_name_itself(server):
    _, given, _ = server
    assert httpx.get(given.base_url).headers["server"] == "bioscope"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", given.port), 1)
