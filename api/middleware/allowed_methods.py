"""The methods of each address, for the header Allow. The router leaves out HEAD, and in its answers to OPTIONS other methods too."""

from collections.abc import Mapping
from typing import Final

from litestar import Litestar
from litestar.routes import HTTPRoute

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class AllowedMethods:
    """Methods by path template."""

    def __init__(self, router: Litestar) -> None:
        self._of: Mapping[str, frozenset[str]] = {
            route.path_format: frozenset(route.methods) for route in router.routes if isinstance(route, HTTPRoute)
        }

    def header(self, path_template: str, value: bytes) -> bytes:
        """The header Allow of an answer, in which the router set `value`."""
        found = self._of.get(path_template, frozenset(value.decode("latin-1").split(", ")))
        return ", ".join(method for method in METHODS if method in found or (method == "HEAD" and "GET" in found)).encode()
