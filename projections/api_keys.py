"""The read model of API keys. Their names, which are private, stay in the log."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.api_key import KeyIssued, KeyRevoked, KeyRotated, OwnerKind
from domain.errors import Conflict, Forbidden
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, page_of, page_size, parse_cursor

MAX_WORKING_KEYS: Final = 100  # of one owner


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    owner_id: UUID
    owner_kind: OwnerKind
    scopes: tuple[str, ...]
    dataset_ids: tuple[UUID, ...] | None
    issued_by: UUID
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


def fold(_: UUID, row: KeyRow | None, positioned: PositionedEvent, __: RowLookup) -> KeyRow | None:
    event = positioned.event
    match event, row:
        case KeyIssued(), _:
            return KeyRow(
                id=event.originator_id,
                version=event.originator_version,
                owner_id=event.owner_id,
                owner_kind=event.owner_kind,
                scopes=event.scopes,
                dataset_ids=event.dataset_ids,
                issued_by=event.by,
                issued_at=event.at,
                expires_at=event.expires_at,
                revoked_at=None,
            )
        case KeyRotated(), KeyRow():
            return msgspec.structs.replace(row, version=event.originator_version, expires_at=event.expires_at)
        case KeyRevoked(), KeyRow():
            return msgspec.structs.replace(row, version=event.originator_version, revoked_at=event.at)
        case _:
            return row


TABLE = Table("api_keys", KeyRow, (KeyIssued, KeyRotated, KeyRevoked), stream_key, fold)

LISTED = """select * from api_keys
  where (%(owner)s::uuid is null or owner_id = %(owner)s::uuid)
    and (%(at)s::timestamptz is null or (issued_at, id) < (%(at)s::timestamptz, %(after)s::uuid))
  order by issued_at desc, id desc limit %(maximum)s"""
WORKING = "select count(*) as count from api_keys where owner_id = %(owner)s and revoked_at is null and expires_at > %(now)s"


class Count(msgspec.Struct, frozen=True, kw_only=True):
    count: int


async def listed(
    db: QueryDatabase, actor: Actor, *, owner: UUID | None = None, everyone: bool = False, cursor: str | None = None, size: int = MAX_PAGE
) -> Page[KeyRow]:
    """A page of keys, the newest first: those of the actor, of another `owner`, or of `everyone`.

    Raises Forbidden unless the keys are the actor's own, or the actor is an administrator.
    """
    wanted = None if everyone and owner is None else owner or actor.id
    if wanted != actor.id and not (actor.is_admin or actor.is_system):
        raise Forbidden("Only administrators can list the keys of others")
    after, maximum = parse_cursor(cursor), page_size(size)
    found = await db.rows(LISTED, {"owner": wanted, "at": after.value, "after": after.id, "maximum": maximum + 1}, into=KeyRow)
    return page_of(found, maximum, lambda key: key.issued_at)


async def working(db: QueryDatabase, actor: Actor, *, owner: UUID, now: datetime) -> int:
    """How many keys of an owner work. Raises Forbidden as `listed` does."""
    if owner != actor.id and not (actor.is_admin or actor.is_system):
        raise Forbidden("Only administrators can list the keys of others")
    [found] = await db.rows(WORKING, {"owner": owner, "now": now}, into=Count)
    return found.count


async def require_room(db: QueryDatabase, actor: Actor, *, owner: UUID, now: datetime) -> None:
    """Raises Conflict if an owner has `MAX_WORKING_KEYS` keys that work, and Forbidden as `listed` does."""
    if await working(db, actor, owner=owner, now=now) >= MAX_WORKING_KEYS:
        raise Conflict(f"There are {MAX_WORKING_KEYS} working keys already; revoke those that are not needed")
