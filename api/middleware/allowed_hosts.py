"""Checks the host name of requests. Otherwise a site whose name resolves to this machine could act as our own (DNS rebinding)."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from api.options import WebOptions

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")  # as in a Host header or an origin
PORT: Final = re.compile(":[0-9]*$")
ANY_HOST_PATHS: Final = ("/health", "/metrics")  # monitoring addresses the machine by IP address
REFUSED: Final = "This host name is not configured. The operator can add it to BIOSCOPE_ALLOWED_HOSTS or BIOSCOPE_PUBLIC_URL"


class AllowedHosts:
    """The loopback names, the host of the public URL, and the hosts in the settings, each with any port."""

    def __init__(self, options: WebOptions) -> None:
        self._served = {bracketed(name) for name in (*LOOPBACK, urlsplit(options.base_url).hostname or "", *options.allowed_hosts)} - {""}

    def allows(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        if is_under(path, ANY_HOST_PATHS):
            return True
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        return len(hosts) == 1 and PORT.sub("", hosts[0]).lower().removesuffix(".") in self._served


def is_under(path: str, prefixes: Iterable[str]) -> bool:
    """Whether `path` is one of the prefixes, or below it."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def bracketed(name: str) -> str:
    """`name` as in a Host header: lower case, and IPv6 in brackets."""
    return f"[{name}]".lower() if ":" in name and not name.startswith("[") else name.lower()
