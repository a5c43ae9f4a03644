"""Whom a request comes from: whoever connects, or whom a proxy that we trust names in his stead."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Network = IPv4Network | IPv6Network


def address_of(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """`forwarded` is X-Forwarded-For: each proxy adds at its end who asked it. Read from there, as far as those are trusted who say so."""
    told = [part.strip() for part in forwarded.split(",")]
    address = _plain(peer)
    while told and _is_of(address, trusted) and _parsed(told[-1]):
        address = _plain(told.pop())
    return address


def peer_of(scope: Any, trusted: Sequence[Network]) -> str:
    """The address of the client of an ASGI scope."""
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    peer = scope["client"][0] if scope.get("client") else ""
    return address_of(peer, forwarded.decode("latin-1"), trusted)


def _plain(address: str) -> str:
    """An IPv4 address as such, also where a socket that listens to both families names it as IPv6 (::ffff:192.0.2.1)."""
    found = _parsed(address)
    return str(found.ipv4_mapped) if isinstance(found, IPv6Address) and found.ipv4_mapped else address


def _is_of(address: str, networks: Sequence[Network]) -> bool:
    found = _parsed(address)
    return found is not None and any(found in network for network in networks)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
