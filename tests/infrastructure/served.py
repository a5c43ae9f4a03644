"""A small application for the HTTP server's worker: it notes that it was asked what takes long, and a clean end."""

import asyncio
import os
from pathlib import Path

from infrastructure.embedded.child import die_with_parent


def small():
    die_with_parent()
    return answer


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
    if scope["path"] == "/body":
        await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"bioscope")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
