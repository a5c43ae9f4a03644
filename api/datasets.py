"""Datasets over HTTP."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from api.request import NamedBody, RequestContext, sent_fields
from application import datasets
from domain.access import Grant
from projections import datasets as reading


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """`grant` is the reader's own."""

    id: UUID
    name: str
    description: str | None
    owner_username: str | None
    created_at: datetime
    owner_id: UUID
    grant: Grant


class CreateDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    description: str | None = None


class DescribeDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str | UnsetType = UNSET
    description: str | None | UnsetType = UNSET


class ShareDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grant: Grant


def view(row: reading.Dataset) -> Dataset:
    return Dataset(
        id=row.id,
        name=row.name,
        description=row.description,
        owner_username=row.owner_username,
        created_at=row.created_at,
        owner_id=row.owner_id,
        grant=row.grant,
    )


class Datasets(Controller):
    path = "/api/datasets"
    tags = ("datasets",)

    @get("/")
    async def listed(
        self, call: NamedDependency[RequestContext], page_size: FromQuery[int] = 200, cursor: FromQuery[str | None] = None
    ) -> Response[list[Dataset]]:
        """One's own and those shared, newest first; all, for an administrator."""
        return call.page(await call.read(reading.listed, cursor=cursor, size=page_size), view)

    @post("/")
    async def create(self, call: NamedDependency[RequestContext], data: JSONBody[CreateDataset]) -> Response[NamedBody]:
        done = await call.do(datasets.create, name=data.name, description=data.description)
        return call.created(NamedBody(done.id, data.name), done)

    @get("/{dataset_id:uuid}")
    async def one(self, call: NamedDependency[RequestContext], dataset_id: FromPath[UUID]) -> Response[Dataset]:
        row = await call.read(reading.get, dataset_id)
        return call.found(view(row), version=row.version)

    @patch("/{dataset_id:uuid}")
    async def describe(
        self, call: NamedDependency[RequestContext], dataset_id: FromPath[UUID], data: JSONBody[DescribeDataset]
    ) -> Response[Dataset]:
        done = await call.do(datasets.describe, dataset_id, **sent_fields(data), expected=call.expected)
        return call.changed(view(await call.read(reading.get, dataset_id)), done)

    @delete("/{dataset_id:uuid}", status_code=204)
    async def remove(self, call: NamedDependency[RequestContext], dataset_id: FromPath[UUID]) -> Response[None]:
        """Its images and results are hidden with it; the record keeps them."""
        return call.gone(await call.do(datasets.delete, dataset_id, expected=call.expected))

    @get("/{dataset_id:uuid}/shares")
    async def shares(self, call: NamedDependency[RequestContext], dataset_id: FromPath[UUID]) -> list[reading.Share]:
        """Who may see it, its owner first."""
        await call.read(reading.get, dataset_id)
        return await call.read(reading.grants, dataset_id)

    @put("/{dataset_id:uuid}/shares/{user_id:uuid}", status_code=204)
    async def share(
        self, call: NamedDependency[RequestContext], dataset_id: FromPath[UUID], user_id: FromPath[UUID], data: JSONBody[ShareDataset]
    ) -> Response[None]:
        return call.gone(await call.do(datasets.share, dataset_id, user_id=user_id, grant=data.grant, expected=call.expected))

    @delete("/{dataset_id:uuid}/shares/{user_id:uuid}", status_code=204)
    async def withdraw(self, call: NamedDependency[RequestContext], dataset_id: FromPath[UUID], user_id: FromPath[UUID]) -> Response[None]:
        return call.gone(await call.do(datasets.withdraw, dataset_id, user_id=user_id, expected=call.expected))
