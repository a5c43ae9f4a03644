"""Connections of the HTTP server: limits of time, size and number that hold from the first byte, before the application hears of it."""

import asyncio
import fcntl
import resource
import socket
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from application.connection_slots import RECOGNISED, ConnectionSlot, ConnectionSlots, network_of
from infrastructure.configuration.settings import Settings, networks
from infrastructure.http.joined_writes import JoinedWrites

MAX_HEAD: Final = 64 * 1024  # bytes of a request's line and headers; the application asks for fewer
MAX_HEADERS: Final = 128  # in number: each takes far more memory than it has bytes
MAX_PIPELINED: Final = 8  # requests sent before the answer to an earlier one
MAX_UNSENT: Final = 1024**2  # bytes that wait for a WebSocket's client to take them
SEND_TIMEOUT_SECONDS: Final = 30.0  # seconds in which a client takes at least some of what waits for it
MAX_MESSAGES: Final = 64  # of a WebSocket that wait to be read
MAX_FRAMES: Final = 128  # of a WebSocket in a second, of whatever kind: pings and fragments are no messages
PARSE_BYTES: Final = 4096  # bytes of a WebSocket that are parsed at once
CLOSE_TIMEOUT_SECONDS: Final = 2.0  # seconds until a WebSocket's client has agreed to its end
MAX_DESCRIPTORS: Final = 65_536
RESERVED_DESCRIPTORS: Final = 256  # that the process needs beside connections


def _refusal(status: int, code: str, title: str, detail: str) -> bytes:
    """A problem (RFC 9457) as the application would write it, for what it never sees."""
    body = msgspec.json.encode({"type": f"urn:bioscope:problem:{code}", "title": title, "status": status, "detail": detail, "code": code})
    headers = b"server: bioscope\r\ncontent-type: application/problem+json\r\nx-content-type-options: nosniff\r\ncache-control: no-store"
    return b"%s%s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (STATUS_LINE[status], headers, len(body), body)


REFUSALS: Final = {
    400: _refusal(400, "malformed", "Malformed request", "This is no HTTP/1.1 request"),
    414: _refusal(414, "address_too_long", "The address is too long", "The address is too long"),
    431: _refusal(431, "headers_too_large", "The headers are too large", f"There are more than {MAX_HEADERS} headers, or {MAX_HEAD} bytes"),
}


class ConnectionLimits:
    """What all connections of a server share: who has room, and whether the server is ending.

    A client is anonymous until the application has recognised it. Anonymous clients have room of their own, so they take none of users'.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ending = False
        self._proxies: Sequence[IPv4Network | IPv6Network] = networks(settings)
        room = max(64, _descriptors() - RESERVED_DESCRIPTORS)
        anonymous = min(settings.anonymous_connections, room // 3)
        self.anonymous = ConnectionSlots(total=anonymous, each=settings.connections_per_address)
        self.users = ConnectionSlots(total=min(settings.connections, room - anonymous), each=settings.connections_per_address)
        self._proxied = ConnectionSlots(total=room, each=0)

    def enter(self, address: str, evict: Callable[[], None]) -> "HandshakeSlots":
        if self._proxies and self._is_proxy(address):
            return HandshakeSlots(self._proxied.acquire(address, evict), None)
        return HandshakeSlots(self.anonymous.acquire(network_of(address), evict), self.users)

    def _is_proxy(self, address: str) -> bool:
        try:
            return any(ip_address(address) in network for network in self._proxies)
        except ValueError:
            return False


class HandshakeSlots:
    """The place of one connection: among anonymous clients until it is recognised."""

    def __init__(self, place: ConnectionSlot, users: ConnectionSlots | None) -> None:
        self.place, self._users = place, users

    def recognised(self) -> None:
        if self._users is not None and not self.place.is_lost:
            self.place.release()
            self.place = self._users.acquire(self.place.address, self.place.evict)
            self._users = None


class HttpConnection(HttpToolsProtocol):
    """One connection that speaks HTTP/1.1.

    Closed when no whole head has come within `request_head_seconds` of the start or of the last answer, when its head or line of waiting
    requests is too long, when the client takes nothing of an answer, and when others need its place.
    """

    def __init__(self, limits: ConnectionLimits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._awaits_head = True  # no request is worked on
        self._in_head, self._head_size, self._trailers = False, 0, 0
        self._unsent = 0  # bytes when it was last looked whether the client takes them
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", JoinedWrites(transport, self.loop)))
        self._transport = transport
        self._room = self._limits.enter(self.client[0] if self.client else "", self._evicted)
        self._extensions = {RECOGNISED: self._room.recognised}
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.place.release()
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD or len(self.headers) > MAX_HEADERS:
                self._refuse(414 if len(self.url) > MAX_HEAD // 2 else 431)

    # ---- of the parser ----
    def on_header(self, name: bytes, value: bytes) -> None:
        """Nobody reads what follows a body in chunks."""
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailers += 1
        if self._trailers > MAX_HEADERS:
            raise ValueError("more trailers than headers are taken")  # the parser stops

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        self._in_head, self._head_size, self._trailers = True, 0, 0

    def on_headers_complete(self) -> None:
        self._in_head = self._awaits_head = False
        self._unset_keepalive_if_required()
        self._room.place.touch()
        if len(self.headers) > MAX_HEADERS:
            self._refuse(431)
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        if self._limits.ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._awaits_head = not self.pipeline
        self._room.place.touch()

    def _unset_keepalive_if_required(self) -> None:
        """A first byte does not end the wait for a head: only all of it does."""
        if not self._awaits_head:
            super()._unset_keepalive_if_required()

    def _unsupported_upgrade_warning(self) -> None:
        """HTTP/2 or something else is offered: the answer is HTTP/1.1 and the last, since the parser goes no further."""
        if not self.transport.is_closing():
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the library's sentence
        self._refuse(400)

    def handle_websocket_upgrade(self) -> None:
        """Not behind an answer under way, which would wait for this connection for ever, and not where the head cannot be read again."""
        if self.transport.is_closing():
            return
        if (self.cycle is not None and not self.cycle.response_complete) or self._transport.get_write_buffer_size():
            self._transport.abort()
            return
        self.ws_protocol_class = self._socket  # type: ignore[assignment]
        self.transport = self._transport
        super().handle_websocket_upgrade()
        if not self._upgraded.handshake_initiated:
            self._transport.abort()

    # ---- of the transport ----
    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._watch_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    # ---- the end ----
    def end_soon(self) -> None:
        """The answer under way is the last one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _refuse(self, status: int) -> None:
        """Say why, and close; where what is wrong follows a whole request, after its answer."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(REFUSALS[status])
            self.transport.close()
        elif self.cycle.more_body:
            self.transport.close()
        else:
            self.cycle.keep_alive = False
            self.flow.pause_reading()

    def _evicted(self) -> None:
        _drop(self._transport)

    def _socket(self, **given: Any) -> "WebSocketConnection":
        self._stop_timers()
        self._upgraded = WebSocketConnection(self._limits, self._room, **given)
        return self._upgraded

    def _stop_timers(self) -> None:
        self._awaits_head = False
        self._unset_keepalive_if_required()
        self._stop_watching()

    def _stop_watching(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _watch_taking(self) -> None:
        self._unsent = _unsent(self._transport)
        self._taking = self.loop.call_later(SEND_TIMEOUT_SECONDS, self._look_whether_taken)

    def _look_whether_taken(self) -> None:
        self._taking = None
        if _unsent(self._transport) >= self._unsent:
            _drop(self._transport)
        else:
            self._watch_taking()


class WebSocketConnection(WebSocketsSansIOProtocol):
    """One WebSocket. Messages are measured by their headers, before they are read: those of an anonymous client must be small."""

    def __init__(self, limits: ConnectionLimits, room: HandshakeSlots, **given: Any) -> None:
        super().__init__(**given)
        self._settings, self._room = limits.settings, room
        self._end: asyncio.TimerHandle | None = None
        self._frames, self._frames_since = 0, 0.0
        self.close_timeout = CLOSE_TIMEOUT_SECONDS
        self.conn.max_message_size = self._settings.anonymous_body_max_bytes

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.place.release()
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._room.place.touch()
        for start in range(0, len(data), PARSE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + PARSE_BYTES])
            if self.queue.qsize() > MAX_MESSAGES or self.transport.get_write_buffer_size() > MAX_UNSENT:
                self.transport.abort()

    def handle_events(self) -> None:
        if self.loop.time() - self._frames_since > 1.0:
            self._frames, self._frames_since = 0, self.loop.time()
        self._frames += len(self.conn.events)
        if self._frames > MAX_FRAMES:
            self.transport.abort()
        else:
            super().handle_events()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.scope["extensions"][RECOGNISED] = self._recognised  # type: ignore[assignment]

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """A client that does not take what was sent cannot hold the connection when the application is done with it."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._end = self.loop.call_later(CLOSE_TIMEOUT_SECONDS, self.transport.abort)

    def end_soon(self) -> None:
        """It goes on until the server ends."""

    def _recognised(self) -> None:
        self._room.recognised()
        self.conn.max_message_size = self._settings.websocket_max_bytes


def _drop(transport: asyncio.Transport) -> None:
    """Close at once; the kernel keeps nothing of it either."""
    with suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that the client has not taken yet, those in the kernel included: it holds megabytes."""
    waiting = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(waiting, sys.byteorder)


def _descriptors() -> int:
    """As many as this process may open: as many as it is allowed to ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
