"""The client address of a request behind proxies."""

from ipaddress import ip_network

import httpx
import pytest

from api.middleware.client_address import address_of
from application.services import DependencyHealth

OURS = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),  # who is not trusted may say what he likes
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1", "198.51.100.1"),  # what came with the request was said by its sender
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("", "198.51.100.1", ""),
        ("::ffff:203.0.113.7", "198.51.100.1", "203.0.113.7"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
    ],
)
def test_only_what_trusted_proxies_say_is_believed(peer, forwarded, address):
    assert address_of(peer, forwarded, OURS) == address


def test_without_trusted_proxies_nobody_is_believed():
    assert address_of("127.0.0.1", "198.51.100.1", ()) == "127.0.0.1"


@pytest.mark.anyio
async def test_metrics_are_not_served_through_a_proxy(api):
    http = api.anonymous()
    assert (await http.get("/metrics")).status_code == 200
    assert (await http.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 404


class SilentClassifier:
    """Health checks that find one."""

    async def examine(self):
        return [DependencyHealth(name="inference-bridge", ok=False, detail="models: 1", silent_models=("vesicles",))]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("peer", "headers", "named"),
    [
        ("127.0.0.1", {}, ["vesicles"]),
        ("::1", {}, ["vesicles"]),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, []),
        ("192.0.2.7", {}, []),
    ],
)
async def test_models_whose_classifier_is_silent_are_named_to_requests_from_this_machine_only(api, peer, headers, named):
    app = api.with_services(health=SilentClassifier()).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(peer, 1)), base_url=api.url, headers=headers) as http:
        for path in ("/health/ready", "/api/health/ready"):
            [found] = (await http.get(path)).json()["dependencies"]
            assert (found["detail"], found["silent_models"]) == ("models: 1", named)
