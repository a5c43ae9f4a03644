"""One live connection over server-sent events (text/event-stream): the messages of the WebSocket as the body of one long response.

The id of a message is its position in the log, so that a client which sends it as `Last-Event-ID` resumes without loss or repetition.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

import msgspec
import structlog
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api.live.feed import LiveFeed
from api.live.messages import (
    INTERNAL_ERROR,
    RESTARTING,
    TOO_SLOW,
    Authenticated,
    CaughtUp,
    ClientDisconnected,
    CloseConnection,
    Closed,
    EventMessage,
    ServerMessage,
)
from application.cancellation import REPEAT_INTERVAL_SECONDS, run_until_first_ends

if TYPE_CHECKING:
    from api.live.hub import LiveHub

log = structlog.get_logger()

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"}
"""Proxies must neither keep nor collect nor compress the stream."""
RECONNECT_MILLISECONDS: Final = 1000
FIRST_LINE: Final = f"retry: {RECONNECT_MILLISECONDS}\n\n"
HEARTBEAT: Final = ": ping\n\n"


class LiveEvents:
    """What a client asks for: the events after position `after` (None: from now on), of `datasets` if given, with the rights of `token`.

    `scope` is that of the request.
    """

    def __init__(self, hub: "LiveHub", token: str, scope: Any, after: int | None, datasets: frozenset[UUID] | None) -> None:
        self.hub, self.token, self.scope, self.after, self.datasets = hub, token, scope, after, datasets


class EventStream(ASGIResponse):
    """The response with one stream. It raises before its first byte if the client may not have it, and ends with a Closed message."""

    _should_set_content_length = False

    def __init__(self, wanted: LiveEvents) -> None:
        super().__init__(headers=HEADERS, media_type=MEDIA_TYPE)
        self._wanted, self._hub, self._limits = wanted, wanted.hub, wanted.hub.options.live
        self._send_lock = asyncio.Lock()
        self._feed = LiveFeed(self._hub, self._send, wanted.scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the signature of ASGI
        """Raises NotAuthenticated, Forbidden, TooMany, UpgradeNeeded, Unavailable before the response has started."""
        started = self._hub.clock()
        self._asgi_send = send
        authenticated = await self._feed.sign_in(self._wanted.token)
        with self._hub.account_slot(self._feed.actor.id), self._hub.admission:
            await self.start_response(send)
            ended = await self._run(authenticated, receive)
        if ended is not None:
            await self._finish(ended, receive)
        self._hub.log_end(self._feed, ended, started)

    async def _run(self, authenticated: Authenticated, receive: Receive) -> CloseConnection | None:
        """Send events until the stream ends. Returns why, or None if the client disconnected."""
        try:
            await self._write(FIRST_LINE)
            await self._send(authenticated)
            await self._feed.subscribe(self._wanted.after, self._wanted.datasets)
            await run_until_first_ends(
                _disconnect(receive),
                self._feed.send_updates(),
                self._feed.watch_notifications(),
                self._feed.recheck_session(),
                self._keep_alive(),
                self._end_with_server(),
                grace_seconds=REPEAT_INTERVAL_SECONDS,
            )
        except ClientDisconnected:
            return None
        except CloseConnection as ended:
            return ended
        except Exception:
            log.exception("unexpected error", user=str(self._feed.account_id), events=self._feed.sent_events)
            return CloseConnection(INTERNAL_ERROR, "internal error")
        return None

    async def _keep_alive(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._limits.ping_interval_seconds)
            await self._write(HEARTBEAT)

    async def _end_with_server(self) -> NoReturn:
        await self._hub.stopping.wait()
        raise CloseConnection(RESTARTING, "the server stops; connect again")

    async def _send(self, message: ServerMessage) -> None:
        await self._write(encoded(message))

    async def _write(self, text: str) -> None:
        """Raises CloseConnection if the client does not read in time."""
        try:
            async with asyncio.timeout(self._limits.send_timeout_seconds), self._send_lock:
                with self._hub.admission.counted():
                    await self._send_body(text, is_last=False)
        except TimeoutError:
            raise CloseConnection(TOO_SLOW, "messages are not read in time") from None

    async def _send_body(self, text: str, *, is_last: bool) -> None:
        await self._asgi_send({"type": "http.response.body", "body": text.encode(), "more_body": not is_last})

    async def _finish(self, ended: CloseConnection, receive: Receive) -> None:
        """Send the reason, and end the response. The server disconnects a client that does not read it."""
        last = self._send_body(encoded(Closed(code=ended.code, reason=ended.reason)), is_last=True)
        with suppress(ClientDisconnected):
            await run_until_first_ends(_disconnect(receive), last, grace_seconds=REPEAT_INTERVAL_SECONDS)


class LiveStream(Stream):
    """A response of Litestar that becomes an EventStream."""

    def __init__(self, wanted: LiveEvents) -> None:
        super().__init__(iter(()), media_type=MEDIA_TYPE)
        self._wanted = wanted

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        return EventStream(self._wanted)


def encoded(message: ServerMessage) -> str:
    """The message as text of an event stream. JSON has no line breaks, so that its data is one line."""
    data = f"data: {msgspec.json.encode(message).decode()}\n\n"
    return f"id: {message.position}\n{data}" if isinstance(message, EventMessage | CaughtUp) else data


async def _disconnect(receive: Receive) -> NoReturn:
    while True:
        if (await receive())["type"] == "http.disconnect":
            raise ClientDisconnected
