"""The HTTP server, in the process that calls it.

Ending takes two steps, so that nobody is cut off: first the door is closed, while all who came in before are heard and answered; then
the server is told to stop. Without the first step a connection that was accepted, but not yet read from, is closed without an answer.
"""

import asyncio
import ctypes
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Final, cast

from uvicorn import Config, Server

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.installation import bound_socket
from infrastructure.http.connections import SEND_TIMEOUT_SECONDS, ConnectionLimits, HttpConnection
from infrastructure.process_exit import exit_within

BACKLOG: Final = 4096  # connections that wait to be accepted: more strangers at once than that make others wait for a second
DRAIN_SECONDS: Final = 0.3  # seconds from the closing of the door until the server is told to stop
STOP_TIMEOUT_SECONDS: Final = 2  # seconds that answers under way may take when the server is told to stop
DATE_INTERVAL_SECONDS: Final = 1.0  # seconds
APPLICATION_STOP_TIMEOUT_SECONDS: Final = 2.0  # seconds more for the application's own end

ACCEPTS_PER_TURN: Final = 16  # connections: uvloop accepts one of each socket, so a crowd would wait for as many turns
SWITCH_INTERVAL_SECONDS: Final = 0.0005  # seconds: under load, commands in threads must not wait 5 ms for each turn of the interpreter lock

MMAP_THRESHOLD_BYTES: Final = 1024**2  # bytes
M_MMAP_THRESHOLD: Final = -3  # malloc.h

SO_ATTACH_FILTER: Final = 26
NO_NEW_CONNECTION: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A packet filter (Linux, filter.h: code, two jumps, number) over a TCP header: load the flags; if SYN is set, drop it; else keep all."""


def serve(target: str, settings: Settings) -> None:
    """Serve the application that the function named by `target` makes, until SIGTERM or SIGINT. Blocks. Raises CannotStart.

    One process: commands wait in threads, and the group commit gathers them.
    """
    module, _, name = target.partition(":")
    app = getattr(import_module(module), name)()
    limits = ConnectionLimits(settings)
    _return_large_blocks()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    config = Config(
        app,
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", partial(HttpConnection, limits)),
        ws="websockets-sansio",
        ws_max_size=settings.websocket_max_bytes,
        ws_ping_interval=None,  # the application has pings of its own
        ws_per_message_deflate=False,
        interface="asgi3",
        lifespan="on",
        log_config=None,
        log_level="error",  # what clients do wrong is their concern
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=cast("int", settings.request_head_seconds),
        timeout_graceful_shutdown=STOP_TIMEOUT_SECONDS,
    )
    with bound_socket(settings) as door:
        door.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_TIMEOUT_SECONDS * 1000)
        )  # connections inherit it, also closed ones
        doors = [door, *(door.dup() for _ in range(1, ACCEPTS_PER_TURN))]
        _GracefulShutdown(config, limits, door, drain=getattr(app, "drain", lambda: None)).run(sockets=doors)


def _return_large_blocks() -> None:
    """Give the memory of a password hash or an upload back to the system when it ends. glibc would keep as much for each thread."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


class _GracefulShutdown(Server):
    """A server that closes its door before it stops. `drain` is called then: it answers requests that wait for something."""

    def __init__(self, config: Config, limits: ConnectionLimits, door: socket.socket, *, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._limits, self._door, self._drain = limits, door, drain
        self._stopped = asyncio.Event()

    async def main_loop(self) -> None:
        """As the base, which looks ten times a second whether to stop: it is told, and writes the date of answers anew each second."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), DATE_INTERVAL_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        yield

    def _told_to_end(self) -> None:
        if not self._limits.ending:
            self._close_the_door()
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._stop)

    def _close_the_door(self) -> None:
        """Clients that connect from now on hear nothing, and are refused after the end. Each answer is its connection's last."""
        self._limits.ending = True
        self._drain()
        for connection in self.server_state.connections:
            cast("HttpConnection", connection).end_soon()
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in NO_NEW_CONNECTION))
        program = struct.pack("HL", len(NO_NEW_CONNECTION), ctypes.addressof(code))
        with suppress(OSError):  # a kernel without filters: then whoever comes last may be cut off
            self._door.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def _stop(self) -> None:
        """Whatever happens, the process is gone soon: a command that hangs in a thread would hold it up."""
        self.should_exit = True
        self._stopped.set()
        exit_within(STOP_TIMEOUT_SECONDS + APPLICATION_STOP_TIMEOUT_SECONDS)
