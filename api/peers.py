"""Whom a request comes from: whoever connects, or whom a proxy that we trust names in his stead."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

Network = IPv4Network | IPv6Network


def address_of(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """`forwarded` is X-Forwarded-For: each proxy adds at its end who asked it. Read from there, as far as those are trusted who say so."""
    told = [part.strip() for part in forwarded.split(",")]
    address = peer
    while told and _is_of(address, trusted) and _is_address(told[-1]):
        address = told.pop()
    return address


def peer_of(scope: Any, trusted: Sequence[Network]) -> str:
    """The address of the client of an ASGI scope."""
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    peer = scope["client"][0] if scope.get("client") else ""
    return address_of(peer, forwarded.decode("latin-1"), trusted)


def _is_of(address: str, networks: Sequence[Network]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
