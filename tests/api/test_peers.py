"""Whom a request comes from, behind proxies."""

from ipaddress import ip_network

import httpx
import msgspec
import pytest

from api.app import create_app
from api.peers import address_of

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
    ],
)
def test_only_what_trusted_proxies_say_is_believed(peer, forwarded, address):
    assert address_of(peer, forwarded, OURS) == address


def test_without_trusted_proxies_nobody_is_believed():
    assert address_of("127.0.0.1", "198.51.100.1", ()) == "127.0.0.1"


@pytest.mark.anyio
async def test_behind_a_trusted_proxy_each_address_has_its_own_limit(laboratory):
    options = msgspec.structs.replace(laboratory.services.options, trusted_proxies=(ip_network("127.0.0.1"),), logins_per_minute_address=1)
    app = create_app(msgspec.structs.replace(laboratory.services, options=options))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=laboratory.url) as http:

        async def tried(address):
            body = {"email": laboratory.account(), "password": "not the password 1"}
            return (await http.post("/api/auth/login", json=body, headers={"X-Forwarded-For": address})).status_code

        assert [await tried("203.0.113.1"), await tried("203.0.113.1"), await tried("203.0.113.2")] == [401, 429, 401]


@pytest.mark.anyio
async def test_figures_are_told_to_nobody_who_comes_through_a_proxy(laboratory):
    http = laboratory.anonymous()
    assert (await http.get("/metrics")).status_code == 200
    assert (await http.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 404
