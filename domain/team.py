"""A team: users who share the grants that the team holds on datasets and models."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import UNSET

from domain.errors import Conflict
from domain.events import Event, PrivateText, State, new_stream, next_event
from domain.values import MAX_NAME, changed_text, text

MAX_MEMBERS: Final = 500


class TeamCreated(Event, frozen=True, kw_only=True):
    """`owner_id` may rename and delete the team, and choose its members, of whom it is the first."""

    name: PrivateText
    owner_id: UUID


class TeamRenamed(Event, frozen=True, kw_only=True):
    name: PrivateText


class TeamMemberAdded(Event, frozen=True, kw_only=True):
    user_id: UUID


class TeamMemberRemoved(Event, frozen=True, kw_only=True):
    user_id: UUID


class TeamDeleted(Event, frozen=True, kw_only=True):
    """The grants of the team end."""


CLOSING = (TeamDeleted,)


class Team(State, frozen=True, kw_only=True):
    name: str
    owner_id: UUID
    created_at: datetime
    members: frozenset[UUID]
    deleted: bool = False

    def has(self, user: UUID) -> bool:
        """Whether the user has the grants of the team."""
        return user in self.members and not self.deleted


def create(team: UUID, *, name: str, by: UUID, at: datetime) -> TeamCreated:
    """Raises Invalid for an invalid name."""
    return TeamCreated(**new_stream(team, by=by, at=at), name=text(name, name="name", maximum=MAX_NAME), owner_id=by)


def rename(team: Team, *, name: str, by: UUID, at: datetime) -> list[TeamRenamed]:
    """Raises Invalid for an invalid name."""
    cleaned = changed_text(name, team.name, name="name", maximum=MAX_NAME)
    return [] if cleaned is UNSET else [TeamRenamed(**next_event(team, by=by, at=at), name=cleaned)]


def add_member(team: Team, *, user: UUID, by: UUID, at: datetime) -> list[TeamMemberAdded]:
    """Raises Conflict for a full team."""
    if user in team.members:
        return []
    if len(team.members) >= MAX_MEMBERS:
        raise Conflict(f"A team has at most {MAX_MEMBERS} members")
    return [TeamMemberAdded(**next_event(team, by=by, at=at), user_id=user)]


def remove_member(team: Team, *, user: UUID, by: UUID, at: datetime) -> list[TeamMemberRemoved]:
    return [TeamMemberRemoved(**next_event(team, by=by, at=at), user_id=user)] if user in team.members else []


def delete(team: Team, *, by: UUID, at: datetime) -> list[TeamDeleted]:
    return [] if team.deleted else [TeamDeleted(**next_event(team, by=by, at=at))]


def evolve(team: Team | None, event: Event) -> Team | None:
    match event:
        case TeamCreated():
            return Team(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                owner_id=event.owner_id,
                created_at=event.at,
                members=frozenset({event.owner_id}),
            )
        case _ if team is None:
            return None
        case TeamRenamed():
            return msgspec.structs.replace(team, version=event.originator_version, name=event.name)
        case TeamMemberAdded():
            return msgspec.structs.replace(team, version=event.originator_version, members=team.members | {event.user_id})
        case TeamMemberRemoved():
            return msgspec.structs.replace(team, version=event.originator_version, members=team.members - {event.user_id})
        case TeamDeleted():
            return msgspec.structs.replace(team, version=event.originator_version, deleted=True)
        case _:
            return msgspec.structs.replace(team, version=event.originator_version)
