"""The HTTP server. It runs in the calling process.

It stops in two steps, so that no request is lost. First the kernel drops new connections while accepted ones are answered; then the server
stops. Without the first step, a connection that was accepted but not yet read would be closed without an answer.
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
from typing import Final, NamedTuple, cast

from uvicorn import Config, Server

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.installation import bound_socket
from infrastructure.http.connections import HttpConnection
from infrastructure.http.limits import SEND_TIMEOUT_SECONDS, ConnectionLimits
from infrastructure.process_lifecycle import exit_within

BACKLOG: Final = 4096  # connections that wait to be accepted; if it is full, clients retry after a second
DATE_INTERVAL_SECONDS: Final = 1.0

ACCEPTS_PER_TURN: Final = 16  # connections per event loop iteration; uvloop accepts one per socket
SWITCH_INTERVAL_SECONDS: Final = 0.0005  # instead of 5 ms, so that commands in threads get the interpreter lock sooner

MMAP_THRESHOLD_BYTES: Final = 1024**2
M_MMAP_THRESHOLD: Final = -3  # malloc.h

SO_ATTACH_FILTER: Final = 26
DROP_NEW_CONNECTIONS: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A packet filter (Linux filter.h: code, two jumps, value) on a TCP header: load the flags, drop if SYN is set, else keep."""


class ServerTimeouts(NamedTuple):
    """`send_seconds`: a client must read something of an answer within this time. The others limit the steps of the shutdown."""

    send_seconds: float = SEND_TIMEOUT_SECONDS
    drain_seconds: float = 0.3
    stop_seconds: int = 2
    application_stop_seconds: float = 2.0


DEFAULT_TIMEOUTS: Final = ServerTimeouts()


def serve(target: str, settings: Settings, *, timeouts: ServerTimeouts = DEFAULT_TIMEOUTS) -> None:
    """Serve the application that the function `target` (MODULE:NAME) creates, until SIGTERM or SIGINT. Blocks. Raises CannotStart.

    One process is used: commands wait in threads, and the group commit collects them.
    """
    module, _, name = target.partition(":")
    app = getattr(import_module(module), name)()
    limits = ConnectionLimits(settings, send_timeout_seconds=timeouts.send_seconds)
    _free_large_blocks_at_once()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    config = Config(
        app,
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", partial(HttpConnection, limits)),
        ws="websockets-sansio",
        ws_max_size=settings.websocket_max_bytes,
        ws_ping_interval=None,  # the application sends its own pings
        ws_per_message_deflate=False,
        interface="asgi3",
        lifespan="on",
        log_config=None,
        log_level="error",  # errors of clients are not logged
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=cast("int", settings.request_head_seconds),
        timeout_graceful_shutdown=timeouts.stop_seconds,
    )
    with bound_socket(settings) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeouts.send_seconds * 1000))  # inherited by connections
        listeners = [listener, *(listener.dup() for _ in range(1, ACCEPTS_PER_TURN))]
        GracefulServer(config, limits, listener, timeouts, on_drain=getattr(app, "drain", lambda: None)).run(sockets=listeners)


def _free_large_blocks_at_once() -> None:
    """Return the memory of large blocks (password hashes, uploads) to the system when they are freed. glibc would keep it per thread."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


class GracefulServer(Server):
    """A server that drains its connections before it stops. `on_drain` is called first, and answers waiting requests."""

    def __init__(
        self,
        config: Config,
        limits: ConnectionLimits,
        listener: socket.socket,
        timeouts: ServerTimeouts,
        *,
        on_drain: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._limits, self._listener, self._timeouts, self._on_drain = limits, listener, timeouts, on_drain
        self._stop_event = asyncio.Event()

    async def main_loop(self) -> None:
        """As the base class, but with an event instead of ten polls per second. The Date header is updated every second."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_event.wait(), DATE_INTERVAL_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        yield

    def _on_signal(self) -> None:
        if not self._limits.ending:
            self._drain_connections()
            asyncio.get_running_loop().call_later(self._timeouts.drain_seconds, self._stop)

    def _drain_connections(self) -> None:
        """Drop new connections, and close each open one after its next answer."""
        self._limits.ending = True
        self._on_drain()
        for connection in self.server_state.connections:
            cast("HttpConnection", connection).end_soon()
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in DROP_NEW_CONNECTIONS))
        program = struct.pack("HL", len(DROP_NEW_CONNECTIONS), ctypes.addressof(code))
        with suppress(OSError):  # a kernel without filters: the last connections may get no answer
            self._listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def _stop(self) -> None:
        """Stop, and exit within the time limit even if a command hangs in a thread."""
        self.should_exit = True
        self._stop_event.set()
        exit_within(self._timeouts.stop_seconds + self._timeouts.application_stop_seconds)
