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
from api.request import now
from application.authentication import Identities
from application.connection_slots import Place, Places, network_of
from application.services import Claims, Options, Services
from domain.access import Actor, Scope
from domain.errors import Forbidden, NotAuthenticated, Unavailable, UpgradeNeeded
from projections import activity, classifications
from projections.engine import checkpoints

log = structlog.get_logger()

OUTDATED = "the server has to be upgraded before this account can go on"
MALFORMED, UNKNOWN, FORBIDDEN, TOO_SLOW, TOO_MANY, OUR_FAULT = 4400, 4401, 4403, 4408, 4429, 1011

MESSAGES_MOST: Final = 20  # in a second
DATASETS_MOST: Final = 100
SAY_WHO_WITHIN: Final = 5.0  # seconds
TAKEN_WITHIN: Final = 10.0  # seconds that a message may wait for the client to take it
LOOK_ANYWAY: Final = 1.0  # seconds, should news have been lost
WHO_AGAIN: Final = 5.0  # seconds between two looks at whether the session still lives
PING: Final = 20.0  # seconds
SILENT_MOST: Final = 65.0  # seconds without a word from the client
PAGE: Final = 100  # events read at once
TELL_AGAIN: Final = 0.1  # seconds
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


# ---- what is said ------------------------------------------------------------------------------------------------------------------
class Said(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """A message of the client."""


class Auth(Said, frozen=True, kw_only=True, tag="auth"):
    token: str


class Subscribe(Said, frozen=True, kw_only=True, tag="subscribe"):
    """From now on, or from what follows `after`; only of `datasets`, where they are named."""

    after: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    datasets: Annotated[frozenset[UUID], Meta(max_length=DATASETS_MOST)] | None = None


class Ping(Said, frozen=True, kw_only=True, tag="ping"):
    pass


class Pong(Said, frozen=True, kw_only=True, tag="pong"):
    pass


class Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A message of ours."""


class Authenticated(Told, frozen=True, kw_only=True, tag="authenticated"):
    """Send a newer token before `expires_at`, and nothing is interrupted."""

    user: UUID
    expires_at: datetime


class Happened(Told, frozen=True, kw_only=True, tag="event"):
    """`subjects`: the ids of everything that the event touches. `job`: how far the job is by now, where it is about one."""

    position: int
    at: datetime
    event: str
    stream: UUID
    actor: UUID
    dataset: UUID | None
    subjects: tuple[UUID, ...]
    job: classifications.Progress | None = None


class CaughtUp(Told, frozen=True, kw_only=True, tag="caught_up"):
    """There is nothing more until something happens; resume after `position`."""

    position: int


class StillHere(Told, frozen=True, kw_only=True, tag="ping"):
    """Answer with a pong, or any other word. Resume after `position`, where one is told."""

    position: int | None = None


class Answer(Told, frozen=True, kw_only=True, tag="pong"):
    pass


HEARD: Final = msgspec.json.Decoder(Auth | Subscribe | Ping | Pong)


class Ended(Exception):
    """Why a socket closes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Page(NamedTuple):
    """The next events to tell, with the progress of the jobs that they are of."""

    feed: activity.Feed
    progress: Mapping[UUID, classifications.Progress]

    @property
    def visited(self) -> int:
        return self.feed.visited + len(self.progress)


class Left(Exception):
    """The client went away."""


# ---- everybody who watches ---------------------------------------------------------------------------------------------------------
class Watching:
    """All sockets of this process, counted: those of users apart from those of clients that have not said who they are yet."""

    def __init__(self, services: Services, identities: Identities) -> None:
        self.services, self.identities, self.options = services, identities, services.options
        self.each: Counter[UUID] = Counter()
        self._anonymous = Places(total=self.options.anonymous_websockets, each=self.options.anonymous_websockets_per_address)
        self.budgets = RowBudgets(services.options.live_rows_per_second)
        self._origins = origins_of(self.options)

    async def watch(self, socket: WebSocket[Any, Any, Any]) -> None:
        """Until it closes. A refusal is told after the handshake: browsers cannot see one before."""
        await socket.accept()
        watch, began = Watch(socket, self), time.monotonic()
        ended = self._refused(socket) or await watch.run()
        if ended is not None:
            with suppress(TimeoutError, RuntimeError, WebSocketException):
                await asyncio.wait_for(socket.close(ended.code, ended.reason), 1.0)
        log.info("watched", **watch.told, code=ended.code if ended else None, seconds=round(time.monotonic() - began, 1))

    def _refused(self, socket: WebSocket[Any, Any, Any]) -> Ended | None:
        origin = socket.headers.get("origin")
        if origin is not None and origin not in self._origins:
            return Ended(FORBIDDEN, "this origin may not watch")
        return None

    @contextmanager
    def anonymous(self, socket: WebSocket[Any, Any, Any], limit: asyncio.Timeout) -> Iterator[Place]:
        """Room for a client until it has said who it is. `limit` ends where newer ones of its address need the room."""
        address = network_of(peer_of(socket.scope, self.options.trusted_proxies))
        place = self._anonymous.take(address, lambda: expire(limit))
        try:
            yield place
        finally:
            place.leave()

    @contextmanager
    def counted(self, account: UUID) -> Iterator[None]:
        """Raises Ended when there are as many sockets as there may be."""
        if self.each[account] >= self.options.websockets_per_account:
            raise Ended(TOO_MANY, f"one account may watch {self.options.websockets_per_account} times at once")
        if self.each.total() >= self.options.websockets:
            raise Ended(TOO_MANY, "too many watch already")
        self.each[account] += 1
        try:
            yield
        finally:
            self.each[account] -= 1
            self.each += Counter()  # forgets those at zero


@websocket("/api/ws", opt=OPEN)
async def live(socket: WebSocket[Any, Any, Any], watching: NamedDependency[Watching]) -> None:
    """What happens, while it happens."""
    await watching.watch(socket)


def origins_of(options: Options) -> frozenset[str]:
    """Those that may open a socket: our own, under each name of this machine where it is one, and those that were named."""
    own = urlsplit(options.base_url)
    port = f":{own.port}" if own.port else ""
    hosts = LOOPBACK if own.hostname in {"127.0.0.1", "localhost", "::1"} else (own.netloc.removesuffix(port),)
    return frozenset({*options.cors_origins, *(f"{own.scheme}://{host}{port}" for host in hosts)})


# ---- one who watches ---------------------------------------------------------------------------------------------------------------
class Wanted:
    """What a client asked for, and how far it was told."""

    def __init__(self, position: int, datasets: frozenset[UUID] | None) -> None:
        self.position, self.datasets = position, datasets
        self.fresh = True


class Watch:
    """One socket."""

    def __init__(self, socket: WebSocket[Any, Any, Any], watching: Watching) -> None:
        self._socket, self._watching = socket, watching
        self._services, self._identities = watching.services, watching.identities
        self._claims: Claims | None = None
        self._actor: Actor | None = None
        self._wanted: Wanted | None = None
        self._bell, self._sending = asyncio.Event(), asyncio.Lock()
        self._heard: deque[float] = deque(maxlen=MESSAGES_MOST)
        self.told = {"user": "", "events": 0}

    async def run(self) -> Ended | None:
        """Why it ended; None when the client left."""
        try:
            await self._greet()
            await self._serve()
        except Left:
            return None
        except Ended as ended:
            return ended
        except Exception:
            log.exception("unforeseen error", **self.told)
            return Ended(OUR_FAULT, "something went wrong on our side")
        return None

    async def _greet(self) -> None:
        place = None
        try:
            async with asyncio.timeout(SAY_WHO_WITHIN) as limit:
                with self._watching.anonymous(self._socket, limit) as place:
                    said = await self._next(most=self._watching.options.anonymous_body_max_bytes)
        except TimeoutError:
            if place is not None and place.is_lost:
                raise Ended(TOO_MANY, "too many sockets of this address have not said who they are") from None
            raise Ended(UNKNOWN, "say who you are within 5 seconds") from None
        if not isinstance(said, Auth):
            raise Ended(UNKNOWN, "say who you are first")
        await self._believe(said.token)

    async def _serve(self) -> None:
        with self._watching.counted(self._known.id):
            await until_one_ends(self._listen(), self._tell(), self._ring(), self._look_who(), self._keep_alive())

    @property
    def _known(self) -> Actor:
        assert self._actor is not None
        return self._actor

    # ---- who it is ----
    async def _believe(self, token: str) -> None:
        try:
            claims = self._services.access_tokens.verify(token, at=now())
            identity = await asyncio.to_thread(self._identities.identified, claims)
            if identity.actor.kind == "service":
                require_scope(identity.actor, Scope.EVENTS_READ)
        except NotAuthenticated as refused:
            raise Ended(UNKNOWN, refused.detail) from None
        except Forbidden as refused:
            raise Ended(FORBIDDEN, refused.detail) from None
        except UpgradeNeeded:
            raise Ended(OUR_FAULT, OUTDATED) from None
        except Unavailable:
            raise Ended(OUR_FAULT, "the database is away; try again") from None
        if self._actor is not None and self._actor.id != identity.actor.id:
            raise Ended(UNKNOWN, "this token is somebody else's")
        self._claims, self._actor = claims, identity.actor
        self.told["user"] = str(identity.actor.id)
        recognised(self._socket.scope)
        await self._say(Authenticated(user=identity.actor.id, expires_at=claims.expires_at))

    async def _look_who(self) -> None:
        """Nobody watches longer than his token, his session or his role allows."""
        while True:
            await asyncio.sleep(WHO_AGAIN)
            claims = self._claims
            assert claims is not None
            if now() >= claims.expires_at:
                raise Ended(UNKNOWN, "the token has ended")
            try:
                identity = await asyncio.to_thread(self._identities.identified, claims)
            except NotAuthenticated as refused:
                raise Ended(UNKNOWN, refused.detail) from None
            except UpgradeNeeded:  # of what was written about this account: it may be closed
                raise Ended(OUR_FAULT, OUTDATED) from None
            except Unavailable:
                continue  # then nothing can be read either
            self._actor = identity.actor

    # ---- what it says ----
    async def _listen(self) -> None:
        while True:
            match await self._next(most=self._watching.options.websocket_max_bytes):
                case Auth(token=token):
                    await self._believe(token)
                case Subscribe() as said:
                    await self._subscribe(said)
                case Ping():
                    await self._say(Answer())
                case Pong():
                    pass

    async def _subscribe(self, said: Subscribe) -> None:
        after = await self._now() if said.after is None else said.after
        self._wanted = Wanted(after, said.datasets)
        self._bell.set()

    async def _now(self) -> int:
        """The position of the read models, or a slightly older one: then a few earlier events are sent too, and none is missing."""
        if self._watching.budgets.try_query(self._known.id):
            with suppress(Unavailable):
                return await checkpoints.position(self._services.live_reads)
        return self._services.visible.position

    async def _next(self, *, most: int) -> Auth | Subscribe | Ping | Pong:
        message: Any = await self._socket.receive()
        if message["type"] != "websocket.receive":
            raise Left
        at = time.monotonic()
        if len(self._heard) == MESSAGES_MOST and at - self._heard[0] < 1.0:
            raise Ended(TOO_MANY, f"more than {MESSAGES_MOST} messages in a second")
        self._heard.append(at)
        text = message.get("text")
        if not isinstance(text, str) or len(text.encode(errors="replace")) > most:
            raise Ended(MALFORMED, f"messages are text of at most {most} bytes")
        try:
            said: Auth | Subscribe | Ping | Pong = HEARD.decode(text)
        except (msgspec.MsgspecError, UnicodeError):
            raise Ended(MALFORMED, "this is no message that is understood here") from None
        return said

    # ---- what it is told ----
    async def _ring(self) -> None:
        async with self._services.live.subscribe() as news:
            while True:
                there_was = await news.wait(LOOK_ANYWAY)
                if there_was or (self._wanted is not None and self._services.visible.position > self._wanted.position):
                    self._bell.set()

    async def _tell(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            if (wanted := self._wanted) is not None:
                try:
                    await self._catch_up(wanted)
                except Unavailable:
                    await asyncio.sleep(LOOK_ANYWAY)
                    self._bell.set()

    async def _catch_up(self, wanted: Wanted) -> None:
        """Everything up to now, a page at a time; another subscription takes its place at once."""
        news, more = wanted.fresh, True
        while more and wanted is self._wanted:
            page = await self._watching.budgets.read(self._known.id, partial(self._next_page, wanted))
            if wanted is not self._wanted:
                return
            await self._say_all(page)
            feed = page.feed
            wanted.position, more = feed.position, feed.more
            news = news or bool(feed.items)
        if news and wanted is self._wanted:
            wanted.fresh = False
            await self._say(CaughtUp(position=wanted.position))

    async def _next_page(self, wanted: Wanted) -> Page:
        """With the access and the position of the moment at which it is read."""
        services, position, datasets = self._services, wanted.position, wanted.datasets
        head = services.visible.position
        feed = await activity.after(services.live_reads, self._known, position=position, limit=PAGE, datasets=datasets, head=head)
        jobs = {job for one in feed.items if (job := activity.job_of(one)) is not None}
        return Page(feed, await classifications.progress(services.live_reads, self._known, jobs) if jobs else {})

    async def _say_all(self, page: Page) -> None:
        for one in page.feed.items:
            job = activity.job_of(one)
            await self._say(happened(one, page.progress.get(job) if job else None))
        self.told["events"] += len(page.feed.items)  # type: ignore[operator]

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(PING)
            if time.monotonic() - self._heard[-1] > SILENT_MOST:
                raise Ended(TOO_SLOW, "nothing was heard of you for a minute")
            await self._say(StillHere(position=self._wanted.position if self._wanted else None))

    async def _say(self, told: Told) -> None:
        """Returns when it is on its way: who does not take it in time holds up nobody but himself, and not for long."""
        try:
            async with asyncio.timeout(TAKEN_WITHIN), self._sending:
                await self._socket.send_data(msgspec.json.encode(told).decode())
        except TimeoutError:
            raise Ended(TOO_SLOW, "messages are not taken in time") from None
        except (RuntimeError, WebSocketException):
            raise Left from None


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
            await asyncio.wait(left, timeout=TELL_AGAIN)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # looked at, or asyncio complains
    ended.result()
