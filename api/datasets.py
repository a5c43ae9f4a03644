"""Dataset routes."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from api.middleware.authentication import for_services
from api.request import NamedBody, RequestContext, from_row, sent_fields
from application import datasets
from domain.access import Grant, Scope
from projections import datasets as read_model


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
    """What the account may do with the dataset."""

    grant: Grant


def view(row: read_model.Dataset) -> Dataset:
    return from_row(row, Dataset)


FOR_READERS = for_services(Scope.DATASETS_READ)


class Datasets(Controller):
    path = "/api/datasets"
    tags = ("datasets",)

    @get("/", opt=FOR_READERS, operation_id="datasetsListed", summary="List datasets")
    async def list_datasets(
        self, context: NamedDependency[RequestContext], page_size: FromQuery[int] = 200, cursor: FromQuery[str | None] = None
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
        """Hide a dataset with its images and results. The log keeps them. Needs the role researcher and the grant owner."""
        return context.no_content(await context.execute(datasets.delete, dataset_id, expected=context.expected_version))

    @get("/{dataset_id:uuid}/shares", operation_id="datasetsShares", summary="List shares of a dataset")
    async def list_shares(self, context: NamedDependency[RequestContext], dataset_id: FromPath[UUID]) -> list[read_model.Share]:
        """The accounts that may see the dataset, its owner first."""
        await context.read(read_model.get, dataset_id)
        return await context.read(read_model.grants, dataset_id)

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
