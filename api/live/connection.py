"""Live status over a WebSocket: what happens, as far as one may see it, from any position on.

Each session reads the activity read model behind its own position, with its reader's access; news only say when to look. So a resume
is the ordinary case, nothing is queued, and a session takes no more memory than one page. What a client says first is who it is:
{"type":"auth","token":...}; then {"type":"subscribe","after":POSITION,"datasets":[...]}, as often as it likes.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import structlog
from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketException
from msgspec import Meta

from api.live.row_budgets import RowBudgets
from api.middleware.authentication import OPEN, recognised, require_scope
from api.middleware.body_timeout import expire
from api.middleware.client_address import peer_of
from api.request import current_context
from application.authentication import IdentityCache
from application.connection_slots import ConnectionSlot, ConnectionSlots, network_of
from application.services import Claims, Services, WebOptions
from domain.access import Actor, Scope
from domain.errors import Forbidden, NotAuthenticated, Unavailable, UpgradeNeeded
from projections import activity, classifications
from projections.engine import checkpoints

log = structlog.get_logger()

OUTDATED = "the server has to be upgraded before this account can go on"
MALFORMED, UNKNOWN, FORBIDDEN, TOO_SLOW, TOO_MANY, OUR_FAULT = 4400, 4401, 4403, 4408, 4429, 1011

MAX_MESSAGES_PER_SECOND: Final = 20  # in a second
MAX_DATASETS: Final = 100
AUTHENTICATE_TIMEOUT_SECONDS: Final = 5.0  # seconds
SEND_TIMEOUT_SECONDS: Final = 10.0  # seconds that a message may wait for the client to take it
POLL_INTERVAL_SECONDS: Final = 1.0  # seconds, should news have been lost
SESSION_CHECK_INTERVAL_SECONDS: Final = 5.0  # seconds between two looks at whether the session still lives
PING_INTERVAL_SECONDS: Final = 20.0  # seconds
MAX_SILENCE_SECONDS: Final = 65.0  # seconds without a word from the client
EVENTS_PER_PAGE: Final = 100  # events read at once
CANCEL_AGAIN_SECONDS: Final = 0.1  # seconds
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


# ---- what is said ------------------------------------------------------------------------------------------------------------------
class ClientMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """A message of the client."""


class Auth(ClientMessage, frozen=True, kw_only=True, tag="auth"):
    token: str


class Subscribe(ClientMessage, frozen=True, kw_only=True, tag="subscribe"):
    """From now on, or from what follows `after`; only of `datasets`, where they are named."""

    after: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    datasets: Annotated[frozenset[UUID], Meta(max_length=MAX_DATASETS)] | None = None


class Ping(ClientMessage, frozen=True, kw_only=True, tag="ping"):
    pass


class Pong(ClientMessage, frozen=True, kw_only=True, tag="pong"):
    pass


class ServerMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A message of ours."""


class Authenticated(ServerMessage, frozen=True, kw_only=True, tag="authenticated"):
    """Send a newer token before `expires_at`, and nothing is interrupted."""

    user: UUID
    expires_at: datetime


class Happened(ServerMessage, frozen=True, kw_only=True, tag="event"):
    """`subjects`: the ids of everything that the event touches. `job`: how far the job is by now, where it is about one."""

    position: int
    at: datetime
    event: str
    stream: UUID
    actor: UUID
    dataset: UUID | None
    subjects: tuple[UUID, ...]
    job: classifications.Progress | None = None


class CaughtUp(ServerMessage, frozen=True, kw_only=True, tag="caught_up"):
    """There is nothing more until something happens; resume after `position`."""

    position: int


class StillHere(ServerMessage, frozen=True, kw_only=True, tag="ping"):
    """Answer with a pong, or any other word. Resume after `position`, where one is told."""

    position: int | None = None


class Answer(ServerMessage, frozen=True, kw_only=True, tag="pong"):
    pass


CLIENT_MESSAGES: Final = msgspec.json.Decoder(Auth | Subscribe | Ping | Pong)


class CloseConnection(Exception):
    """Why a socket closes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Page(NamedTuple):
    """The next events to tell, with the progress of the jobs that they are of."""

    feed: activity.ActivityPage
    progress: Mapping[UUID, classifications.Progress]

    @property
    def visited(self) -> int:
        return self.feed.visited + len(self.progress)


class ClientDisconnected(Exception):
    """The client went away."""


# ---- everybody who watches ---------------------------------------------------------------------------------------------------------
class LiveHub:
    """All sockets of this process, counted: those of users apart from those of clients that have not said who they are yet."""

    def __init__(self, services: Services, identities: IdentityCache) -> None:
        self.services, self.identities, self.options = services, identities, services.options
        self.each: Counter[UUID] = Counter()
        self._anonymous = ConnectionSlots(total=self.options.anonymous_websockets, each=self.options.anonymous_websockets_per_address)
        self.budgets = RowBudgets(services.options.live_rows_per_second)
        self._origins = origins_of(self.options)

    async def watch(self, socket: WebSocket[Any, Any, Any]) -> None:
        """Until it closes. A refusal is told after the handshake: browsers cannot see one before."""
        await socket.accept()
        watch, began = LiveConnection(socket, self), time.monotonic()
        ended = self._refused(socket) or await watch.run()
        if ended is not None:
            with suppress(TimeoutError, RuntimeError, WebSocketException):
                await asyncio.wait_for(socket.close(ended.code, ended.reason), 1.0)
        log.info("watched", **watch.told, code=ended.code if ended else None, seconds=round(time.monotonic() - began, 1))

    def _refused(self, socket: WebSocket[Any, Any, Any]) -> CloseConnection | None:
        origin = socket.headers.get("origin")
        if origin is not None and origin not in self._origins:
            return CloseConnection(FORBIDDEN, "this origin may not watch")
        return None

    @contextmanager
    def anonymous(self, socket: WebSocket[Any, Any, Any], limit: asyncio.Timeout) -> Iterator[ConnectionSlot]:
        """Room for a client until it has said who it is. `limit` ends where newer ones of its address need the room."""
        address = network_of(peer_of(socket.scope, self.options.trusted_proxies))
        place = self._anonymous.acquire(address, lambda: expire(limit))
        try:
            yield place
        finally:
            place.release()

    @contextmanager
    def counted(self, account: UUID) -> Iterator[None]:
        """Raises Ended when there are as many sockets as there may be."""
        if self.each[account] >= self.options.websockets_per_account:
            raise CloseConnection(TOO_MANY, f"one account may watch {self.options.websockets_per_account} times at once")
        if self.each.total() >= self.options.websockets:
            raise CloseConnection(TOO_MANY, "too many watch already")
        self.each[account] += 1
        try:
            yield
        finally:
            self.each[account] -= 1
            self.each += Counter()  # forgets those at zero


@websocket("/api/ws", opt=OPEN)
async def live(socket: WebSocket[Any, Any, Any], watching: NamedDependency[LiveHub]) -> None:
    """What happens, while it happens."""
    await watching.watch(socket)


def origins_of(options: WebOptions) -> frozenset[str]:
    """Those that may open a socket: our own, under each name of this machine where it is one, and those that were named."""
    own = urlsplit(options.base_url)
    port = f":{own.port}" if own.port else ""
    hosts = LOOPBACK if own.hostname in {"127.0.0.1", "localhost", "::1"} else (own.netloc.removesuffix(port),)
    return frozenset({*options.cors_origins, *(f"{own.scheme}://{host}{port}" for host in hosts)})


# ---- one who watches ---------------------------------------------------------------------------------------------------------------
class Subscription:
    """What a client asked for, and how far it was told."""

    def __init__(self, position: int, datasets: frozenset[UUID] | None) -> None:
        self.position, self.datasets = position, datasets
        self.fresh = True


class LiveConnection:
    """One socket."""

    def __init__(self, socket: WebSocket[Any, Any, Any], watching: LiveHub) -> None:
        self._socket, self._watching = socket, watching
        self._services, self._identities = watching.services, watching.identities
        self._claims: Claims | None = None
        self._actor: Actor | None = None
        self._wanted: Subscription | None = None
        self._bell, self._sending = asyncio.Event(), asyncio.Lock()
        self._heard: deque[float] = deque(maxlen=MAX_MESSAGES_PER_SECOND)
        self.told = {"user": "", "events": 0}

    async def run(self) -> CloseConnection | None:
        """Why it ended; None when the client left."""
        try:
            await self._handshake()
            await self._serve()
        except ClientDisconnected:
            return None
        except CloseConnection as ended:
            return ended
        except Exception:
            log.exception("unforeseen error", **self.told)
            return CloseConnection(OUR_FAULT, "something went wrong on our side")
        return None

    async def _handshake(self) -> None:
        place = None
        try:
            async with asyncio.timeout(AUTHENTICATE_TIMEOUT_SECONDS) as limit:
                with self._watching.anonymous(self._socket, limit) as place:
                    said = await self._next(maximum=self._watching.options.anonymous_body_max_bytes)
        except TimeoutError:
            if place is not None and place.is_lost:
                raise CloseConnection(TOO_MANY, "too many sockets of this address have not said who they are") from None
            raise CloseConnection(UNKNOWN, "say who you are within 5 seconds") from None
        if not isinstance(said, Auth):
            raise CloseConnection(UNKNOWN, "say who you are first")
        await self._authenticate(said.token)

    async def _serve(self) -> None:
        with self._watching.counted(self._known.id):
            await until_one_ends(self._listen(), self._send_updates(), self._wake(), self._recheck_session(), self._keep_alive())

    @property
    def _known(self) -> Actor:
        assert self._actor is not None
        return self._actor

    # ---- who it is ----
    async def _authenticate(self, token: str) -> None:
        try:
            claims = self._services.access_tokens.verify(token, at=current_context())
            identity = await asyncio.to_thread(self._identities.authenticate, claims)
            if identity.actor.kind == "service":
                require_scope(identity.actor, Scope.EVENTS_READ)
        except NotAuthenticated as refused:
            raise CloseConnection(UNKNOWN, refused.detail) from None
        except Forbidden as refused:
            raise CloseConnection(FORBIDDEN, refused.detail) from None
        except UpgradeNeeded:
            raise CloseConnection(OUR_FAULT, OUTDATED) from None
        except Unavailable:
            raise CloseConnection(OUR_FAULT, "the database is away; try again") from None
        if self._actor is not None and self._actor.id != identity.actor.id:
            raise CloseConnection(UNKNOWN, "this token is somebody else's")
        self._claims, self._actor = claims, identity.actor
        self.told["user"] = str(identity.actor.id)
        recognised(self._socket.scope)
        await self._send(Authenticated(user=identity.actor.id, expires_at=claims.expires_at))

    async def _recheck_session(self) -> None:
        """Nobody watches longer than his token, his session or his role allows."""
        while True:
            await asyncio.sleep(SESSION_CHECK_INTERVAL_SECONDS)
            claims = self._claims
            assert claims is not None
            if current_context() >= claims.expires_at:
                raise CloseConnection(UNKNOWN, "the token has ended")
            try:
                identity = await asyncio.to_thread(self._identities.authenticate, claims)
            except NotAuthenticated as refused:
                raise CloseConnection(UNKNOWN, refused.detail) from None
            except UpgradeNeeded:  # of what was written about this account: it may be closed
                raise CloseConnection(OUR_FAULT, OUTDATED) from None
            except Unavailable:
                continue  # then nothing can be read either
            self._actor = identity.actor

    # ---- what it says ----
    async def _listen(self) -> None:
        while True:
            match await self._next(maximum=self._watching.options.websocket_max_bytes):
                case Auth(token=token):
                    await self._authenticate(token)
                case Subscribe() as said:
                    await self._subscribe(said)
                case Ping():
                    await self._send(Answer())
                case Pong():
                    pass

    async def _subscribe(self, said: Subscribe) -> None:
        after = await self._now() if said.after is None else said.after
        self._wanted = Subscription(after, said.datasets)
        self._bell.set()

    async def _now(self) -> int:
        """The position of the read models, or a slightly older one: then a few earlier events are sent too, and none is missing."""
        if self._watching.budgets.try_query(self._known.id):
            with suppress(Unavailable):
                return await checkpoints.position(self._services.live_reads)
        return self._services.visible.position

    async def _next(self, *, maximum: int) -> Auth | Subscribe | Ping | Pong:
        message: Any = await self._socket.receive()
        if message["type"] != "websocket.receive":
            raise ClientDisconnected
        at = time.monotonic()
        if len(self._heard) == MAX_MESSAGES_PER_SECOND and at - self._heard[0] < 1.0:
            raise CloseConnection(TOO_MANY, f"more than {MAX_MESSAGES_PER_SECOND} messages in a second")
        self._heard.append(at)
        text = message.get("text")
        if not isinstance(text, str) or len(text.encode(errors="replace")) > maximum:
            raise CloseConnection(MALFORMED, f"messages are text of at most {maximum} bytes")
        try:
            said: Auth | Subscribe | Ping | Pong = CLIENT_MESSAGES.decode(text)
        except (msgspec.MsgspecError, UnicodeError):
            raise CloseConnection(MALFORMED, "this is no message that is understood here") from None
        return said

    # ---- what it is told ----
    async def _wake(self) -> None:
        async with self._services.live.subscribe() as news:
            while True:
                there_was = await news.wait(POLL_INTERVAL_SECONDS)
                if there_was or (self._wanted is not None and self._services.visible.position > self._wanted.position):
                    self._bell.set()

    async def _send_updates(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            if (wanted := self._wanted) is not None:
                try:
                    await self._catch_up(wanted)
                except Unavailable:
                    await asyncio.sleep(POLL_INTERVAL_SECONDS)
                    self._bell.set()

    async def _catch_up(self, wanted: Subscription) -> None:
        """Everything up to now, a page at a time; another subscription takes its place at once."""
        news, more = wanted.fresh, True
        while more and wanted is self._wanted:
            page = await self._watching.budgets.read(self._known.id, partial(self._next_page, wanted))
            if wanted is not self._wanted:
                return
            await self._send_all(page)
            feed = page.feed
            wanted.position, more = feed.position, feed.more
            news = news or bool(feed.items)
        if news and wanted is self._wanted:
            wanted.fresh = False
            await self._send(CaughtUp(position=wanted.position))

    async def _next_page(self, wanted: Subscription) -> Page:
        """With the access and the position of the moment at which it is read."""
        services, position, datasets = self._services, wanted.position, wanted.datasets
        head = services.visible.position
        feed = await activity.after(
            services.live_reads, self._known, position=position, limit=EVENTS_PER_PAGE, datasets=datasets, head=head
        )
        jobs = {job for one in feed.items if (job := activity.job_of(one)) is not None}
        return Page(feed, await classifications.progress(services.live_reads, self._known, jobs) if jobs else {})

    async def _send_all(self, page: Page) -> None:
        for one in page.feed.items:
            job = activity.job_of(one)
            await self._send(happened(one, page.progress.get(job) if job else None))
        self.told["events"] += len(page.feed.items)  # type: ignore[operator]

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_SECONDS)
            if time.monotonic() - self._heard[-1] > MAX_SILENCE_SECONDS:
                raise CloseConnection(TOO_SLOW, "nothing was heard of you for a minute")
            await self._send(StillHere(position=self._wanted.position if self._wanted else None))

    async def _send(self, told: ServerMessage) -> None:
        """Returns when it is on its way: who does not take it in time holds up nobody but himself, and not for long."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS), self._sending:
                await self._socket.send_data(msgspec.json.encode(told).decode())
        except TimeoutError:
            raise CloseConnection(TOO_SLOW, "messages are not taken in time") from None
        except (RuntimeError, WebSocketException):
            raise ClientDisconnected from None


def happened(one: activity.Activity, job: classifications.Progress | None) -> Happened:
    return Happened(
        position=one.position,
        at=one.at,
        event=one.type,
        stream=one.stream,
        actor=one.actor,
        dataset=one.dataset,
        subjects=one.subjects,
        job=job,
    )


async def until_one_ends(*parts: Coroutine[Any, Any, object]) -> None:
    """Raises what ended it. The others are told to end until they do: where an answer comes at the same moment, a cancellation is lost."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = next(task for task in tasks if task.done())
    finally:
        while left := [task for task in tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # looked at, or asyncio complains
    ended.result()
