"""One live connection over a WebSocket: authenticates the client, and sends it the events that its account may see.

Each subscription reads the read model `activity` after its own position, with the access of its account. Notifications only trigger a
read. So resuming is the normal case, nothing is queued, and a connection takes no more memory than one page. The first message of a
client is {"type":"auth","token":...}. Then it sends {"type":"subscribe","after":POSITION,"datasets":[...]}, as often as it wants.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketException

from api.clock import utc_now
from api.live.messages import (
    FORBIDDEN,
    INTERNAL_ERROR,
    TOO_MANY,
    TOO_SLOW,
    UNAUTHENTICATED,
    Auth,
    Authenticated,
    CaughtUp,
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
    event_message,
)
from api.middleware.authentication import mark_recognised, require_scope
from application.cancellation import REPEAT_INTERVAL_SECONDS, run_until_first_ends
from application.services import Claims
from domain.access import Actor, Scope
from domain.errors import Forbidden, NotAuthenticated, Unavailable, UpgradeNeeded
from projections import activity, classifications
from projections.engine import checkpoints

if TYPE_CHECKING:
    from api.live.hub import LiveHub

log = structlog.get_logger()

OUTDATED = "this account needs a newer release of the server; try again after its upgrade"


class EventPage(NamedTuple):
    """The next events to send, with the progress of their jobs."""

    feed: activity.ActivityPage
    progress: Mapping[UUID, classifications.Progress]

    @property
    def visited(self) -> int:
        return self.feed.visited + len(self.progress)


class Subscription:
    """The events that a client subscribed to. `position` is that of the last event sent."""

    def __init__(self, position: int, datasets: frozenset[UUID] | None) -> None:
        self.position, self.datasets = position, datasets
        self.is_new = True


class LiveConnection:
    """One WebSocket. `user` and `sent_events` are for its log line."""

    def __init__(self, socket: WebSocket[Any, Any, Any], hub: "LiveHub") -> None:
        self._socket, self._hub = socket, hub
        self._services, self._identities, self._limits, self._clock = hub.services, hub.identities, hub.options.live, hub.clock
        self._claims: Claims | None = None
        self._actor: Actor | None = None
        self._subscription: Subscription | None = None
        self._wake_up, self._send_lock = asyncio.Event(), asyncio.Lock()
        self._received_at: deque[float] = deque(maxlen=self._limits.max_messages_per_second)
        self.user, self.sent_events = "", 0

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
            log.exception("unexpected error", user=self.user, events=self.sent_events)
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
        with self._hub.account_slot(self._authenticated_actor.id):
            await run_until_first_ends(
                self._handle_messages(),
                self._send_updates(),
                self._watch_notifications(),
                self._recheck_session(),
                self._keep_alive(),
                grace_seconds=REPEAT_INTERVAL_SECONDS,
            )

    @property
    def _authenticated_actor(self) -> Actor:
        assert self._actor is not None
        return self._actor

    # ---- authentication ----
    async def _authenticate(self, token: str) -> None:
        try:
            claims = self._services.access_tokens.verify(token, at=utc_now())
            identity = await asyncio.to_thread(self._identities.authenticate, claims)
            if identity.actor.kind == "service":
                require_scope(identity.actor, Scope.EVENTS_READ)
        except NotAuthenticated as error:
            raise CloseConnection(UNAUTHENTICATED, error.detail) from None
        except Forbidden as error:
            raise CloseConnection(FORBIDDEN, error.detail) from None
        except UpgradeNeeded:
            raise CloseConnection(INTERNAL_ERROR, OUTDATED) from None
        except Unavailable:
            raise CloseConnection(INTERNAL_ERROR, "the database is unavailable; try again") from None
        if self._actor is not None and self._actor.id != identity.actor.id:
            raise CloseConnection(UNAUTHENTICATED, "the token belongs to another account")
        self._claims, self._actor = claims, identity.actor
        self.user = str(identity.actor.id)
        mark_recognised(self._socket.scope)
        await self._send(Authenticated(user=identity.actor.id, expires_at=claims.expires_at))

    async def _recheck_session(self) -> None:
        """Close the connection when its token expires, its session ends, or its account is disabled."""
        while True:
            await asyncio.sleep(self._limits.session_check_interval_seconds)
            claims = self._claims
            assert claims is not None
            if utc_now() >= claims.expires_at:
                raise CloseConnection(UNAUTHENTICATED, "the token has expired")
            try:
                identity = await asyncio.to_thread(self._identities.authenticate, claims)
            except NotAuthenticated as error:
                raise CloseConnection(UNAUTHENTICATED, error.detail) from None
            except UpgradeNeeded:  # this release does not know an event of the account, which may be closed
                raise CloseConnection(INTERNAL_ERROR, OUTDATED) from None
            except Unavailable:
                continue  # no events can be read either
            self._actor = identity.actor

    # ---- messages of the client ----
    async def _handle_messages(self) -> None:
        while True:
            match await self._receive(maximum=self._hub.options.websocket_max_bytes):
                case Auth(token=token):
                    await self._authenticate(token)
                case Subscribe() as message:
                    await self._subscribe(message)
                case Ping():
                    await self._send(ServerPong())
                case Pong():
                    pass

    async def _subscribe(self, message: Subscribe) -> None:
        after = await self._current_position() if message.after is None else message.after
        self._subscription = Subscription(after, message.datasets)
        self._wake_up.set()

    async def _current_position(self) -> int:
        """The position of the read models, or an older one if it cannot be queried now. Then earlier events are sent too."""
        if self._hub.budgets.try_query(self._authenticated_actor.id):
            with suppress(Unavailable):
                return await checkpoints.position(self._services.live_reads)
        return self._services.read_position.position

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

    # ---- events ----
    async def _watch_notifications(self) -> None:
        async with self._services.notifications.subscribe() as notifications:
            while True:
                was_notified = await notifications.wait(self._limits.poll_interval_seconds)
                subscription = self._subscription
                if was_notified or (subscription is not None and self._services.read_position.position > subscription.position):
                    self._wake_up.set()

    async def _send_updates(self) -> None:
        while True:
            await self._wake_up.wait()
            self._wake_up.clear()
            if (subscription := self._subscription) is not None:
                try:
                    await self._catch_up(subscription)
                except Unavailable:
                    await asyncio.sleep(self._limits.poll_interval_seconds)
                    self._wake_up.set()

    async def _catch_up(self, subscription: Subscription) -> None:
        """Send all events up to now, page by page. Stop at once when another subscription replaces this one."""
        must_report, has_more = subscription.is_new, True
        while has_more and subscription is self._subscription:
            page = await self._hub.budgets.read(self._authenticated_actor.id, partial(self._next_page, subscription))
            if subscription is not self._subscription:
                return
            await self._send_page(page)
            subscription.position, has_more = page.feed.position, page.feed.more
            must_report = must_report or bool(page.feed.items)
        if must_report and subscription is self._subscription:
            subscription.is_new = False
            await self._send(CaughtUp(position=subscription.position))

    async def _next_page(self, subscription: Subscription) -> EventPage:
        """The next page, with the present access and position."""
        reads, actor = self._services.live_reads, self._authenticated_actor
        feed = await activity.after(
            reads,
            actor,
            position=subscription.position,
            limit=self._limits.events_per_page,
            datasets=subscription.datasets,
            head=self._services.read_position.position,
        )
        jobs = {job for item in feed.items if (job := activity.job_of(item)) is not None}
        return EventPage(feed, await classifications.progress(reads, actor, jobs) if jobs else {})

    async def _send_page(self, page: EventPage) -> None:
        for item in page.feed.items:
            job = activity.job_of(item)
            await self._send(event_message(item, page.progress.get(job) if job else None))
        self.sent_events += len(page.feed.items)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_interval_seconds)
            if self._clock() - self._received_at[-1] > self._limits.max_silence_seconds:
                raise CloseConnection(TOO_SLOW, "nothing was received for a minute")
            await self._send(ServerPing(position=self._subscription.position if self._subscription else None))

    async def _send(self, message: ServerMessage) -> None:
        """Send a message. Raises CloseConnection if the client does not read it in time."""
        try:
            async with asyncio.timeout(self._limits.send_timeout_seconds), self._send_lock:
                await self._socket.send_data(msgspec.json.encode(message).decode())
        except TimeoutError:
            raise CloseConnection(TOO_SLOW, "messages are not read in time") from None
        except (RuntimeError, WebSocketException):
            raise ClientDisconnected from None
