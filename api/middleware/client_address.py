"""Finds the client's address: that of the connection, or the one that a trusted proxy reports."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Network = IPv4Network | IPv6Network


def address_of(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The client's address. `forwarded` is X-Forwarded-For, to which each proxy appends its client: it is read from its end, as long as
    the proxies are trusted."""
    hops = [part.strip() for part in forwarded.split(",")]
    address = _plain(peer)
    while hops and _is_of(address, trusted) and _parsed(hops[-1]):
        address = _plain(hops.pop())
    return address


def peer_of(scope: Any, trusted: Sequence[Network]) -> str:
    """The address of the client of an ASGI scope."""
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    peer = scope["client"][0] if scope.get("client") else ""
    return address_of(peer, forwarded.decode("latin-1"), trusted)


def _plain(address: str) -> str:
    """The address; an IPv4 address also if a dual-stack socket reports it as IPv6 (::ffff:192.0.2.1)."""
    parsed = _parsed(address)
    return str(parsed.ipv4_mapped) if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped else address


def _is_of(address: str, networks: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
