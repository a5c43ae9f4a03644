"""Event feed routes: the events after any position, with long polling, and their schemas."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from api.middleware.authentication import for_services
from api.options import FeedLimits
from api.request import RequestContext
from application.history import event_feed, event_schemas
from application.history.event_feed import MAX_EVENTS, FeedPage, Heads
from application.history.event_meanings import MEANINGS
from domain.access import Scope
from domain.registry import NOUN_OF

MAX_WAIT_SECONDS = 20.0
MAX_POSITION = 2**53  # the largest integer that every JSON reader represents exactly

After = Annotated[int, QueryParameter(ge=0, le=MAX_POSITION)]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_EVENTS)]
Wait = Annotated[float, QueryParameter(ge=0, le=MAX_WAIT_SECONDS)]


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """An event type."""

    type: str
    noun: str
    meaning: str
    versions: list[int]


class FeedSlots:
    """A limited number of slots for requests that wait for new events."""

    def __init__(self, limits: FeedLimits) -> None:
        self.limits = limits
        self._free = limits.max_waiting

    @contextmanager
    def acquire(self) -> Iterator[bool]:
        """Yield whether a slot was free. It is held until the end of the block."""
        acquired = self._free > 0
        self._free -= acquired
        try:
            yield acquired
        finally:
            self._free += acquired


class Events(Controller):
    path = "/api/events"
    tags = ("events",)
    opt = for_services(Scope.EVENTS_READ)

    @get("/", summary="Follow events")
    async def follow(
        self,
        context: NamedDependency[RequestContext],
        feed_slots: NamedDependency[FeedSlots],
        after: After = 0,
        limit: Limit = 100,
        wait: Wait = 0.0,
        sealed: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
    ) -> Response[FeedPage]:
        """The events after position `after`, in order and without a gap. For administrators and services.

        If there are none yet, the answer waits up to `wait` seconds. Ask again with `after` set to `next` of the answer.
        """
        event_feed.require_follower(context.actor)
        return Response(await next_page(context, feed_slots, after, limit=limit, wait=wait, sealed=sealed))

    @get("/heads", operation_id="eventsSignedHeads", summary="List signed heads")
    async def list_signed_heads(self, context: NamedDependency[RequestContext], after: After = 0, limit: Limit = 100) -> Response[Heads]:
        """The position and hash of the log, signed about once a minute. For administrators and services.

        Compare them with the hash that you calculated at the same position.
        """
        services = context.services
        return Response(await event_feed.heads(after, limit=limit, actor=context.actor, reads=services.reads, keys=services.head_keys))

    @get("/schemas", operation_id="eventsDescribed", summary="List event types")
    async def list_schemas(self, context: NamedDependency[RequestContext]) -> list[Described]:  # noqa: ARG002 - it requires an authenticated actor
        """All event types, with their meaning and the versions of their schemas."""
        return [
            Described(type=kind, noun=NOUN_OF[kind], meaning=meaning, versions=event_schemas.versions(kind))
            for kind, meaning in MEANINGS.items()
        ]

    @get("/schemas/{kind:str}", operation_id="eventsSchema", summary="Read the schema of an event type")
    async def get_schema(
        self,
        context: NamedDependency[RequestContext],  # noqa: ARG002 - it requires an authenticated actor
        kind: FromPath[str],
        version: FromQuery[int | None] = None,
        sealed: FromQuery[bool] = True,  # noqa: FBT002 - a query parameter
    ) -> Response[dict[str, Any]]:
        """The JSON Schema of an event's data: as Kafka carries it, or as an administrator reads it (`sealed=false`)."""
        return Response(event_schemas.schema(kind, version, sealed=sealed), media_type="application/schema+json")


async def next_page(context: RequestContext, slots: FeedSlots, after: int, *, limit: int, wait: float, sealed: bool) -> FeedPage:
    """The events after position `after`. If there are none, wait up to `wait` seconds for one, without holding a thread."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait
    with slots.acquire() as may_wait:
        while True:
            page = await context.read_log(
                event_feed.after, after, limit=limit, sealed=sealed, actor=context.actor, max_bytes=slots.limits.max_page_bytes
            )
            remaining = deadline - clock()
            if page.events or remaining <= 0 or not may_wait:
                return page
            await context.services.read_position.wait(after + 1, min(remaining, slots.limits.poll_interval_seconds))
