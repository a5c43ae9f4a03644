"""One live connection over a WebSocket: authenticates the client, and sends it the events that its account may see.

The first message of a client is {"type":"auth","token":...}. Then it sends {"type":"subscribe","after":POSITION,"datasets":[...]}, as
often as it wants.
"""

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketException

from api.access_notes import note_error
from api.live.feed import OUTDATED, LiveFeed
from api.live.messages import (
    FORBIDDEN,
    INTERNAL_ERROR,
    TOO_MANY,
    TOO_SLOW,
    UNAUTHENTICATED,
    Auth,
    ClientDisconnected,
    CloseConnection,
    IncomingMessage,
    Ping,
    Pong,
    ServerMessage,
    ServerPing,
    ServerPong,
    Subscribe,
    decode,
)
from api.middleware.authentication import mark_recognised
from application.cancellation import REPEAT_INTERVAL_SECONDS, run_until_first_ends
from domain.errors import DomainError, Forbidden, NotAuthenticated, TooMany, Unavailable, UpgradeNeeded

if TYPE_CHECKING:
    from api.live.hub import LiveHub

log = structlog.get_logger()


class LiveConnection:
    """One WebSocket."""

    def __init__(self, socket: WebSocket[Any, Any, Any], hub: "LiveHub") -> None:
        self._socket, self._hub = socket, hub
        self._limits, self._clock = hub.options.live, hub.clock
        self._send_lock = asyncio.Lock()
        self._received_at: deque[float] = deque(maxlen=self._limits.max_messages_per_second)
        self.feed = LiveFeed(hub, self._send, socket.scope)

    async def run(self) -> CloseConnection | None:
        """Serve the connection. Returns why it ended, or None if the client disconnected."""
        try:
            await self._handshake()
            await self._serve()
        except ClientDisconnected:
            return None
        except CloseConnection as ended:
            return ended
        except Exception:
            log.exception("unexpected error", user=str(self.feed.account_id), events=self.feed.sent_events)
            return CloseConnection(INTERNAL_ERROR, "internal error")
        return None

    async def _handshake(self) -> None:
        slot = None
        try:
            async with asyncio.timeout(self._limits.authenticate_timeout_seconds) as timeout:
                with self._hub.anonymous_slot(self._socket, timeout) as slot:
                    message = await self._receive(maximum=self._hub.options.anonymous_body_max_bytes)
        except TimeoutError:
            if slot is not None and slot.is_lost:
                raise CloseConnection(TOO_MANY, "too many unauthenticated sockets from this address") from None
            seconds = self._limits.authenticate_timeout_seconds
            raise CloseConnection(UNAUTHENTICATED, f"authenticate within {seconds:g} seconds") from None
        if not isinstance(message, Auth):
            raise CloseConnection(UNAUTHENTICATED, "authenticate first")
        await self._authenticate(message.token)

    async def _serve(self) -> None:
        try:
            with self._hub.account_slot(self.feed.actor.id):
                await run_until_first_ends(
                    self._handle_messages(),
                    self.feed.send_updates(),
                    self.feed.watch_notifications(),
                    self.feed.recheck_session(),
                    self._keep_alive(),
                    grace_seconds=REPEAT_INTERVAL_SECONDS,
                )
        except TooMany as error:
            raise CloseConnection(TOO_MANY, error.detail) from None

    async def _authenticate(self, token: str) -> None:
        try:
            authenticated = await self.feed.sign_in(token)
        except NotAuthenticated as error:
            self._record(HTTPStatus.UNAUTHORIZED, error)
            raise CloseConnection(UNAUTHENTICATED, error.detail) from None
        except Forbidden as error:
            self._record(HTTPStatus.FORBIDDEN, error)
            raise CloseConnection(FORBIDDEN, error.detail) from None
        except TooMany as error:
            raise CloseConnection(TOO_MANY, error.detail) from None
        except UpgradeNeeded:
            raise CloseConnection(INTERNAL_ERROR, OUTDATED) from None
        except Unavailable:
            raise CloseConnection(INTERNAL_ERROR, "the database is unavailable; try again") from None
        mark_recognised(self._socket.scope)
        self._record(HTTPStatus.OK)
        await self._send(authenticated)

    def _record(self, status: HTTPStatus, error: DomainError | None = None) -> None:
        """Record an access as that of a request which got this status."""
        if error is not None:
            note_error(self._socket.scope, error)
        self._hub.accesses.record(self._socket.scope, status)

    # ---- messages of the client ----
    async def _handle_messages(self) -> None:
        while True:
            match await self._receive(maximum=self._hub.options.websocket_max_bytes):
                case Auth(token=token):
                    await self._authenticate(token)
                case Subscribe() as message:
                    await self.feed.subscribe(message.after, message.datasets)
                case Ping():
                    await self._send(ServerPong())
                case Pong():
                    pass

    async def _receive(self, *, maximum: int) -> IncomingMessage:
        """The next message, of at most `maximum` bytes. Raises ClientDisconnected, CloseConnection."""
        message: Any = await self._socket.receive()
        if message["type"] != "websocket.receive":
            raise ClientDisconnected
        now, most = self._clock(), self._limits.max_messages_per_second
        if len(self._received_at) == most and now - self._received_at[0] < 1.0:
            raise CloseConnection(TOO_MANY, f"more than {most} messages per second")
        self._received_at.append(now)
        return decode(message, maximum=maximum)

    # ---- messages of the server ----
    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_interval_seconds)
            if self._clock() - self._received_at[-1] > self._limits.max_silence_seconds:
                raise CloseConnection(TOO_SLOW, "nothing was received for a minute")
            await self._send(ServerPing(position=self.feed.position))

    async def _send(self, message: ServerMessage) -> None:
        """Send a message. Raises CloseConnection if the client does not read it in time."""
        try:
            async with asyncio.timeout(self._limits.send_timeout_seconds), self._send_lock:
                await self._socket.send_data(msgspec.json.encode(message).decode())
        except TimeoutError:
            raise CloseConnection(TOO_SLOW, "messages are not read in time") from None
        except (RuntimeError, WebSocketException):
            raise ClientDisconnected from None
