"""The command line's HTTP client: it never uses a proxy for this machine."""

import os
import socket
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.client.api_client import Client
from api.cli.client.credentials import Credentials
from api.cli.client.http_connection import UnusableEnvironment, is_loopback, open_http

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """A server on loopback that answers one request; its address, and the requests that came."""
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_one, args=(listener, requests))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", requests
        socket.create_connection(listener.getsockname()).close()
        thread.join()


def answer_one(listener, requests):
    connection, _ = listener.accept()
    with connection:
        requests.append(connection.recv(65536))
        if requests[-1]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://127.0.0.1:9"])
@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(server, monkeypatch, variable, proxy):
    monkeypatch.setenv(variable, proxy)
    address, requests = server
    with Client(Credentials(f"http://{address}", "token")) as client:
        assert client.get("/api/models") == {}
    assert requests[0].startswith(b"GET /api/models ")


def test_a_server_elsewhere_is_asked_through_the_proxy_of_the_environment(server, monkeypatch):
    address, requests = server
    monkeypatch.setenv("http_proxy", f"http://{address}")
    with open_http("http://bioscope.example.org") as http:
        assert http.get("/health/live").json() == {}
    assert requests[0].startswith(b"GET http://bioscope.example.org/health/live ")


@pytest.mark.parametrize(
    ("proxy", "sentence"), [("socks5://127.0.0.1:9", "SOCKS proxy .* unset ALL_PROXY"), ("nonsense://127.0.0.1:9", "correct or unset it")]
)
def test_a_proxy_that_cannot_be_used_is_refused_in_a_sentence(monkeypatch, proxy, sentence):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UnusableEnvironment, match=sentence):
        open_http("http://bioscope.example.org")


@given(st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_all_of_127_is_this_machine(address):
    assert is_loopback(str(address))
    assert is_loopback(str(int(address)))
    assert is_loopback(f"::ffff:{address}")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "api.localhost", "::1", "[::1]", "127.1", "0.0.0.0", "::"])
def test_other_names_of_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "example.org", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1", "::2", "128.0.0.1"])
def test_other_machines(host):
    assert not is_loopback(host)


@given(st.text())
def test_any_text_may_stand_for_a_host(host):
    assert is_loopback(host) in {True, False}


def test_login_with_a_home_that_cannot_be_written_ends_in_a_sentence():
    script = "from api.cli.client.credentials import *; store_credentials(Credentials('http://127.0.0.1:1', 'token'))"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PATH": os.defpath, "HOME": "/proc/none"}, capture_output=True, text=True, check=False
    )
    assert "UnusableEnvironment: the token cannot be kept in /proc/none/.config/bioscope/token.json" in done.stderr
    assert "set XDG_CONFIG_HOME" in done.stderr
