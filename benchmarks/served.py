"""Runs the bare handlers on the HTTP server of the product, in a separate process."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.child import Child
from infrastructure.embedded.installation import with_free_port

SERVE = """import os
from infrastructure.http.server import serve
from infrastructure.configuration.settings import load
serve('benchmarks.bare:create', load(os.environ))"""


@contextmanager
def bare_server(home: Path, **variables: str) -> Iterator[tuple[str, int]]:
    """Yields (URL, process id)."""
    port = with_free_port(msgspec.structs.replace(Settings(), port=0)).port
    environment = {**os.environ, "BIOSCOPE_PORT": str(port), **variables}
    child = Child((sys.executable, "-c", SERVE), log=home / "bare.log", environment=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(url)
        yield url, child.pid
    finally:
        child.ask_to_stop()
        child.ended(within=5)
        child.kill()


def wait_until_it_answers(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(url, timeout=1)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no server answers at {url}")
