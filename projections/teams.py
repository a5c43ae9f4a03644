"""The read models of teams and of their members, and the queries of them."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor, Role, require_role
from domain.team import TeamCreated, TeamDeleted, TeamMemberAdded, TeamMemberRemoved, TeamRenamed
from projections.access import ADMINISTRATORS, subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, only_row, page_of, page_size, parse_cursor


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


# ---- queries -------------------------------------------------------------------------------------------------------------------------
class Team(msgspec.Struct, frozen=True, kw_only=True):
    """A team as one of its members sees it."""

    id: UUID
    version: int
    name: str
    owner_id: UUID
    owner_username: str | None
    created_at: datetime
    members: int


class Member(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UUID
    username: str | None


class Name(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str


TEAM: Final = """select t.id, t.version, t.name, t.owner_id, u.username as owner_username, t.created_at,
    (select count(*) from team_members m where m.team = t.id) as members
  from teams t left join users u on u.id = t.owner_id where not t.deleted
    and (%(subject)s = %(administrators)s or t.owner_id = %(subject)s
      or exists (select from team_members m where m.team = t.id and m.member = %(subject)s))"""
GET: Final = TEAM + " and t.id = %(id)s"
LISTED: Final = (
    TEAM
    + """ and (%(at)s::timestamptz is null or (t.created_at, t.id) < (%(at)s::timestamptz, %(after)s::uuid))
  order by t.created_at desc, t.id desc limit %(maximum)s"""
)
MEMBERS_OF: Final = """select m.member as user_id, u.username from team_members m left join users u on u.id = m.member
  where m.team = %(id)s order by u.username, m.member"""
NAMES: Final = "select id, name from teams where id = any(%(ids)s)"


async def get(db: QueryDatabase, actor: Actor, team_id: UUID) -> Team:
    """A team that the actor owns or is a member of; any team for administrators. Raises NotFound."""
    return await only_row(db, GET, _reader(actor) | {"id": team_id}, into=Team, what="Team")


async def listed(db: QueryDatabase, actor: Actor, *, cursor: str | None = None, size: int = MAX_PAGE) -> Page[Team]:
    """A page of the teams that `get` shows, newest first."""
    after, maximum = parse_cursor(cursor), page_size(size)
    found = await db.rows(LISTED, _reader(actor) | {"at": after.value, "after": after.id, "maximum": maximum + 1}, into=Team)
    return page_of(found, maximum, lambda team: team.created_at)


async def members(db: QueryDatabase, actor: Actor, team_id: UUID) -> list[Member]:
    """The members of a team, by user name. Raises NotFound as `get` does."""
    await get(db, actor, team_id)
    return await db.rows(MEMBERS_OF, {"id": team_id}, into=Member)


async def names(db: QueryDatabase, actor: Actor, ids: Collection[UUID]) -> dict[UUID, str]:
    """The names of teams, deleted ones included. Shown beside what everyone may see, such as models.

    Raises Forbidden unless `actor` is a user.
    """
    require_role(actor, Role.VIEWER)
    found = await db.rows(NAMES, {"ids": list(ids)}, into=Name) if ids else []
    return {one.id: one.name for one in found}


def _reader(actor: Actor) -> dict[str, object]:
    return {"subject": subject_of(actor), "administrators": ADMINISTRATORS}
