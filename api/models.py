"""Model routes: versions and the aliases that point to them, their history, who may promote them, and their packages."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream
from msgspec import Meta

from api.events import After
from api.middleware.authentication import for_services
from api.model_checks import PackageUpload
from api.request import PageSize, RequestContext, from_row
from application import model_packages, models
from application.commands import CommandResult
from application.history.as_of import position_of
from application.history.past_models import PastModels
from application.signed_downloads import content_disposition
from domain.access import Scope
from domain.declaration import declare
from domain.model import OutputKind
from domain.model_check import CheckReport, Environment
from projections import models as read_model
from projections import teams, users

ZIP = "application/zip"


class VersionCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The newest check of a version in one environment."""

    environment: Environment | None
    at: datetime
    report: CheckReport | None
    code: str | None
    detail: str | None


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model. It never changes."""

    number: int
    description: str
    release: str | None
    kind: OutputKind
    unit: str | None
    label_threshold: float | None
    labels: tuple[str, ...]
    label_texts: dict[str, str]
    review_below: float
    sha256: str
    size: int
    digest: str | None
    package: str | None
    added_at: datetime
    added_by: UUID | None
    added_by_username: str | None
    checks: tuple[VersionCheck, ...]


class Promoter(msgspec.Struct, frozen=True, kw_only=True):
    """An account that may move the aliases of a model and retire it."""

    user_id: UUID
    username: str | None


class PromoterTeam(msgspec.Struct, frozen=True, kw_only=True):
    """A team whose members may move the aliases of a model and retire it."""

    team_id: UUID
    name: str | None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that images can be classified with. A run uses its version in production, unless it names another one."""

    id: UUID
    name: str
    description: str
    production: int | None
    labels: tuple[str, ...]
    review_below: float | None
    sha256: str | None
    aliases: dict[str, int]
    versions: tuple[ModelVersion, ...]
    promoters: tuple[Promoter, ...]
    promoter_teams: tuple[PromoterTeam, ...]
    created_at: datetime
    retired: bool


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a model. Fields that do not apply to its type are null."""

    position: int
    at: datetime
    type: str
    by: UUID
    by_username: str | None
    number: int | None
    alias: str | None
    user_id: UUID | None
    username: str | None
    team_id: UUID | None
    team: str | None
    reason: str | None


class MoveAlias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version that the alias points to from now on."""

    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    reason: str


class DeclareModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An external classifier: a program that reads images of this system and answers with labels."""

    name: str
    labels: tuple[str, ...]
    label_texts: dict[str, str] = {}
    description: str = ""
    review_below: float = 0.0

    @property
    def fields(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)


class RetireModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why the model is retired."""

    reason: str


class Names(NamedTuple):
    """The names of accounts and teams, by id."""

    users: Mapping[UUID, str]
    teams: Mapping[UUID, str]


def view(row: read_model.Model, names: Names) -> Model:
    version = row.production
    return from_row(
        row,
        Model,
        description=row.description_of(version or row.versions[-1]),
        production=version.number if version else None,
        labels=version.labels if version else (),
        review_below=version.review_below if version else None,
        sha256=version.sha256 if version else None,
        versions=tuple(_version(row, one, names.users) for one in row.versions),
        promoters=tuple(Promoter(user_id=one, username=names.users.get(one)) for one in row.promoters or ()),
        promoter_teams=tuple(PromoterTeam(team_id=one, name=names.teams.get(one)) for one in row.promoter_teams or ()),
    )


def _version(row: read_model.Model, version: read_model.ModelVersion, usernames: Mapping[UUID, str]) -> ModelVersion:
    return from_row(
        version,
        ModelVersion,
        description=row.description_of(version),
        release=version.release or None,
        unit=version.unit or None,
        digest=version.digest or None,
        package=version.package or None,
        added_by_username=usernames.get(version.added_by) if version.added_by else None,
    )


def _accounts(rows: Iterable[read_model.Model]) -> set[UUID]:
    """Everyone whom views of `rows` name."""
    return {account for row in rows for account in (*(row.promoters or ()), *(one.added_by for one in row.versions if one.added_by))}


async def _views(context: RequestContext, rows: Collection[read_model.Model]) -> list[Model]:
    promoter_teams = {team for row in rows for team in row.promoter_teams or ()}
    names = Names(await context.read(users.usernames, _accounts(rows)), await context.read(teams.names, promoter_teams))
    return [view(row, names) for row in rows]


async def _changed(context: RequestContext, result: CommandResult) -> Response[Model]:
    row = await context.read(lambda db, _: read_model.get(db, name_or_id=str(result.id)))
    (shown,) = await _views(context, [row])
    return context.changed(shown, result)


FOR_RUNNERS = for_services(Scope.JOBS_RUN)


class Models(PackageUpload):
    path = "/api/models"
    tags = ("models",)

    @get("/", opt=FOR_RUNNERS, operation_id="modelsListed", summary="List models")
    async def list_models(
        self,
        context: NamedDependency[RequestContext],
        retired: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
    ) -> list[Model]:
        """All models by name, without retired ones unless `retired` is true.

        A model without a version in production is listed too, with `production` null and no labels. A run must then name its version, for
        example `candidate`.
        """
        return await _views(context, await context.read(lambda db, _: read_model.listed(db, retired=retired)))

    @get("/{name_or_id:str}", opt=FOR_RUNNERS, operation_id="modelsOne", summary="Read a model")
    async def get_model(
        self,
        context: NamedDependency[RequestContext],
        past_models: NamedDependency[PastModels],
        name_or_id: FromPath[str],
        as_of: FromQuery[str | None] = None,
    ) -> Response[Model]:
        """One model with all its versions, retired models included.

        With `as_of`, the model as it was at a time or position, calculated from the log alone: which version was in production, and who
        could promote. `checks` are then empty.
        """
        if as_of is None:
            row = await context.read(lambda db, _: read_model.get(db, name_or_id=name_or_id))
        else:
            until = await context.read_log(position_of, as_of)
            row = read_model.row_of(await asyncio.to_thread(past_models.at, name_or_id, until=until, actor=context.actor))
        (shown,) = await _views(context, [row])
        return context.versioned(shown, version=row.version)

    @get("/{name:str}/history", operation_id="modelsHistory", summary="List changes of a model")
    async def list_changes(
        self, context: NamedDependency[RequestContext], name: FromPath[str], after: After = 0, limit: PageSize = 200
    ) -> Response[list[ModelChange]]:
        """What happened to a model, oldest first: versions, aliases with reasons, promoters, its retirement.

        If there is more, `X-Next-Cursor` is the next `after`.
        """
        found = await context.read_log(models.history, name, after=after, maximum=limit + 1, actor=context.actor)
        accounts = {account for change in found for account in (change.by, change.user_id) if account}
        concerned = {change.team_id for change in found if change.team_id}
        names = Names(await context.read(users.usernames, accounts), await context.read(teams.names, concerned))
        headers = {"X-Next-Cursor": str(found[limit - 1].position)} if len(found) > limit else {}
        return Response([_change(one, names) for one in found[:limit]], headers=headers)

    @post("/external", operation_id="modelsDeclare", summary="Declare an external classifier")
    async def add_external(self, context: NamedDependency[RequestContext], data: JSONBody[DeclareModel]) -> Response[ModelVersion]:
        """Add a version whose results another program computes, over Kafka. Needs the role researcher.

        The version is the candidate of its model from then on. Its `sha256` and `digest` are those of the declaration: which network
        answers is unknown. The same declaration again is the same version. docs/models/external.md describes the program.
        """
        result = await context.execute(models.add_external, **data.fields)
        state = await context.read_log(models.load_model, data.name)
        row, declared = read_model.row_of(state), declare(**data.fields).version.sha256
        version = next(one for one in row.versions if one.sha256 == declared)
        return context.created(_version(row, version, await context.read(users.usernames, _accounts([row]))), result)

    @put("/{name:str}/aliases/{alias:str}", operation_id="modelsMoveAlias", summary="Move an alias of a model")
    async def move_alias(
        self, context: NamedDependency[RequestContext], name: FromPath[str], alias: FromPath[str], data: JSONBody[MoveAlias]
    ) -> Response[Model]:
        """Let an alias such as `production` point to a version. For administrators and promoters of the model.

        New jobs use that version. Jobs in progress and existing results keep theirs. To go back, move the alias to the earlier version.
        The labels and the kind of a version may differ from those in production: compare them in `versions` first, nothing is asked here.
        A version that goes into production is no longer the `candidate`.
        """
        result = await context.execute(
            models.move_alias, name=name, alias=alias, number=data.version, reason=data.reason, expected=context.expected_version
        )
        return await _changed(context, result)

    @post("/{name:str}/retire", operation_id="modelsRetire", status_code=200, summary="Retire a model")
    async def retire(self, context: NamedDependency[RequestContext], name: FromPath[str], data: JSONBody[RetireModel]) -> Response[Model]:
        """Accept no new jobs for a model, for ever. Its results stay. For administrators and promoters of the model."""
        return await _changed(
            context, await context.execute(models.retire, name=name, reason=data.reason, expected=context.expected_version)
        )

    @put("/{name:str}/promoters/{user_id:uuid}", operation_id="modelsAddPromoter", status_code=204, summary="Add a promoter of a model")
    async def add_promoter(self, context: NamedDependency[RequestContext], name: FromPath[str], user_id: FromPath[UUID]) -> Response[None]:
        """Let an account move the aliases of a model and retire it, whatever its role. For administrators."""
        return context.no_content(await context.execute(models.add_promoter, name=name, user_id=user_id, expected=context.expected_version))

    @delete(
        "/{name:str}/promoters/{user_id:uuid}", operation_id="modelsRemovePromoter", status_code=204, summary="Remove a promoter of a model"
    )
    async def remove_promoter(
        self, context: NamedDependency[RequestContext], name: FromPath[str], user_id: FromPath[UUID]
    ) -> Response[None]:
        """An account that is no promoter is not an error. For administrators."""
        return context.no_content(
            await context.execute(models.remove_promoter, name=name, user_id=user_id, expected=context.expected_version)
        )

    @put(
        "/{name:str}/promoters/teams/{team_id:uuid}",
        operation_id="modelsAddPromoterTeam",
        status_code=204,
        summary="Add a team of promoters of a model",
    )
    async def add_promoter_team(
        self, context: NamedDependency[RequestContext], name: FromPath[str], team_id: FromPath[UUID]
    ) -> Response[None]:
        """Let the members of a team move the aliases of a model and retire it, whatever their roles. For administrators."""
        return context.no_content(
            await context.execute(models.add_promoter_team, name=name, team_id=team_id, expected=context.expected_version)
        )

    @delete(
        "/{name:str}/promoters/teams/{team_id:uuid}",
        operation_id="modelsRemovePromoterTeam",
        status_code=204,
        summary="Remove a team of promoters of a model",
    )
    async def remove_promoter_team(
        self, context: NamedDependency[RequestContext], name: FromPath[str], team_id: FromPath[UUID]
    ) -> Response[None]:
        """A team that is no promoter is not an error. For administrators."""
        return context.no_content(
            await context.execute(models.remove_promoter_team, name=name, team_id=team_id, expected=context.expected_version)
        )

    @get("/{name:str}/versions/{number:int}/package", operation_id="modelsPackage", media_type=ZIP, summary="Download a model package")
    async def download_package(self, context: NamedDependency[RequestContext], name: FromPath[str], number: FromPath[int]) -> Stream:
        """The zip file of a version, with an `rdf.yaml` that tools of bioimage.io read. Needs the role analyst.

        A package whose manifest is an `rdf.yaml` is sent as it was uploaded; the `ETag` is its sha256 then. One in the simple form has an
        `rdf.yaml` besides. Added again, it is the same version. A version of an earlier release has no package. Its weights and its
        manifest are packed, without test tensors.
        """
        blobs, export = context.services.blobs, context.services.export_package
        package = await context.read_log(model_packages.download, name, number, actor=context.actor, blobs=blobs, export=export)
        stored = {} if package.sha256 is None else {"Content-Length": str(package.size), "ETag": f'"{package.sha256}"'}
        headers = {"Content-Disposition": content_disposition(package.filename, inline=False), "X-Content-Type-Options": "nosniff"}
        return Stream(_in_thread(package.pieces), media_type=ZIP, headers=headers | stored)


def _change(change: models.ModelChange, names: Names) -> ModelChange:
    return from_row(
        change,
        ModelChange,
        by_username=names.users.get(change.by),
        username=names.users.get(change.user_id) if change.user_id else None,
        team=names.teams.get(change.team_id) if change.team_id else None,
    )


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
