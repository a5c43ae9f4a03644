"""The read model of models: their versions, and which one is in production."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.errors import NotFound
from domain.model import PRODUCTION, ModelAliasMoved, ModelRetired, ModelVersionAdded, with_alias
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    sha256: str
    size: int
    labels: tuple[str, ...]
    review_below: float
    added_at: datetime


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    name: str
    description: str
    versions: tuple[ModelVersion, ...]
    aliases: dict[str, int]
    created_at: datetime
    retired: bool

    @property
    def production(self) -> ModelVersion | None:
        return next((one for one in self.versions if one.number == self.aliases.get(PRODUCTION)), None)


def fold(_: UUID, row: Model | None, positioned: PositionedEvent, __: RowLookup) -> Model | None:
    event = positioned.event
    if row is not None:
        row = msgspec.structs.replace(row, version=event.originator_version)
    match event, row:
        case ModelVersionAdded(), None:
            return Model(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                description=event.description,
                versions=(_added(event),),
                aliases={PRODUCTION: event.version.number},
                created_at=event.at,
                retired=False,
            )
        case ModelVersionAdded(), Model():
            return msgspec.structs.replace(row, versions=(*row.versions, _added(event)), description=event.description)
        case ModelAliasMoved(), Model():
            return msgspec.structs.replace(row, aliases=with_alias(row.aliases, event.alias, event.number))
        case ModelRetired(), Model():
            return msgspec.structs.replace(row, retired=True)
        case _:
            return row


def _added(event: ModelVersionAdded) -> ModelVersion:
    version = event.version
    return ModelVersion(
        number=version.number,
        sha256=version.sha256,
        size=version.size,
        labels=version.labels,
        review_below=version.review_below,
        added_at=event.at,
    )


TABLE = Table("models", Model, (ModelVersionAdded, ModelAliasMoved, ModelRetired), stream_key, fold)

LISTED = "select * from models where not retired order by name, id"
GET = "select * from models where id::text = %(name_or_id)s or name = %(name_or_id)s order by retired, name limit 1"


async def listed(db: QueryDatabase) -> list[Model]:
    """All models that are not retired, by name. Every authenticated user may see them."""
    return await db.rows(LISTED, {}, into=Model)


async def names(db: QueryDatabase) -> list[str]:
    return [model.name for model in await listed(db)]


async def get(db: QueryDatabase, *, name_or_id: str) -> Model:
    """A model, including a retired one. Raises NotFound."""
    found = await db.rows(GET, {"name_or_id": name_or_id}, into=Model)
    if not found:
        raise NotFound("Model not found")
    return found[0]
