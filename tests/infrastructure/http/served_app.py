"""A small application for tests of the HTTP server. Files record slow requests, the drain and a clean end."""

import asyncio
import os
from pathlib import Path


async def until_disconnected(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


drained = asyncio.Event()


class Small:
    """Answers `/until-drained` when it is told that no new connection is accepted."""

    async def __call__(self, scope, receive, send):
        await answer(scope, receive, send)

    def drain(self):
        Path(os.environ["ENDED"]).with_name("drained").touch()
        drained.set()


def small():
    return Small()


async def answer(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        Path(os.environ["ENDED"]).touch()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        Path(os.environ["ASKED"]).touch()
        await asyncio.sleep(0.8)
    if scope["path"] == "/until-drained":
        Path(os.environ["ASKED"]).touch()
        await drained.wait()
    if scope["path"] == "/until-disconnected":
        await until_disconnected(receive)
        Path(os.environ["ASKED"]).touch()
    if scope["path"] == "/stop-listening":
        listening = asyncio.create_task(until_disconnected(receive))
        await asyncio.wait([listening], timeout=0.1)
        listening.cancel()
        await asyncio.wait([listening])
    if scope["path"] == "/body":
        await receive()
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200})
        for number in range(64):
            await send({"type": "http.response.body", "body": bytes(256 * 1024), "more_body": number < 63})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"bioscope")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
