"""Dataset routes."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, Meta, UnsetType

from api.middleware.authentication import for_services
from api.request import NamedBody, PageSize, RequestContext, from_row, sent_fields
from application import datasets
from domain.access import Grant, Scope
from projections import datasets as read_model

EmailAddress = Annotated[str, Meta(max_length=100)]


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A group of images, and who may use them."""

    id: UUID
    name: str
    description: str | None
    owner_username: str | None
    created_at: datetime
    owner_id: UUID
    grant: Grant


class CreateDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new dataset."""

    name: str
    description: str | None = None


class DescribeDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change. Null clears the description."""

    name: str | UnsetType = UNSET
    description: str | None | UnsetType = UNSET


class ShareDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the account or the team may do with the dataset."""

    grant: Grant


class ShareByAddress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The account to share with, by its e-mail address, and what it may do with the dataset."""

    email: EmailAddress
    grant: Grant


class TransferDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The account that owns the dataset from now on."""

    user_id: UUID


def view(row: read_model.Dataset) -> Dataset:
    return from_row(row, Dataset)


FOR_READERS = for_services(Scope.DATASETS_READ)


class Datasets(Controller):
    path = "/api/datasets"
    tags = ("datasets",)

    @get("/", opt=FOR_READERS, operation_id="datasetsListed", summary="List datasets")
    async def list_datasets(
        self, context: NamedDependency[RequestContext], page_size: PageSize = 200, cursor: FromQuery[str | None] = None
    ) -> Response[list[Dataset]]:
        """Your own datasets and those shared with you, newest first. Administrators see all datasets."""
        return context.page(await context.read(read_model.listed, cursor=cursor, size=page_size), view)

    @post("/", summary="Create a dataset")
    async def create(self, context: NamedDependency[RequestContext], data: JSONBody[CreateDataset]) -> Response[NamedBody]:
        """Create an empty dataset that you own. Needs the role analyst."""
        result = await context.execute(datasets.create, name=data.name, description=data.description)
        return context.created(NamedBody(result.id, data.name), result)

    @get("/{dataset_id:uuid}", opt=FOR_READERS, operation_id="datasetsOne", summary="Read a dataset")
    async def get_dataset(self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID]) -> Response[Dataset]:
        """One dataset, with what you may do with it."""
        row = await context.read(read_model.get, dataset_id)
        return context.versioned(view(row), version=row.version)

    @patch("/{dataset_id:uuid}", summary="Update a dataset")
    async def describe(
        self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID], data: JSONBody[DescribeDataset]
    ) -> Response[Dataset]:
        """Change the name or the description. Needs the role analyst and the grant editor."""
        result = await context.execute(datasets.describe, dataset_id, **sent_fields(data), expected=context.expected_version)
        return context.changed(view(await context.read(read_model.get, dataset_id)), result)

    @delete("/{dataset_id:uuid}", status_code=204, summary="Delete a dataset")
    async def remove(self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID]) -> Response[None]:
        """Hide a dataset with its images and results. The log keeps them. For the owner with the role analyst, and administrators."""
        return context.no_content(await context.execute(datasets.delete, dataset_id, expected=context.expected_version))

    @get("/{dataset_id:uuid}/shares", operation_id="datasetsShares", summary="List shares of a dataset")
    async def list_shares(self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID]) -> list[read_model.Share]:
        """The accounts and teams that may see the dataset, its owner first."""
        await context.read(read_model.get, dataset_id)
        return await context.read(read_model.grants, dataset_id)

    @post("/{dataset_id:uuid}/shares", status_code=204, summary="Share a dataset by e-mail address")
    async def share_by_address(
        self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID], data: JSONBody[ShareByAddress]
    ) -> Response[None]:
        """Share with the account that has exactly this e-mail address. Needs the role researcher and the grant owner."""
        return context.no_content(await context.execute(datasets.share_by_address, dataset_id, email=data.email, grant=data.grant))

    @put("/{dataset_id:uuid}/shares/{user_id:uuid}", status_code=204, summary="Share a dataset")
    async def share(
        self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID], user_id: FromPath[UUID], data: JSONBody[ShareDataset]
    ) -> Response[None]:
        """Let an account use the dataset, or change what it may do. Needs the role researcher and the grant owner."""
        return context.no_content(
            await context.execute(datasets.share, dataset_id, user_id=user_id, grant=data.grant, expected=context.expected_version)
        )

    @delete("/{dataset_id:uuid}/shares/{user_id:uuid}", status_code=204, summary="Withdraw a share")
    async def withdraw(
        self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID], user_id: FromPath[UUID]
    ) -> Response[None]:
        """End an account's access to the dataset. Needs the role researcher and the grant owner."""
        return context.no_content(await context.execute(datasets.withdraw, dataset_id, user_id=user_id, expected=context.expected_version))

    @put("/{dataset_id:uuid}/shares/teams/{team_id:uuid}", status_code=204, summary="Share a dataset with a team")
    async def share_with_team(
        self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID], team_id: FromPath[UUID], data: JSONBody[ShareDataset]
    ) -> Response[None]:
        """Let all members of a team use the dataset, also those who join later. Needs the role researcher and the grant owner.

        You must own the team or be a member, unless you are an administrator.
        """
        return context.no_content(
            await context.execute(
                datasets.share_with_team, dataset_id, team_id=team_id, grant=data.grant, expected=context.expected_version
            )
        )

    @delete("/{dataset_id:uuid}/shares/teams/{team_id:uuid}", status_code=204, summary="Withdraw the share of a team")
    async def withdraw_from_team(
        self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID], team_id: FromPath[UUID]
    ) -> Response[None]:
        """End the access of a team. Its members keep grants of their own. Needs the role researcher and the grant owner."""
        return context.no_content(
            await context.execute(datasets.withdraw_from_team, dataset_id, team_id=team_id, expected=context.expected_version)
        )

    @post("/{dataset_id:uuid}/transfer", status_code=204, summary="Transfer a dataset")
    async def transfer(
        self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID], data: JSONBody[TransferDataset]
    ) -> Response[None]:
        """Make another account the owner; the previous one keeps the grant editor. Needs the role researcher and the grant owner.

        The account must be active, with the role analyst or higher.
        """
        return context.no_content(await context.execute(datasets.transfer, dataset_id, user_id=data.user_id))
