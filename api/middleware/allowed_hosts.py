"""Which host names are served. A page elsewhere can have its own name lead to this machine, and would then count as a page of ours."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from application.services import WebOptions

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
PORT: Final = re.compile(":[0-9]*$")
BY_ANY_NAME: Final = ("/health", "/metrics")  # monitoring asks by address
REFUSED: Final = "This host name is not served here. Whoever runs the server can add it to BIOSCOPE_ALLOWED_HOSTS or BIOSCOPE_PUBLIC_URL"


class AllowedHosts:
    """This machine by its own names, the name under which the world reaches us, and those that the settings add; with any port."""

    def __init__(self, options: WebOptions) -> None:
        self._served = {_bracketed(name) for name in (*LOOPBACK, urlsplit(options.base_url).hostname or "", *options.allowed_hosts)} - {""}

    def serve(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        if is_under(path, BY_ANY_NAME):
            return True
        named = [value.decode("latin-1") for name, value in headers if name == b"host"]
        return len(named) == 1 and PORT.sub("", named[0]).lower().removesuffix(".") in self._served


def is_under(path: str, places: Iterable[str]) -> bool:
    """Whether it is one of the places, or below it."""
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _bracketed(name: str) -> str:
    """As a Host header has it: IPv6 in brackets."""
    return f"[{name}]".lower() if ":" in name and not name.startswith("[") else name.lower()
