"""The read model of service accounts."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.service_account import ServiceAccountCreated, ServiceAccountDeleted
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


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
        case _:
            return row


TABLE = Table("service_accounts", ServiceAccountRow, (ServiceAccountCreated, ServiceAccountDeleted), stream_key, fold)
