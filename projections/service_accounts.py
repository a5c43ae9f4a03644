"""The read model of service accounts."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor, Role, require_role
from domain.service_account import LegacyTokensRevoked, ServiceAccountCreated, ServiceAccountDeleted
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, page_of, page_size, parse_cursor


class ServiceAccountRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    name: str
    created_by: UUID
    created_at: datetime
    deleted: bool


def fold(_: UUID, row: ServiceAccountRow | None, positioned: PositionedEvent, __: RowLookup) -> ServiceAccountRow | None:
    event = positioned.event
    match event, row:
        case ServiceAccountCreated(), _:
            return ServiceAccountRow(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                created_by=event.by,
                created_at=event.at,
                deleted=False,
            )
        case ServiceAccountDeleted(), ServiceAccountRow():
            return msgspec.structs.replace(row, version=event.originator_version, deleted=True)
        case LegacyTokensRevoked(), ServiceAccountRow():
            return msgspec.structs.replace(row, version=event.originator_version)
        case _:
            return row


TABLE = Table("service_accounts", ServiceAccountRow, (ServiceAccountCreated, ServiceAccountDeleted, LegacyTokensRevoked), stream_key, fold)

LISTED = """select * from service_accounts where not deleted
    and (%(at)s::timestamptz is null or (created_at, id) > (%(at)s::timestamptz, %(after)s::uuid))
  order by created_at, id limit %(maximum)s"""


async def listed(db: QueryDatabase, actor: Actor, *, cursor: str | None = None, size: int = MAX_PAGE) -> Page[ServiceAccountRow]:
    """A page of service accounts, the oldest first. Raises Forbidden unless `actor` is an administrator."""
    require_role(actor, Role.ADMIN)
    after, maximum = parse_cursor(cursor), page_size(size)
    found = await db.rows(LISTED, {"at": after.value, "after": after.id, "maximum": maximum + 1}, into=ServiceAccountRow)
    return page_of(found, maximum, lambda service: service.created_at)
