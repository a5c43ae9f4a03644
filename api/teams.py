"""Team routes: users who share grants on datasets, and the right to promote models."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from api.query_parameters import MIN_POSITION, only_known_parameters
from api.request import PageSize, RequestContext, from_row
from application import teams
from projections import teams as read_model

EmailAddress = Annotated[str, Meta(max_length=100)]


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """Users who share the grants of the team."""

    id: UUID
    name: str
    owner_id: UUID
    owner_username: str | None
    created_at: datetime
    members: int


class TeamWithMembers(msgspec.Struct, frozen=True, kw_only=True):
    """A team, and who is in it."""

    id: UUID
    name: str
    owner_id: UUID
    owner_username: str | None
    created_at: datetime
    members: list[read_model.Member]


class CreateTeam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new team."""

    name: str


class CreatedTeam(msgspec.Struct, frozen=True):
    """The new team."""

    id: UUID
    name: str


class RenameTeam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The new name of a team."""

    name: str


class AddMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The account to add, by its e-mail address."""

    email: EmailAddress


class Teams(Controller):
    path = "/api/teams"
    tags = ("teams",)

    @get("/", guards=[only_known_parameters(MIN_POSITION)], operation_id="teamsListed", summary="List teams")
    async def list_teams(
        self, context: NamedDependency[RequestContext], page_size: PageSize = 200, cursor: FromQuery[str | None] = None
    ) -> Response[list[Team]]:
        """The teams that you own or are a member of, newest first. Administrators see all teams."""
        return context.page(await context.read(read_model.listed, cursor=cursor, size=page_size), lambda row: from_row(row, Team))

    @post("/", summary="Create a team")
    async def create(self, context: NamedDependency[RequestContext], data: JSONBody[CreateTeam]) -> Response[CreatedTeam]:
        """Create a team that you own, and whose first member you are. Needs the role researcher."""
        result = await context.execute(teams.create, name=data.name)
        return context.created(CreatedTeam(result.id, data.name), result)

    @get("/{team_id:uuid}", operation_id="teamsOne", summary="Read a team")
    async def get_team(self, context: NamedDependency[RequestContext], team_id: FromPath[UUID]) -> Response[TeamWithMembers]:
        """One team with its members. For its members and administrators."""
        row = await context.read(read_model.get, team_id)
        return context.versioned(await _shown(context, row), version=row.version)

    @patch("/{team_id:uuid}", summary="Rename a team")
    async def rename(
        self, context: NamedDependency[RequestContext], team_id: FromPath[UUID], data: JSONBody[RenameTeam]
    ) -> Response[TeamWithMembers]:
        """For the owner with the role researcher, and administrators."""
        result = await context.execute(teams.rename, team_id, name=data.name, expected=context.expected_version)
        return context.changed(await _shown(context, await context.read(read_model.get, team_id)), result)

    @delete("/{team_id:uuid}", status_code=204, summary="Delete a team")
    async def remove(self, context: NamedDependency[RequestContext], team_id: FromPath[UUID]) -> Response[None]:
        """End the team and all that its members may do through it. For the owner with the role researcher, and administrators."""
        return context.no_content(await context.execute(teams.delete, team_id, expected=context.expected_version))

    @post("/{team_id:uuid}/members", status_code=204, summary="Add a member by e-mail address")
    async def add_by_address(
        self, context: NamedDependency[RequestContext], team_id: FromPath[UUID], data: JSONBody[AddMember]
    ) -> Response[None]:
        """Add the account with exactly this e-mail address. For the owner with the role researcher, and administrators."""
        return context.no_content(await context.execute(teams.add_member_by_address, team_id, email=data.email))

    @put("/{team_id:uuid}/members/{user_id:uuid}", status_code=204, summary="Add a member")
    async def add(self, context: NamedDependency[RequestContext], team_id: FromPath[UUID], user_id: FromPath[UUID]) -> Response[None]:
        """Give an account the grants of the team. For the owner with the role researcher, and administrators."""
        return context.no_content(await context.execute(teams.add_member, team_id, user_id=user_id, expected=context.expected_version))

    @delete("/{team_id:uuid}/members/{user_id:uuid}", status_code=204, summary="Remove a member")
    async def remove_member(
        self, context: NamedDependency[RequestContext], team_id: FromPath[UUID], user_id: FromPath[UUID]
    ) -> Response[None]:
        """Take the grants of the team from an account. Members may remove themselves. An account that is no member is not an error."""
        return context.no_content(await context.execute(teams.remove_member, team_id, user_id=user_id, expected=context.expected_version))


async def _shown(context: RequestContext, row: read_model.Team) -> TeamWithMembers:
    return from_row(row, TeamWithMembers, members=await context.read(read_model.members, row.id))
