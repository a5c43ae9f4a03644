"""Model routes: the models that a job can use."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.model_checks import PackageUpload
from api.request import RequestContext, from_row
from projections import models as read_model
from projections.models import ModelVersion


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that images can be classified with. A run uses its version in production."""

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


def view(row: read_model.Model) -> Model:
    version = row.production
    return from_row(
        row,
        Model,
        production=version.number if version else None,
        labels=version.labels if version else (),
        review_below=version.review_below if version else None,
        sha256=version.sha256 if version else None,
    )


class Models(PackageUpload):
    path = "/api/models"
    tags = ("models",)

    @get("/", operation_id="modelsListed", summary="List models")
    async def list_models(self, context: NamedDependency[RequestContext]) -> list[Model]:
        """The models that can be run, by name. Retired models are left out."""
        return [view(row) for row in await context.read(lambda db, _: read_model.listed(db))]

    @get("/{name_or_id:str}", operation_id="modelsOne", summary="Read a model")
    async def get_model(self, context: NamedDependency[RequestContext], name_or_id: FromPath[str]) -> Response[Model]:
        """One model with all its versions, retired models included."""
        row = await context.read(lambda db, _: read_model.get(db, name_or_id=name_or_id))
        return context.versioned(view(row), version=row.version)
