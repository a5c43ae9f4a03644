"""The read model of models: their versions with the reports of checks, and which version each alias points to."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain import model
from domain.errors import NotFound
from domain.events import Event
from domain.model import (
    PRODUCTION,
    Addition,
    ModelAliasMoved,
    ModelPromoterAdded,
    ModelPromoterRemoved,
    ModelPromoterTeamAdded,
    ModelPromoterTeamRemoved,
    ModelRetired,
    ModelVersionAdded,
    OutputKind,
    Version,
    first_aliases,
    shared_description,
    with_alias,
)
from domain.model_check import CheckReport, Environment, ModelCheckFailed, ModelCheckPassed
from projections.engine.projection import PositionedEvent, RowLookup, Table

MAX_CHECKS = 20  # kept of one version, one of each environment


class VersionCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest check of a version's package in one environment: its `report`, or `detail` if it failed.

    `environment` is None for a failure before anything ran; the next check replaces it.
    """

    environment: Environment | None
    at: datetime
    report: CheckReport | None = None
    code: str | None = None
    detail: str | None = None


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`digest`, `package`, `kind`, `label_texts` and `release` as in the event; `unit` and `label_threshold` as in the manifest.

    `description` is None for a version of release 0.2.0, which has that of the row. `checks`: the newest last.
    """

    number: int
    sha256: str
    size: int
    labels: tuple[str, ...]
    review_below: float
    added_at: datetime
    added_by: UUID | None = None
    digest: str = ""
    package: str = ""
    kind: OutputKind = OutputKind.LOGITS
    label_texts: dict[str, str] = {}
    release: str = ""
    unit: str = ""
    label_threshold: float | None = None
    description: str | None = None
    checks: tuple[VersionCheck, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`promoters`, and the members of `promoter_teams`, may move the aliases and retire the model; None if there are none.

    `description` is that of versions without their own.
    """

    id: UUID
    version: int
    name: str
    description: str
    versions: tuple[ModelVersion, ...]
    aliases: dict[str, int]
    created_at: datetime
    retired: bool
    promoters: tuple[UUID, ...] | None = None
    promoter_teams: tuple[UUID, ...] | None = None

    @property
    def production(self) -> ModelVersion | None:
        return next((one for one in self.versions if one.number == self.aliases.get(PRODUCTION)), None)

    def description_of(self, version: ModelVersion) -> str:
        return self.description if version.description is None else version.description


def row_of(state: model.Model) -> Model:
    """A state from the log as a row, without the checks, which are not in the model's stream."""
    return Model(
        id=state.id,
        version=state.version,
        name=state.name,
        description=state.description,
        versions=tuple(_version(one, state.additions[one.number]) for one in state.versions),
        aliases=state.aliases,
        created_at=state.created_at,
        retired=state.retired,
        promoters=tuple(sorted(state.promoters)) or None,
        promoter_teams=tuple(sorted(state.promoter_teams)) or None,
    )


def keys(positioned: PositionedEvent) -> Iterable[UUID]:
    match positioned.event:
        case ModelCheckPassed() as event:
            return (event.model_id,)
        case ModelCheckFailed() as event:
            return (event.model_id,) if event.model_id else ()
        case event:
            return (event.originator_id,)


def fold(_: UUID, row: Model | None, positioned: PositionedEvent, lookup: RowLookup) -> Model | None:
    event = positioned.event
    if row is None:
        return _begun(event) if isinstance(event, ModelVersionAdded) else None
    if isinstance(event, ModelCheckPassed | ModelCheckFailed):
        check = lookup("model_checks", event.originator_id)
        package = check.sha256 if check else None
        return msgspec.structs.replace(row, versions=tuple(_checked(one, package, event) for one in row.versions))
    return msgspec.structs.replace(row, version=event.originator_version, **_changes(row, event))


def _begun(event: ModelVersionAdded) -> Model:
    return Model(
        id=event.originator_id,
        version=event.originator_version,
        name=event.name,
        description=event.description,
        versions=(_added(event),),
        aliases=first_aliases(event.version),
        created_at=event.at,
        retired=False,
    )


def _changes(row: Model, event: Event) -> dict[str, Any]:
    match event:
        case ModelVersionAdded():
            return {"versions": (*row.versions, _added(event)), "description": shared_description(row.description, event)}
        case ModelAliasMoved():
            return {"aliases": with_alias(row.aliases, event.alias, event.number)}
        case ModelRetired():
            return {"retired": True}
        case ModelPromoterAdded():
            return {"promoters": (*(row.promoters or ()), event.user_id)}
        case ModelPromoterRemoved():
            return {"promoters": tuple(one for one in row.promoters or () if one != event.user_id) or None}
        case ModelPromoterTeamAdded():
            return {"promoter_teams": (*(row.promoter_teams or ()), event.team_id)}
        case ModelPromoterTeamRemoved():
            return {"promoter_teams": tuple(one for one in row.promoter_teams or () if one != event.team_id) or None}
        case _:
            return {}


def _added(event: ModelVersionAdded) -> ModelVersion:
    return _version(event.version, event.addition)


def _version(version: Version, addition: Addition) -> ModelVersion:
    return ModelVersion(
        number=version.number,
        sha256=version.sha256,
        size=version.size,
        labels=version.labels,
        review_below=version.review_below,
        added_at=addition.at,
        added_by=addition.by,
        digest=version.digest,
        package=version.package,
        kind=version.kind,
        label_texts=version.label_texts,
        release=version.release,
        unit=version.unit,
        label_threshold=version.label_threshold,
        description=addition.description,
    )


def _checked(version: ModelVersion, package: str | None, event: ModelCheckPassed | ModelCheckFailed) -> ModelVersion:
    """A check of another package, with the same network and manifest, says nothing about the test tensors of the version's own."""
    if (version.number, version.package) != (event.number, package):
        return version
    if isinstance(event, ModelCheckPassed):
        found = VersionCheck(environment=event.report.environment, at=event.at, report=event.report)
    else:
        found = VersionCheck(environment=event.environment, at=event.at, code=event.code, detail=event.detail)
    others = [known for known in version.checks if known.environment not in (found.environment, None)]
    return msgspec.structs.replace(version, checks=(*others, found)[-MAX_CHECKS:])


KINDS = (
    ModelVersionAdded,
    ModelAliasMoved,
    ModelRetired,
    ModelPromoterAdded,
    ModelPromoterRemoved,
    ModelPromoterTeamAdded,
    ModelPromoterTeamRemoved,
    ModelCheckPassed,
    ModelCheckFailed,
)
TABLE = Table("models", Model, KINDS, keys, fold)

LISTED = "select * from models where %(retired)s or not retired order by name, id"
GET = "select * from models where id::text = %(name_or_id)s or name = %(name_or_id)s order by name = %(name_or_id)s limit 1"


async def listed(db: QueryDatabase, *, retired: bool = False) -> list[Model]:
    """All models by name, without retired ones unless `retired`. Every authenticated user may see them."""
    return await db.rows(LISTED, {"retired": retired}, into=Model)


async def get(db: QueryDatabase, *, name_or_id: str) -> Model:
    """A model, including a retired one. Raises NotFound."""
    found = await db.rows(GET, {"name_or_id": name_or_id}, into=Model)
    if not found:
        raise NotFound("Model not found")
    return found[0]
