"""Audit routes: the trail of an object, and its state at any time."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from api.access_trail import TrailQuery, read_page
from api.events import After
from api.query_parameters import MIN_POSITION, only_known_parameters
from api.request import PageSize, RequestContext
from application.history import audit, lists_as_of
from application.history.access_records import AccessOutcome, TrailKind
from application.history.access_trail import TrailItem, parsed_cursor
from application.history.as_of import position_of
from application.history.event_schemas import COLUMNS
from domain.access import Role, require_role
from domain.errors import Invalid
from projections import activity

DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")

T = TypeVar("T")
AsOf = FromQuery[str | None]
From = Annotated[datetime | None, QueryParameter(name="from")]
To = Annotated[datetime | None, QueryParameter(name="to")]
Object = Annotated[UUID | None, QueryParameter(name="object")]


class TrailOrder(StrEnum):
    """In which order the trail is read."""

    NEWEST = "newest"
    OLDEST = "oldest"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an audit trail."""

    position: int
    at: datetime
    type: str
    stream: UUID
    version: int
    actor: dict[str, Any]
    sentence: str
    data: dict[str, Any]


def view(entry: audit.Entry) -> Entry:
    """Convert an entry. `data` leaves out the columns that all events share, because `Entry` has a field for each."""
    plain = msgspec.to_builtins(entry)
    data = {name: value for name, value in plain["data"].items() if name not in COLUMNS}
    return Entry(**plain | {"at": entry.at, "stream": entry.stream, "data": data})


class AuditTrail(Controller):
    path = "/api/audit"
    tags = ("audit",)
    guards = (only_known_parameters(),)

    @get("/", operation_id="auditListed", summary="List accesses and changes")
    async def listed(
        self,
        context: NamedDependency[RequestContext],
        actor: FromQuery[UUID | None] = None,
        about: Object = None,
        key: FromQuery[UUID | None] = None,
        kind: FromQuery[TrailKind | None] = None,
        outcome: FromQuery[AccessOutcome | None] = None,
        since: From = None,
        until: To = None,
        order: FromQuery[TrailOrder] = TrailOrder.NEWEST,
        cursor: FromQuery[str | None] = None,
        limit: PageSize = 50,
    ) -> Response[list[TrailItem]]:
        """Who changed, read or was refused what, in the order in which it was recorded, each in a sentence. For administrators.

        Changes are the events of the log. Accesses are refusals, downloads, uses of keys and reads by administrators; they are kept for
        `BIOSCOPE_ACCESS_LOG_DAYS`. If there are more, `X-Next-Cursor` is the next `cursor`. With `key`, a page may have fewer items than
        `limit`, or none, and still have a next one.
        """
        require_role(context.actor, Role.ADMIN)
        for name, moment in (("from", since), ("to", until)):
            _require_time(name, moment, context.request.query_params.get(name, ""))
        query = TrailQuery(
            actor=actor,
            object=about,
            key=key,
            kind=kind,
            outcome=outcome,
            since=since,
            until=until,
            newest_first=order is TrailOrder.NEWEST,
        )
        services = context.services
        page = await read_page(services.reads, context.actor, query, after=parsed_cursor(cursor), limit=limit, log=services.log)
        headers = {"X-Next-Cursor": str(page.next_cursor)} if page.next_cursor else {}
        return Response(page.items, headers=headers)


class Audit(Controller):
    path = "/api/audit/{about:uuid}"
    tags = ("audit",)

    @get("/trail", guards=[only_known_parameters(MIN_POSITION)], summary="Read the audit trail")
    async def trail(
        self, context: NamedDependency[RequestContext], about: FromPath[UUID], after: After = 0, limit: PageSize = 200
    ) -> Response[list[Entry]]:
        """All events that touched one thing, oldest first. The trail of an image includes its results. For administrators.

        If there are more events, `X-Next-Cursor` is the next `after`.
        """
        require_role(context.actor, Role.ADMIN)
        others = await context.read(activity.about, about, after=after, maximum=limit + 1)
        entries = await context.read_log(audit.trail, about, others=others, after=after, maximum=limit + 1)
        return _page([view(entry) for entry in entries[:limit]], entries[limit - 1].position if len(entries) > limit else None)

    @get("/state", guards=[only_known_parameters()], summary="Read a state as of a time")
    async def state(self, context: NamedDependency[RequestContext], about: FromPath[UUID], as_of: AsOf = None) -> Response[dict[str, Any]]:
        """One thing as it was at a time or position, calculated from the log alone. For administrators."""
        require_role(context.actor, Role.ADMIN)
        until = await _position_of(context, as_of)
        state = await context.read_log(audit.state_of, about, until=until)
        return Response(msgspec.to_builtins(state))

    @get("/images", guards=[only_known_parameters(MIN_POSITION)], summary="List images of a dataset as of a time")
    async def images(
        self,
        context: NamedDependency[RequestContext],
        about: FromPath[UUID],
        as_of: AsOf = None,
        after: After = 0,
        limit: PageSize = lists_as_of.MAX_IMAGES,
    ) -> Response[list[dict[str, Any]]]:
        """The images that a dataset held at a time or position, in the order of their uploads. For administrators.

        Images that had been deleted by then are left out, so that a page may be shorter than `limit`. If there are more,
        `X-Next-Cursor` is the next `after`; send the same `as_of` with it. The answer is 404 if the dataset did not exist then.
        """
        require_role(context.actor, Role.ADMIN)
        until = await _position_of(context, as_of)
        await context.read_log(lists_as_of.require_dataset, about, until=until)
        await context.services.read_position.wait(until, context.options.visible_timeout_seconds)
        maximum = min(limit, lists_as_of.MAX_IMAGES)
        uploads = await context.read(activity.uploads, about, after=after, until=until, maximum=maximum + 1)
        streams = [upload.stream for upload in uploads[:maximum]]
        images = await context.read_log(lists_as_of.images, streams, until=until)
        return _page(
            [msgspec.to_builtins(image) for image in images], uploads[maximum - 1].position if len(uploads) > maximum else None, until
        )

    @get("/results", guards=[only_known_parameters(MIN_POSITION)], summary="List results as of a time")
    async def results(
        self, context: NamedDependency[RequestContext], about: FromPath[UUID], as_of: AsOf = None, after: After = 0
    ) -> Response[list[lists_as_of.Result]]:
        """The results of an image or job that existed at a time or position, oldest first. For administrators.

        A page has the results of at most 20 chunks. Results whose image, job or dataset had been deleted by then are left out. If there
        are more, `X-Next-Cursor` is the next `after`; send the same `as_of` with it. The answer is 404 if the image or job did not
        exist then.
        """
        require_role(context.actor, Role.ADMIN)
        until = await _position_of(context, as_of)
        maximum = lists_as_of.MAX_CHUNKS
        await context.read_log(lists_as_of.require_image_or_job, about, until=until)
        await context.services.read_position.wait(until, context.options.visible_timeout_seconds)
        chunks = await context.read(activity.judgements, about, after=after, until=until, maximum=maximum + 1)
        results = await context.read_log(lists_as_of.results, chunks[:maximum], about, until=until)
        return _page(results, chunks[maximum - 1] if len(chunks) > maximum else None, until)


def _require_time(name: str, moment: datetime | None, text: str) -> None:
    """Raises Invalid for a time without a zone, and for the seconds since 1970, which are decoded too."""
    if moment is not None and (moment.utcoffset() is None or not DATE.match(text)):
        message = "must be a time with a time zone, such as 2026-03-01T12:00:00Z"
        raise Invalid(f"{name} {message}", errors=[{"loc": ["query", name], "msg": message}])


async def _position_of(context: RequestContext, as_of: str | None) -> int:
    return await context.read_log(position_of, as_of)


def _page(items: list[T], next_cursor: int | None, as_of_position: int | None = None) -> Response[list[T]]:
    """`as_of_position` is the position up to which the items were folded. The request for the next page repeats it."""
    cursor = {"X-Next-Cursor": str(next_cursor)} if next_cursor is not None else {}
    position = {"X-As-Of-Position": str(as_of_position)} if as_of_position is not None else {}
    return Response(items, headers=cursor | position)
