"""The HTTP server's own process. It imports nothing of what its worker serves: it only accepts, watches and ends it.

Ending takes two steps, so that nobody is cut off: first the door is closed, while all who came in before are heard and answered; then
the worker is told to stop. Without the first step a connection that was accepted, but not yet read from, is closed without an answer.
"""

import asyncio
import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from infrastructure.settings import Settings

BACKLOG: Final = 1024  # connections that wait to be accepted
CONNECTIONS: Final = 1024  # requests and WebSockets under way; beyond, connections wait
HEADER_WITHIN: Final = 10_000  # milliseconds until a request's headers are there; a connection at rest is closed then too
BUFFER: Final = 64 * 1024  # bytes of headers and of a body that waits to be read
LET_IN: Final = 0.3  # seconds from the closing of the door until the worker is told to stop
ENDS_WITHIN: Final = 2  # seconds that answers under way may take when the server is told to stop

CLOSE_THE_DOOR: Final = signal.SIGURG  # one that nobody minds who does not know it
SO_ATTACH_FILTER: Final = 26
NO_NEW_CONNECTION: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A packet filter (Linux, filter.h: code, two jumps, number) over a TCP header: load the flags; if SYN is set, drop it; else keep all."""


def serve(target: str, settings: Settings) -> None:
    """Serve the application that the function named by `target` makes, until SIGTERM or SIGINT. Blocks.

    One worker: commands wait in threads, and the group commit gathers them.
    """
    server = Granian(
        target,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        factory=True,
        workers=1,
        loop=Loops.uvloop,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_WITHIN, max_buffer_size=BUFFER),
        workers_kill_timeout=ENDS_WITHIN,
        log_level=LogLevels.warning,
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": False}}},
    )
    server.on_startup(lambda: _close_the_door_before_the_end(server))
    server.serve(target_loader=_application)


def _close_the_door_before_the_end(server: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        end = signal.getsignal(number)
        assert callable(end)
        signal.signal(number, partial(_told_to_end, server, end))


def _told_to_end(server: Any, end: Any, *about: Any) -> None:
    for worker in server.wrks:
        with suppress(ProcessLookupError):
            os.kill(worker.inner.pid, CLOSE_THE_DOOR)
    time.sleep(LET_IN)
    end(*about)


# ---- in the worker -----------------------------------------------------------------------------------------------------------------
def _application(target: str) -> "_Door":
    module, _, name = target.partition(":")
    door = _Door(getattr(import_module(module), name)())
    asyncio.get_event_loop().add_signal_handler(CLOSE_THE_DOOR, door.close)
    return door


class _Door:
    """The application, and whether anybody else is let in to it. Once closed, each answer is its connection's last.

    The application's `drain()`, where it has one, is called then: it answers requests that wait for something.
    """

    def __init__(self, app: Any) -> None:
        self._app, self._closed = app, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def last(message: Any) -> None:
            if self._closed and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, last if scope["type"] == "http" else send)

    def close(self) -> None:
        """Clients that connect from now on hear nothing, and are refused once the worker has ended."""
        self._closed = True
        getattr(self._app, "drain", lambda: None)()
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in NO_NEW_CONNECTION))
        program = struct.pack("HL", len(NO_NEW_CONNECTION), ctypes.addressof(code))
        for listener in _listeners():
            with suppress(OSError):  # a kernel without filters: then whoever comes last may be cut off
                listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _listeners() -> Iterator[socket.socket]:
    descriptors = Path("/proc/self/fd")
    for descriptor in descriptors.iterdir() if descriptors.exists() else ():
        with suppress(OSError), socket.fromfd(int(descriptor.name), socket.AF_INET, socket.SOCK_STREAM) as found:
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield found
