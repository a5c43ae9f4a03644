"""HTTP connections of the server. Limits of time, size and number apply from the first byte, before the application is called."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from application.limits.connection_slots import RECOGNISED
from infrastructure.http.joined_writes import JoinedWrites
from infrastructure.http.limits import ConnectionLimits
from infrastructure.http.websockets import WebSocketConnection

MAX_HEAD: Final = 64 * 1024  # bytes of request line and headers; the application has a lower limit
MAX_HEADERS: Final = 128  # number of headers, since each needs far more memory than its bytes
MAX_PIPELINED: Final = 8  # requests in progress on one connection


def _refusal(status: int, code: str, title: str, detail: str) -> bytes:
    """A problem (RFC 9457) as the application writes it, for requests that never reach it."""
    body = msgspec.json.encode({"type": f"urn:bioscope:problem:{code}", "title": title, "status": status, "detail": detail, "code": code})
    headers = b"server: bioscope\r\ncontent-type: application/problem+json\r\nx-content-type-options: nosniff\r\ncache-control: no-store"
    return b"%s%s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (STATUS_LINE[status], headers, len(body), body)


REFUSALS: Final = {
    400: _refusal(400, "malformed", "Malformed request", "This is not a valid HTTP/1.1 request"),
    414: _refusal(414, "address_too_long", "The address is too long", "The address is too long"),
    431: _refusal(431, "headers_too_large", "The headers are too large", f"There are more than {MAX_HEADERS} headers, or {MAX_HEAD} bytes"),
}


class HttpConnection(HttpToolsProtocol):
    """One HTTP/1.1 connection.

    It is closed if no complete head arrives within `request_head_seconds` of the start or the last answer. It is also closed if the head
    or the pipeline of requests is too long. A client that does not read an answer, or whose slot is needed by another, is disconnected.
    """

    def __init__(self, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._is_awaiting_head = True  # no request is in progress
        self._in_head, self._head_size, self._trailers = False, 0, 0
        self._unsent = 0  # bytes at the last check of progress
        self._progress_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", JoinedWrites(transport, self.loop)))
        self._transport = transport
        self._held_slot = self._limits.enter(self.client[0] if self.client else "", self._on_evicted)
        self._extensions = {RECOGNISED: self._held_slot.recognised}
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held_slot.slot.release()
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

    # ---- called by the parser ----
    def on_header(self, name: bytes, value: bytes) -> None:
        """Count and ignore the trailers of a chunked body."""
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailers += 1
        if self._trailers > MAX_HEADERS:
            raise ValueError("too many trailers")  # the parser stops

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        self._in_head, self._head_size, self._trailers = True, 0, 0

    def on_headers_complete(self) -> None:
        self._in_head = self._is_awaiting_head = False
        self._unset_keepalive_if_required()
        self._held_slot.slot.touch()
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
        self._is_awaiting_head = not self.pipeline
        self._held_slot.slot.touch()

    def _unset_keepalive_if_required(self) -> None:
        """Keep the timeout until the head is complete, not only until its first byte."""
        if not self._is_awaiting_head:
            super()._unset_keepalive_if_required()

    def _unsupported_upgrade_warning(self) -> None:
        """Answer an offered upgrade, such as HTTP/2, over HTTP/1.1 and close afterwards, since the parser does not continue."""
        if not self.transport.is_closing():
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the library's message
        self._refuse(400)

    def handle_websocket_upgrade(self) -> None:
        """Upgrade. Aborts if an answer is in progress, which would wait forever, or if the head cannot be parsed again."""
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

    # ---- called by the transport ----
    def pause_writing(self) -> None:
        super().pause_writing()
        if self._progress_timer is None:
            self._watch_progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_progress_timer()

    # ---- the end ----
    def end_soon(self) -> None:
        """Close the connection after the answer in progress."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _refuse(self, status: int) -> None:
        """Send a refusal and close; after a complete request, its answer comes first."""
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

    def _on_evicted(self) -> None:
        _drop(self._transport)

    def _socket(self, **arguments: Any) -> "WebSocketConnection":
        self._stop_timers()
        self._upgraded = WebSocketConnection(self._limits, self._held_slot, **arguments)
        return self._upgraded

    def _stop_timers(self) -> None:
        self._is_awaiting_head = False
        self._unset_keepalive_if_required()
        self._stop_progress_timer()

    def _stop_progress_timer(self) -> None:
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None

    def _watch_progress(self) -> None:
        self._unsent = _unsent(self._transport)
        self._progress_timer = self.loop.call_later(self._limits.send_timeout_seconds, self._check_progress)

    def _check_progress(self) -> None:
        self._progress_timer = None
        if _unsent(self._transport) >= self._unsent:
            _drop(self._transport)
        else:
            self._watch_progress()


def _drop(transport: asyncio.Transport) -> None:
    """Close at once, and discard the data that the kernel holds."""
    with suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that the client has not acknowledged yet, including those in the kernel, which can be megabytes."""
    waiting = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(waiting, sys.byteorder)
