"""The record, read: what happened to a thing, and how it stood at any moment."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from api.calls import Call, PageSize
from api.events import After
from application import audit
from application.schemas import COLUMNS
from domain.access import Role, require_role
from projections import activity


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event; `data` has its private fields in clear, as far as their keys were not destroyed."""

    position: int
    at: datetime
    type: str
    stream: UUID
    version: int
    actor: dict[str, Any]
    data: dict[str, Any]


def view(entry: audit.Entry) -> Entry:
    told = msgspec.to_builtins(entry)
    return Entry(
        **told | {"at": entry.at, "stream": entry.stream, "data": {name: it for name, it in told["data"].items() if name not in COLUMNS}}
    )


class Audit(Controller):
    path = "/api/audit/{about:uuid}"
    tags = ("audit",)

    @get("/trail")
    async def trail(
        self, call: NamedDependency[Call], about: FromPath[UUID], after: After = 0, limit: PageSize = 200
    ) -> Response[list[Entry]]:
        """Everything that touched a thing, oldest first: an image's trail has the chunk that judged it. For administrators.

        At most 200 events that follow position `after`; where there are more, `X-Next-Cursor` is the next `after`.
        """
        require_role(call.actor, Role.ADMIN)
        others = await call.read(activity.about, about)
        found = await asyncio.to_thread(audit.trail, about, others=others, log=call.services.log, after=after, most=limit + 1)
        more = {"X-Next-Cursor": str(found[limit - 1].position)} if len(found) > limit else {}
        return Response([view(entry) for entry in found[:limit]], headers=more)

    @get("/state")
    async def state(
        self, call: NamedDependency[Call], about: FromPath[UUID], as_of: FromQuery[str | None] = None
    ) -> Response[dict[str, Any]]:
        """How a thing stood at a time or position, folded from the record alone; now, where none is named. For administrators."""
        require_role(call.actor, Role.ADMIN)
        position, until = audit.moment(as_of)
        found = await asyncio.to_thread(audit.state_of, about, until=until, position=position, log=call.services.log)
        return Response(msgspec.to_builtins(found))
