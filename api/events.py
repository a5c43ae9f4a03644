"""The event stream over HTTP: from any position on, waiting for what comes; and its schemas."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from api.middleware.authentication import for_services
from api.request import RequestContext
from application import event_feed, event_schemas
from application.event_feed import MAX_EVENTS, FeedPage, Heads
from domain.access import Scope
from domain.registry import NOUN_OF

MAX_WAIT_SECONDS = 20.0  # seconds
POLL_INTERVAL_SECONDS = 1.0  # seconds, should the projector be away
MAX_WAITING_REQUESTS = 64  # requests; more are answered at once
MAX_POSITION = 2**53  # what every JSON reader can hold

After = Annotated[int, QueryParameter(ge=0, le=MAX_POSITION)]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_EVENTS)]
Wait = Annotated[float, QueryParameter(ge=0, le=MAX_WAIT_SECONDS)]


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """An event type; `versions` are those that the log may hold."""

    type: str
    noun: str
    meaning: str
    versions: list[int]


class WaitingRequests:
    """Places for those who wait."""

    def __init__(self, maximum: int) -> None:
        self._free = maximum

    @contextmanager
    def acquire(self) -> Iterator[bool]:
        """Whether there was one."""
        got = self._free > 0
        self._free -= got
        try:
            yield got
        finally:
            self._free += got


WAITING_REQUESTS = WaitingRequests(MAX_WAITING_REQUESTS)


class Events(Controller):
    path = "/api/events"
    tags = ("events",)
    opt = for_services(Scope.EVENTS_READ)

    @get("/")
    async def follow(
        self,
        call: NamedDependency[RequestContext],
        after: After = 0,
        limit: Limit = 100,
        wait: Wait = 0.0,
        sealed: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
    ) -> Response[FeedPage]:
        """What follows position `after`, for administrators and for services with the scope `events:read`.

        At most `limit` (1000) events, without a gap. Where there are none yet, the answer waits up to `wait` (20) seconds.
        Private fields are in clear for an administrator who does not ask for `sealed`.
        """
        event_feed.require_follower(call.actor)
        return Response(await awaited(call, after, limit=limit, wait=wait, sealed=sealed))

    @get("/heads")
    async def signed_heads(self, call: NamedDependency[RequestContext], after: After = 0, limit: Limit = 100) -> Response[Heads]:
        """What the log had come to, signed about once a minute: compare your own hash at that position with it."""
        services = call.services
        return Response(await event_feed.heads(after, limit=limit, actor=call.actor, reads=services.reads, keys=services.head_keys))

    @get("/schemas")
    async def described(self, call: NamedDependency[RequestContext]) -> list[Described]:  # noqa: ARG002 - who may ask is known
        """Every type that there is."""
        return [
            Described(type=kind, noun=NOUN_OF[kind], meaning=meaning, versions=event_schemas.versions(kind))
            for kind, meaning in event_schemas.MEANINGS.items()
        ]

    @get("/schemas/{kind:str}")
    async def schema(
        self,
        call: NamedDependency[RequestContext],  # noqa: ARG002 - who may ask is known
        kind: FromPath[str],
        version: FromQuery[int | None] = None,
        sealed: FromQuery[bool] = True,  # noqa: FBT002 - a query parameter
    ) -> Response[dict[str, Any]]:
        """The JSON Schema of a payload: as Kafka carries it, or as an administrator reads it (`sealed=false`)."""
        return Response(event_schemas.schema(kind, version, sealed=sealed), media_type="application/schema+json")


async def awaited(call: RequestContext, after: int, *, limit: int, wait: float, sealed: bool) -> FeedPage:
    """No thread is held while it waits."""
    log, visible = call.services.log, call.services.visible
    clock = asyncio.get_running_loop().time
    until = clock() + wait
    with WAITING_REQUESTS.acquire() as may_wait:
        while True:
            found = await asyncio.to_thread(event_feed.after, after, limit=limit, sealed=sealed, actor=call.actor, log=log)
            left = until - clock()
            if found.events or left <= 0 or not may_wait:
                return found
            await visible.wait(after + 1, min(left, POLL_INTERVAL_SECONDS))
