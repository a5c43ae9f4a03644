"""The read models of teams and of their members."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from domain.team import TeamCreated, TeamDeleted, TeamMemberAdded, TeamMemberRemoved, TeamRenamed
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


class TeamRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    name: str
    owner_id: UUID
    created_at: datetime
    deleted: bool


def fold(_: UUID, row: TeamRow | None, positioned: PositionedEvent, __: RowLookup) -> TeamRow | None:
    event = positioned.event
    if row is not None:
        row = msgspec.structs.replace(row, version=event.originator_version)
    match event, row:
        case TeamCreated(), _:
            return TeamRow(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                owner_id=event.owner_id,
                created_at=event.at,
                deleted=False,
            )
        case TeamRenamed(), TeamRow():
            return msgspec.structs.replace(row, name=event.name)
        case TeamDeleted(), TeamRow():
            return msgspec.structs.replace(row, deleted=True)
        case _:
            return row


TABLE = Table("teams", TeamRow, (TeamCreated, TeamRenamed, TeamMemberAdded, TeamMemberRemoved, TeamDeleted), stream_key, fold)


# ---- members -------------------------------------------------------------------------------------------------------------------------
class Membership(msgspec.Struct, frozen=True, kw_only=True):
    team: UUID
    member: UUID


def member_keys(positioned: PositionedEvent) -> Iterable[tuple[UUID, UUID]]:
    match positioned.event:
        case TeamCreated() as event:
            return ((event.originator_id, event.owner_id),)
        case TeamMemberAdded() | TeamMemberRemoved() as event:
            return ((event.originator_id, event.user_id),)
        case _:
            return ()


def member_fold(key: tuple[UUID, UUID], _: Membership | None, positioned: PositionedEvent, __: RowLookup) -> Membership | None:
    team, member = key
    return None if isinstance(positioned.event, TeamMemberRemoved) else Membership(team=team, member=member)


MEMBERS = Table(
    "team_members",
    Membership,
    (TeamCreated, TeamMemberAdded, TeamMemberRemoved),
    member_keys,
    member_fold,
    key=("team", "member"),
    loads=False,
)
