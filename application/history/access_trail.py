"""The whole trail as it was recorded: what was changed, from the log, and who was refused or read something, from the trail of access."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from application.history.access_records import AccessOutcome, ShownAccess, TrailKind
from application.history.access_sentences import access_sentence, actor_of, names_for
from application.history.audit import Entry, described
from application.ports import EventStore
from domain.errors import Invalid

MAX_DIGITS: Final = 18


class TrailCursor(NamedTuple):
    """The end of a page: the last positions in the log and in the trail of access; None if the page has none."""

    change: int | None = None
    access: int | None = None

    def __str__(self) -> str:
        return ".".join("" if position is None else str(position) for position in self)


class TrailItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the trail. `position` counts in the log for a change, otherwise in the trail of access.

    `type` is that of the event of a change. `count` is the number of requests that an access stands for.
    """

    at: datetime
    kind: TrailKind
    outcome: AccessOutcome
    sentence: str
    position: int
    actor: dict[str, Any]
    key: UUID | None = None
    object: UUID | None = None
    dataset: UUID | None = None
    type: str = ""
    route: str = ""
    request_id: str = ""
    address: str | None = None
    count: int = 1


class TrailPage(msgspec.Struct, frozen=True, kw_only=True):
    """The items of one page, and the cursor of the next one; None on the last page."""

    items: list[TrailItem]
    next_cursor: TrailCursor | None


def parsed_cursor(text: str | None) -> TrailCursor:
    """Raises Invalid."""
    parts = [] if text is None else text.split(".")
    if text is None:
        return TrailCursor()
    if len(parts) != 2 or not all(part == "" or (part.isascii() and part.isdecimal() and len(part) <= MAX_DIGITS) for part in parts):
        raise Invalid(
            "This cursor is not valid for this list: use the value of X-Next-Cursor",
            errors=[{"loc": ["query", "cursor"], "msg": "must be the value of X-Next-Cursor"}],
        )
    change, access = (int(part) if part else None for part in parts)
    return TrailCursor(change, access)


def page(
    changes: Sequence[int],
    accesses: Sequence[ShownAccess],
    *,
    searched_to: int | None = None,
    about: UUID | None,
    after: TrailCursor,
    newest_first: bool,
    limit: int,
    log: EventStore,
) -> TrailPage:
    """The first `limit` of the events at the positions `changes` and of the accesses, each in the order of its positions. Blocks.

    The two are merged by time. The page ends at the event at `searched_to`, if the search for changes ended there. Raises Unavailable.
    """
    last = () if searched_to is None or searched_to in changes else (searched_to,)
    entries = {entry.position: entry for entry in described(log.at([*changes, *last]), about=about, log=log)}
    names = names_for(accesses, log)
    events, records = [of_change(entries[one]) for one in (*changes, *last) if one in entries], [of_access(one, names) for one in accesses]
    items: list[TrailItem] = []
    change, access = after
    if newest_first and access is None and accesses:
        access = accesses[0].position + 1  # what is recorded from now on belongs to no later page
    while len(items) < limit and (events or records):
        if _is_event_next(events, records, newest_first=newest_first):
            event = events.pop(0)
            change = event.position
            if change not in last:
                items.append(event)
            if change == searched_to:
                return TrailPage(items=items, next_cursor=TrailCursor(change, access))
        else:
            items.append(records.pop(0))
            access = items[-1].position
    return TrailPage(items=items, next_cursor=TrailCursor(change, access) if events or records else None)


def _is_event_next(events: Sequence[TrailItem], records: Sequence[TrailItem], *, newest_first: bool) -> bool:
    if not (events and records):
        return bool(events)
    return events[0].at >= records[0].at if newest_first else events[0].at <= records[0].at


def of_change(entry: Entry) -> TrailItem:
    return TrailItem(
        at=entry.at,
        kind=TrailKind.CHANGE,
        outcome=AccessOutcome.ALLOWED,
        sentence=entry.sentence,
        position=entry.position,
        actor=entry.actor,
        key=UUID(str(entry.actor["key"])) if entry.actor.get("key") else None,
        object=entry.stream,
        type=entry.type,
    )


def of_access(access: ShownAccess, names: dict[UUID, str]) -> TrailItem:
    actor: dict[str, Any] = {"kind": access.actor_kind}
    if access.actor_id is not None:
        actor |= {"id": str(access.actor_id), "name": actor_of(access.actor_id, access.actor_kind, names)}
    return TrailItem(
        at=access.at,
        kind=TrailKind(access.kind),
        outcome=access.outcome,
        sentence=access_sentence(access, names),
        position=access.position,
        actor=actor,
        key=access.key_id,
        object=access.object_id,
        dataset=access.dataset_id,
        route=access.route,
        request_id=access.request_id,
        address=access.address,
        count=access.count,
    )
