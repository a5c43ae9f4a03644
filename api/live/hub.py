"""The WebSocket route, and the limits and row budgets that all live connections of a process share."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import structlog
from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketException

from api.live.connection import LiveConnection
from api.live.messages import FORBIDDEN, TOO_MANY, CloseConnection
from api.live.row_budgets import RowBudgets
from api.middleware.allowed_hosts import LOOPBACK, bracketed
from api.middleware.authentication import OPEN
from api.middleware.body_timeout import expire
from api.middleware.client_address import peer_of
from api.options import WebOptions
from application.authentication import IdentityCache
from application.limits.connection_slots import ConnectionSlot, ConnectionSlots, network_of
from application.services import Services

log = structlog.get_logger()

CLOSE_TIMEOUT_SECONDS: Final = 1.0


class LiveHub:
    """All live connections of this process. Connections that have not authenticated yet have limits of their own."""

    def __init__(
        self, services: Services, options: WebOptions, identities: IdentityCache, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.services, self.options, self.identities, self.clock = services, options, identities, clock
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
        log.info(
            "live connection closed",
            user=connection.user,
            events=connection.sent_events,
            code=ended.code if ended else None,
            seconds=round(self.clock() - started, 1),
        )

    def _rejection(self, socket: WebSocket[Any, Any, Any]) -> CloseConnection | None:
        origin = socket.headers.get("origin")
        if origin is not None and origin not in self._origins:
            return CloseConnection(FORBIDDEN, "this origin is not allowed")
        return None

    @contextmanager
    def anonymous_slot(self, socket: WebSocket[Any, Any, Any], timeout: asyncio.Timeout) -> Iterator[ConnectionSlot]:
        """A slot until the client has authenticated. `timeout` ends at once if a newer connection takes the slot."""
        address = network_of(peer_of(socket.scope, self.options.trusted_proxies))
        slot = self._anonymous.acquire(address, lambda: expire(timeout))
        try:
            yield slot
        finally:
            slot.release()

    @contextmanager
    def account_slot(self, account_id: UUID) -> Iterator[None]:
        """Raises CloseConnection if the account or the process is at its limit of connections."""
        if self._per_account[account_id] >= self.options.websockets_per_account:
            raise CloseConnection(TOO_MANY, f"an account may have {self.options.websockets_per_account} sockets at the same time")
        if self._per_account.total() >= self.options.websockets:
            raise CloseConnection(TOO_MANY, "too many sockets are open")
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


def allowed_origins(options: WebOptions) -> frozenset[str]:
    """The origins that may open a socket: our own, with each loopback name if it is local, and those allowed by CORS."""
    own = urlsplit(options.base_url)
    port = f":{own.port}" if own.port else ""
    hosts = LOOPBACK if bracketed(own.hostname or "") in LOOPBACK else (own.netloc.removesuffix(port),)
    return frozenset({*options.cors_origins, *(f"{own.scheme}://{host}{port}" for host in hosts)})
