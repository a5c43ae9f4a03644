"""The HTTP connection of the command line's client: how it treats proxies."""

import platform
import socket
from contextlib import suppress
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import httpx

REQUEST_TIMEOUT_SECONDS: Final = 30.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0


class UnusableEnvironment(Exception):
    """A proxy or a folder that the environment names cannot be used; the text says what to do."""


def open_http(url: str) -> httpx.Client:
    """A client for the server at `url`.

    A server on this machine is never reached through a proxy: that would send passwords to it. For every other server
    the proxies of the environment (HTTPS_PROXY, NO_PROXY, ...) are used. Raises UnusableEnvironment.
    """
    timeout = httpx.Timeout(REQUEST_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
    try:
        agent = f"bioscope/{version('bioscope')} ({platform.system()})"
        return httpx.Client(base_url=url, headers={"User-Agent": agent}, timeout=timeout, trust_env=not is_loopback(httpx.URL(url).host))
    except ImportError:
        raise UnusableEnvironment(
            f"the environment names a SOCKS proxy for {url}, which is not supported: unset ALL_PROXY, or add the host to NO_PROXY"
        ) from None
    except ValueError as error:
        raise UnusableEnvironment(f"the environment names a proxy that cannot be used ({error}): correct or unset it") from None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by name or address, without asking any name server."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and (address.is_loopback or address.is_unspecified)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """Short forms such as 127.1 included, which the operating system accepts too."""
    with suppress(ValueError):
        return ip_address(name.strip("[]"))
    with suppress(OSError, ValueError):
        return IPv4Address(socket.inet_aton(name))
    return None
