"""The live WebSocket's route, and what all connections of this process share: their limits and row budgets."""

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
    """All live connections of this process. Those that have not authenticated yet are counted apart from those of accounts."""

    def __init__(
        self, services: Services, options: WebOptions, identities: IdentityCache, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.services, self.options, self.identities, self.clock = services, options, identities, clock
        self.budgets = RowBudgets(options.live_rows_per_second, clock=clock)
        self._per_account: Counter[UUID] = Counter()
        self._anonymous = ConnectionSlots(total=options.anonymous_websockets, each=options.anonymous_websockets_per_address)
        self._origins = allowed_origins(options)

    async def serve(self, socket: WebSocket[Any, Any, Any]) -> None:
        """Serve a socket until it closes. It is rejected after the handshake only: browsers do not show an earlier reason."""
        await socket.accept()
        connection, started = LiveConnection(socket, self), self.clock()
        ended = self._rejection(socket) or await connection.run()
        if ended is not None:
            with suppress(TimeoutError, RuntimeError, WebSocketException):
                await asyncio.wait_for(socket.close(ended.code, ended.reason), CLOSE_TIMEOUT_SECONDS)
        log.info(
            "watched",
            user=connection.user,
            events=connection.sent_events,
            code=ended.code if ended else None,
            seconds=round(self.clock() - started, 1),
        )

    def _rejection(self, socket: WebSocket[Any, Any, Any]) -> CloseConnection | None:
        origin = socket.headers.get("origin")
        if origin is not None and origin not in self._origins:
            return CloseConnection(FORBIDDEN, "this origin may not watch")
        return None

    @contextmanager
    def anonymous_slot(self, socket: WebSocket[Any, Any, Any], timeout: asyncio.Timeout) -> Iterator[ConnectionSlot]:
        """A slot until the client has authenticated. `timeout` ends at once where a newer connection of its address takes the slot."""
        address = network_of(peer_of(socket.scope, self.options.trusted_proxies))
        slot = self._anonymous.acquire(address, lambda: expire(timeout))
        try:
            yield slot
        finally:
            slot.release()

    @contextmanager
    def account_slot(self, account_id: UUID) -> Iterator[None]:
        """Raises CloseConnection when the account, or the process, has as many connections as it may."""
        if self._per_account[account_id] >= self.options.websockets_per_account:
            raise CloseConnection(TOO_MANY, f"one account may watch {self.options.websockets_per_account} times at once")
        if self._per_account.total() >= self.options.websockets:
            raise CloseConnection(TOO_MANY, "too many watch already")
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
    """The origins that may open a socket: our own, under each name of this machine where it is local, and those of CORS."""
    own = urlsplit(options.base_url)
    port = f":{own.port}" if own.port else ""
    hosts = LOOPBACK if bracketed(own.hostname or "") in LOOPBACK else (own.netloc.removesuffix(port),)
    return frozenset({*options.cors_origins, *(f"{own.scheme}://{host}{port}" for host in hosts)})
