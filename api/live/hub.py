"""The routes of live events, and the limits and row budgets that all live connections of a process share."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import structlog
from litestar import WebSocket, get, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketException
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream

from api.live.connection import LiveConnection
from api.live.event_stream import LiveEvents, LiveStream
from api.live.feed import LiveFeed
from api.live.messages import FORBIDDEN, MAX_DATASETS, MAX_POSITION, CloseConnection
from api.live.row_budgets import RowBudgets
from api.middleware.access_recording import AccessRecorder
from api.middleware.admission import Admission
from api.middleware.allowed_hosts import LOOPBACK, bracketed
from api.middleware.authentication import OPEN, bearer, for_services
from api.middleware.body_timeout import expire
from api.middleware.client_address import peer_of
from api.options import WebOptions
from api.request import RequestContext
from application.authentication import IdentityCache
from application.limits.connection_slots import ConnectionSlot, ConnectionSlots, network_of
from application.services import Services
from domain.access import Scope
from domain.errors import TooMany

log = structlog.get_logger()

CLOSE_TIMEOUT_SECONDS: Final = 1.0
RETRY_AFTER_SECONDS: Final = 5

After = Annotated[int | None, QueryParameter(ge=0, le=MAX_POSITION)]
Datasets = Annotated[list[UUID] | None, QueryParameter(max_items=MAX_DATASETS)]
LastEventId = Annotated[int | None, HeaderParameter(name="Last-Event-ID", ge=0, le=MAX_POSITION)]


class LiveHub:
    """All live connections of this process. Connections that have not authenticated yet have limits of their own."""

    def __init__(
        self,
        services: Services,
        options: WebOptions,
        identities: IdentityCache,
        admission: Admission,
        accesses: AccessRecorder,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.services, self.options, self.identities, self.admission, self.clock = services, options, identities, admission, clock
        self.accesses = accesses
        self.stopping = asyncio.Event()
        self.budgets = RowBudgets(options.live_rows_per_second, clock=clock)
        self._per_account: Counter[UUID] = Counter()
        self._anonymous = ConnectionSlots(total=options.anonymous_websockets, each=options.anonymous_websockets_per_address)
        self._origins = allowed_origins(options)

    async def serve(self, socket: WebSocket[Any, Any, Any]) -> None:
        """Serve a socket until it closes. A rejection follows the handshake, because browsers do not show an earlier reason."""
        await socket.accept()
        connection, started = LiveConnection(socket, self), self.clock()
        ended = self._rejection(socket) or await connection.run()
        if ended is not None:
            with suppress(TimeoutError, RuntimeError, WebSocketException):
                await asyncio.wait_for(socket.close(ended.code, ended.reason), CLOSE_TIMEOUT_SECONDS)
        self.log_end(connection.feed, ended, started)

    def log_end(self, feed: LiveFeed, ended: CloseConnection | None, started: float) -> None:
        """Log the end of a connection that began at `started`. `ended` is None if the client disconnected."""
        log.info(
            "live connection closed",
            user=str(feed.account_id or ""),
            events=feed.sent_events,
            code=ended.code if ended else None,
            seconds=round(self.clock() - started, 1),
        )

    def _rejection(self, socket: WebSocket[Any, Any, Any]) -> CloseConnection | None:
        origin = socket.headers.get("origin")
        if origin is not None and origin not in self._origins:
            self.accesses.record(socket.scope, HTTPStatus.FORBIDDEN)
            return CloseConnection(FORBIDDEN, "this origin is not allowed")
        return None

    def network_of(self, scope: Any) -> str:
        """The network of the client, as limits count it."""
        return network_of(peer_of(scope, self.options.trusted_proxies))

    @contextmanager
    def anonymous_slot(self, socket: WebSocket[Any, Any, Any], timeout: asyncio.Timeout) -> Iterator[ConnectionSlot]:
        """A slot until the client has authenticated. `timeout` ends at once if a newer connection takes the slot."""
        slot = self._anonymous.acquire(self.network_of(socket.scope), lambda: expire(timeout))
        try:
            yield slot
        finally:
            slot.release()

    @contextmanager
    def account_slot(self, account_id: UUID) -> Iterator[None]:
        """Raises TooMany if the account or the process is at its limit of live connections."""
        most = self.options.websockets_per_account
        if self._per_account[account_id] >= most:
            raise TooMany(f"an account may have {most} live connections at the same time", retry_after=RETRY_AFTER_SECONDS)
        if self._per_account.total() >= self.options.websockets:
            raise TooMany("too many live connections are open", retry_after=RETRY_AFTER_SECONDS)
        self._per_account[account_id] += 1
        try:
            yield
        finally:
            self._per_account[account_id] -= 1
            self._per_account += Counter()  # removes zero counts


@websocket("/api/ws", opt=OPEN)
async def live(socket: WebSocket[Any, Any, Any], live_hub: NamedDependency[LiveHub]) -> None:
    """What happens, while it happens."""
    await live_hub.serve(socket)


@get("/api/live", opt=for_services(Scope.EVENTS_READ), tags=["events"], operation_id="eventsLive", summary="Follow live events")
async def stream(
    context: NamedDependency[RequestContext],
    live_hub: NamedDependency[LiveHub],
    after: After = None,
    datasets: Datasets = None,
    last_event_id: LastEventId = None,
) -> Stream:
    """The messages of the WebSocket `/api/ws` as server-sent events (`text/event-stream`), for clients without WebSockets.

    The response does not end by itself. The id of each message is its position: a client that connects again with `Last-Event-ID` gets
    what it missed, once. Lines that begin with a colon are sent every 20 seconds, so that the connection stays open. The stream ends with a
    `closed` message when the token expires or the session ends.
    """
    token = bearer(context.request.headers)
    assert token is not None
    wanted = frozenset(datasets) if datasets else None
    return LiveStream(LiveEvents(live_hub, token, context.request.scope, after if last_event_id is None else last_event_id, wanted))


def allowed_origins(options: WebOptions) -> frozenset[str]:
    """The origins that may open a socket: our own, with each loopback name if it is local, and those allowed by CORS."""
    own = urlsplit(options.base_url)
    port = f":{own.port}" if own.port else ""
    hosts = LOOPBACK if bracketed(own.hostname or "") in LOOPBACK else (own.netloc.removesuffix(port),)
    return frozenset({*options.cors_origins, *(f"{own.scheme}://{host}{port}" for host in hosts)})
