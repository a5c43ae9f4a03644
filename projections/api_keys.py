"""The read model of API keys. Their names, which are private, stay in the log."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.api_key import KeyIssued, KeyRevoked, KeyRotated, OwnerKind
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


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

ACTIVE_COUNT = """select count(*) as count from api_keys
  where owner_id = %(owner)s and revoked_at is null and expires_at > now()"""


class Count(msgspec.Struct, frozen=True):
    count: int


async def active_count(db: QueryDatabase, actor: Actor) -> int:
    """The number of the actor's own keys that are neither revoked nor expired."""
    (found,) = await db.rows(ACTIVE_COUNT, {"owner": actor.id}, into=Count)
    return found.count
