"""A collection of images with an owner, and the grants of other users."""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from domain.access import Grant
from domain.errors import Conflict
from domain.events import Event, PrivateText, State, changed, fields_set, new_stream, next_event
from domain.values import MAX_DESCRIPTION, MAX_NAME, changed_text, optional_multiline_text, text

MAX_TEAMS: Final = 100


class DatasetCreated(Event, frozen=True, kw_only=True):
    name: PrivateText
    description: PrivateText | None
    owner_id: UUID


class DatasetDescribed(Event, frozen=True, kw_only=True):
    """Omitted fields did not change; null clears a field."""

    name: PrivateText | UnsetType = UNSET
    description: PrivateText | None | UnsetType = UNSET


class DatasetShared(Event, frozen=True, kw_only=True):
    user_id: UUID
    grant: Grant


class DatasetShareWithdrawn(Event, frozen=True, kw_only=True):
    user_id: UUID


class DatasetSharedWithTeam(Event, frozen=True, kw_only=True):
    team_id: UUID
    grant: Grant


class DatasetTeamShareWithdrawn(Event, frozen=True, kw_only=True):
    team_id: UUID


class DatasetTransferred(Event, frozen=True, kw_only=True):
    """The dataset has another owner. The previous one keeps the grant of an editor."""

    owner_id: UUID
    previous_owner_id: UUID


class DatasetDeleted(Event, frozen=True, kw_only=True):
    pass


CLOSING = (DatasetDeleted,)


class Dataset(State, frozen=True, kw_only=True):
    name: str
    description: str | None
    owner_id: UUID
    created_at: datetime
    grants: dict[UUID, Grant]
    team_grants: dict[UUID, Grant] = msgspec.field(default_factory=dict)
    deleted: bool = False


def create(dataset: UUID, *, name: str, description: str | None, by: UUID, at: datetime) -> DatasetCreated:
    return DatasetCreated(
        **new_stream(dataset, by=by, at=at),
        name=text(name, name="name", maximum=MAX_NAME),
        description=optional_multiline_text(description, name="description", maximum=MAX_DESCRIPTION),
        owner_id=by,
    )


def describe(
    dataset: Dataset, *, name: str | UnsetType = UNSET, description: str | None | UnsetType = UNSET, by: UUID, at: datetime
) -> list[DatasetDescribed]:
    if name is not UNSET:
        name = changed_text(name, dataset.name, name="name", maximum=MAX_NAME)
    if description is not UNSET:
        description = changed(optional_multiline_text(description, name="description", maximum=MAX_DESCRIPTION), dataset.description)
    if name is UNSET and description is UNSET:
        return []
    return [DatasetDescribed(**next_event(dataset, by=by, at=at), name=name, description=description)]


def share(dataset: Dataset, *, user: UUID, grant: Grant, by: UUID, at: datetime) -> list[DatasetShared]:
    if user == dataset.owner_id or grant is Grant.OWNER:
        raise Conflict("A dataset has exactly one owner, and the owner's grant cannot be changed")
    return [] if dataset.grants.get(user) is grant else [DatasetShared(**next_event(dataset, by=by, at=at), user_id=user, grant=grant)]


def withdraw(dataset: Dataset, *, user: UUID, by: UUID, at: datetime) -> list[DatasetShareWithdrawn]:
    if user == dataset.owner_id:
        raise Conflict("A dataset has exactly one owner, and the owner's grant cannot be changed")
    return [DatasetShareWithdrawn(**next_event(dataset, by=by, at=at), user_id=user)] if user in dataset.grants else []


def share_with_team(dataset: Dataset, *, team: UUID, grant: Grant, by: UUID, at: datetime) -> list[DatasetSharedWithTeam]:
    if grant is Grant.OWNER:
        raise Conflict("A dataset has exactly one owner, who is a user")
    if dataset.team_grants.get(team) is grant:
        return []
    if team not in dataset.team_grants and len(dataset.team_grants) >= MAX_TEAMS:
        raise Conflict(f"A dataset is shared with at most {MAX_TEAMS} teams: withdraw the share of one first")
    return [DatasetSharedWithTeam(**next_event(dataset, by=by, at=at), team_id=team, grant=grant)]


def withdraw_from_team(dataset: Dataset, *, team: UUID, by: UUID, at: datetime) -> list[DatasetTeamShareWithdrawn]:
    return [DatasetTeamShareWithdrawn(**next_event(dataset, by=by, at=at), team_id=team)] if team in dataset.team_grants else []


def transfer(dataset: Dataset, *, owner: UUID, by: UUID, at: datetime) -> list[DatasetTransferred]:
    """No event if the user is the owner already."""
    if owner == dataset.owner_id:
        return []
    return [DatasetTransferred(**next_event(dataset, by=by, at=at), owner_id=owner, previous_owner_id=dataset.owner_id)]


def delete(dataset: Dataset, *, by: UUID, at: datetime) -> DatasetDeleted:
    return DatasetDeleted(**next_event(dataset, by=by, at=at))


def evolve(dataset: Dataset | None, event: Event) -> Dataset | None:
    match event:
        case DatasetCreated():
            return Dataset(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                description=event.description,
                owner_id=event.owner_id,
                created_at=event.at,
                grants={event.owner_id: Grant.OWNER},
            )
        case _ if dataset is None:
            return None
        case DatasetDescribed():
            return msgspec.structs.replace(dataset, version=event.originator_version, **fields_set(event, "name", "description"))
        case DatasetShared():
            return msgspec.structs.replace(dataset, version=event.originator_version, grants={**dataset.grants, event.user_id: event.grant})
        case DatasetShareWithdrawn():
            grants = {user: grant for user, grant in dataset.grants.items() if user != event.user_id}
            return msgspec.structs.replace(dataset, version=event.originator_version, grants=grants)
        case DatasetSharedWithTeam():
            team_grants = {**dataset.team_grants, event.team_id: event.grant}
            return msgspec.structs.replace(dataset, version=event.originator_version, team_grants=team_grants)
        case DatasetTeamShareWithdrawn():
            team_grants = {team: grant for team, grant in dataset.team_grants.items() if team != event.team_id}
            return msgspec.structs.replace(dataset, version=event.originator_version, team_grants=team_grants)
        case DatasetTransferred():
            grants = {**dataset.grants, event.previous_owner_id: Grant.EDITOR, event.owner_id: Grant.OWNER}
            return msgspec.structs.replace(dataset, version=event.originator_version, owner_id=event.owner_id, grants=grants)
        case DatasetDeleted():
            return msgspec.structs.replace(dataset, version=event.originator_version, deleted=True)
        case _:
            return msgspec.structs.replace(dataset, version=event.originator_version)
