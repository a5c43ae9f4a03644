"""The start and the end of the application, as the server asks for them."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from api.middleware.outer import serve_lifespan

pytestmark = pytest.mark.anyio


async def served(*, fails_at=None):
    """The names of the messages to the server, and of the steps between them."""
    happened, stop = [], asyncio.Queue()
    stop.put_nowait({"type": "lifespan.startup"})

    @asynccontextmanager
    async def lifespan():
        if fails_at == "startup":
            raise OSError("no database")
        happened.append("open")
        yield
        if fails_at == "shutdown":
            raise OSError("not closed")
        happened.append("closed")

    async def send(message):
        happened.append(message["type"])
        if message["type"] == "lifespan.startup.complete":
            stop.put_nowait({"type": "lifespan.shutdown"})

    failed = False
    try:
        await serve_lifespan(lifespan, stop.get, send)
    except OSError:
        failed = True
    assert failed == (fails_at is not None)
    return happened


async def test_resources_are_open_from_the_start_until_the_server_stops():
    assert await served() == ["open", "lifespan.startup.complete", "closed", "lifespan.shutdown.complete"]


async def test_a_failed_start_or_end_is_reported_to_the_server():
    assert await served(fails_at="startup") == ["lifespan.startup.failed"]
    assert await served(fails_at="shutdown") == ["open", "lifespan.startup.complete", "lifespan.shutdown.failed"]
