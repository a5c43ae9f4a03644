"""WebSocket connections of the HTTP server."""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from application.limits.connection_slots import RECOGNISED
from infrastructure.http.limits import ConnectionLimits, HeldSlot

MAX_UNSENT: Final = 1024**2  # bytes that wait for the client to read them
MAX_MESSAGES: Final = 64  # that wait to be processed
MAX_FRAMES: Final = 128  # per second, including pings and fragments
PARSE_BYTES: Final = 4096  # parsed at once
CLOSE_TIMEOUT_SECONDS: Final = 2.0  # for the client to confirm the close


class WebSocketConnection(WebSocketsSansIOProtocol):
    """One WebSocket connection. The size of a message is checked by its header; anonymous clients have a lower limit."""

    def __init__(self, limits: ConnectionLimits, held_slot: HeldSlot, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._settings, self._held_slot = limits.settings, held_slot
        self._close_timer: asyncio.TimerHandle | None = None
        self._frames, self._frames_since = 0, 0.0
        self.close_timeout = CLOSE_TIMEOUT_SECONDS
        self.conn.max_message_size = self._settings.anonymous_body_max_bytes

    def connection_lost(self, exc: Exception | None) -> None:
        self._held_slot.slot.release()
        if self._close_timer is not None:
            self._close_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._held_slot.slot.touch()
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
            self.scope["extensions"][RECOGNISED] = self._on_recognised  # type: ignore[assignment]

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """Abort after a time limit if the client does not read, so that it cannot keep a finished connection."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._close_timer = self.loop.call_later(CLOSE_TIMEOUT_SECONDS, self.transport.abort)

    def end_soon(self) -> None:
        """Stay open until the server stops."""

    def _on_recognised(self) -> None:
        self._held_slot.recognised()
        self.conn.max_message_size = self._settings.websocket_max_bytes
