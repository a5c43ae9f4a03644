"""The read model of registrations whose address is not verified yet. Private fields stay in the log."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.registration import RegistrationCompleted, RegistrationDiscarded, RegistrationRequested
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


class RegistrationRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    requested_at: datetime


def fold(_: UUID, __: RegistrationRow | None, positioned: PositionedEvent, ___: RowLookup) -> RegistrationRow | None:
    event = positioned.event
    return RegistrationRow(id=event.originator_id, requested_at=event.at) if isinstance(event, RegistrationRequested) else None


TABLE = Table("registrations", RegistrationRow, (RegistrationRequested, RegistrationCompleted, RegistrationDiscarded), stream_key, fold)
