"""The API on an IPv6 address: its URL works, and its pages may open a WebSocket."""

import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from websockets.sync.client import connect

from infrastructure.embedded.installation import environment, with_free_port
from tests.rigs.waiting import wait_until


@pytest.fixture(params=["::1", "::"])
def served(request, settings):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    given = with_free_port(msgspec.structs.replace(settings, host=request.param))
    variables = environment(given, os.environ) | {"PGSERVICE": "nowhere"}
    with subprocess.Popen([sys.executable, "-P", "-m", "api.cli", "api"], env=variables) as server:
        try:
            yield given
        finally:
            server.terminate()


def live(url):
    return wait_until(lambda: httpx.get(f"{url}/health/live", trust_env=False), within=60, ignoring=[httpx.TransportError])


def postgres_of(served):
    dependencies = httpx.get(f"{served.base_url}/health/ready", trust_env=False).json()["dependencies"]
    return next(one for one in dependencies if one["name"] == "postgres")


def test_an_api_on_ipv6_is_reached_by_its_url(served):
    assert served.base_url == f"http://[::1]:{served.port}"
    assert live(served.base_url).json() == {"status": "ok"}
    wait_until(lambda: postgres_of(served)["ok"])  # PGSERVICE is ignored in the server's worker too
    with connect(f"ws://{urlsplit(served.base_url).netloc}/api/ws", origin=served.base_url, compression=None, proxy=None) as opened:
        assert opened.response.status_code == 101
