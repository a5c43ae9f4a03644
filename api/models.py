"""Models over HTTP: what may be asked for."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.request import RequestContext
from projections import models as reading
from projections.models import ModelVersion


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`labels`, `review_below` and `sha256` are those of the version in production, which is what a run uses."""

    id: UUID
    name: str
    description: str
    production: int | None
    labels: tuple[str, ...]
    review_below: float | None
    sha256: str | None
    aliases: dict[str, int]
    versions: tuple[ModelVersion, ...]
    created_at: datetime
    retired: bool


def view(row: reading.Model) -> Model:
    chosen = row.production
    return Model(
        id=row.id,
        name=row.name,
        description=row.description,
        production=chosen.number if chosen else None,
        labels=chosen.labels if chosen else (),
        review_below=chosen.review_below if chosen else None,
        sha256=chosen.sha256 if chosen else None,
        aliases=row.aliases,
        versions=row.versions,
        created_at=row.created_at,
        retired=row.retired,
    )


class Models(Controller):
    path = "/api/models"
    tags = ("models",)

    @get("/")
    async def listed(self, call: NamedDependency[RequestContext]) -> list[Model]:
        """By name; those that were retired are not listed."""
        return [view(row) for row in await call.read(lambda db, _: reading.listed(db))]

    @get("/{name_or_id:str}")
    async def one(self, call: NamedDependency[RequestContext], name_or_id: FromPath[str]) -> Response[Model]:
        row = await call.read(lambda db, _: reading.get(db, name_or_id=name_or_id))
        return call.found(view(row), version=row.version)
