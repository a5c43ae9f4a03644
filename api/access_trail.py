"""Reads the whole trail: changes from the log, and accesses, merged by time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from application.history import access_trail
from application.history.access_records import AccessKind, AccessOutcome, ShownAccess, TrailKind
from application.history.access_trail import TrailCursor, TrailPage
from application.ports import EventStore
from application.services import QueryDatabase
from domain.access import Actor
from projections import access_log, activity
from projections.access_log import AccessFilter
from projections.activity import FoundChanges


class TrailQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of the trail. Times are compared with those of the database, at which events and accesses were recorded."""

    actor: UUID | None = None
    object: UUID | None = None
    key: UUID | None = None
    kind: TrailKind | None = None
    outcome: AccessOutcome | None = None
    since: datetime | None = None
    until: datetime | None = None
    newest_first: bool = True

    @property
    def includes_changes(self) -> bool:
        return self.kind in {None, TrailKind.CHANGE} and self.outcome in {None, AccessOutcome.ALLOWED}

    @property
    def includes_accesses(self) -> bool:
        return self.kind is not TrailKind.CHANGE

    @property
    def of_accesses(self) -> AccessFilter:
        return AccessFilter(
            actor=self.actor,
            object=self.object,
            key=self.key,
            kind=AccessKind(self.kind) if self.kind else None,
            outcome=self.outcome,
            since=self.since,
            until=self.until,
        )


async def read_page(
    reads: QueryDatabase, reader: Actor, query: TrailQuery, *, after: TrailCursor, limit: int, log: EventStore
) -> TrailPage:
    """One page of the trail, which follows the cursor `after`. Raises Forbidden, Unavailable.

    With a key it may have fewer items, although others follow: the search for its changes is bounded.
    """
    accesses: Sequence[ShownAccess] = ()
    found = FoundChanges(())
    if query.includes_accesses:
        accesses = await access_log.listed(
            reads, reader, query.of_accesses, beyond=after.access, newest_first=query.newest_first, maximum=limit + 1
        )
    if query.includes_changes:
        first, last = await asyncio.to_thread(_positions, query, log)
        if after.change is not None:
            first, last = (first, min(last, after.change - 1)) if query.newest_first else (max(first, after.change), last)
        bounds: dict[str, Any] = {"after": first, "until": last, "newest_first": query.newest_first, "maximum": limit + 1}
        if query.key is None:
            found = FoundChanges(await activity.changes(reads, reader, by=query.actor, about=query.object, **bounds))
        else:
            found = await activity.changes_with_key(reads, reader, query.key, by=query.actor, about=query.object, **bounds)
        after = after._replace(change=last + 1) if query.newest_first else after
    return await asyncio.to_thread(
        access_trail.page,
        found.positions,
        accesses,
        searched_to=found.searched_to,
        about=query.object,
        after=after,
        newest_first=query.newest_first,
        limit=limit,
        log=log,
    )


def _positions(query: TrailQuery, log: EventStore) -> tuple[int, int]:
    """The positions in the log after which the time of the query begins, and at which it ends. Blocks. Raises Unavailable."""
    now = datetime.now(UTC)
    head = log.head()
    first = 0 if query.since is None else head if query.since > now else log.position_at(query.since)
    last = head if query.until is None or query.until >= now else log.position_at(query.until)
    return first, last
