"""Forwards a fixed port on loopback to a server whose port changes."""

import asyncio
import socket
from functools import partial
from typing import Final

HOST: Final = "127.0.0.1"
PIECE_BYTES: Final = 64 * 1024


def forward_always(listener: socket.socket, target: tuple[str, int]) -> None:
    """Connect each client of `listener` with the server `target` (host and port), until the process ends."""
    asyncio.run(_forward_always(listener, target))


async def _forward_always(listener: socket.socket, target: tuple[str, int]) -> None:
    server = await asyncio.start_server(partial(_connect, target), sock=listener)
    async with server:
        await server.serve_forever()


async def _connect(target: tuple[str, int], client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    """Copy in both directions until either side closes."""
    try:
        server, to_server = await asyncio.open_connection(*target)
        copies = [asyncio.create_task(_copy(client, to_server)), asyncio.create_task(_copy(server, to_client))]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_server.close()
            for copy in copies:
                copy.cancel()
    except OSError:
        pass  # the server is not there: the client sees its connection end
    finally:
        to_client.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(PIECE_BYTES):
        target.write(piece)
        await target.drain()
