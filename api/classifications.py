"""Job routes: run a model over an image or a dataset, and follow its progress."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from api.middleware.authentication import for_services
from api.request import PageSize, RequestContext, from_row
from application import classifications
from application.classifications import ImageSelection
from domain.access import Scope
from domain.classification import ImageFilter, JobStatus, PlaneSelection, Priority, Projection, RunOptions, Verdict
from domain.classification.job import MAX_CHANNELS, MAX_PLANE
from domain.classification.selection import MAX_LISTED, MAX_TOP_K
from domain.values import MAX_LABEL, MAX_PATH_LENGTH
from projections import classifications as read_model
from projections import models
from projections.classifications import Failure
from projections.job_pace import rate, remaining_seconds

PlaneNumber = Annotated[int, Meta(ge=0, le=MAX_PLANE)]
Moment = Annotated[datetime, Meta(tz=True)]


class Planes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The part of each image that a model gets. Planes and channels are counted from 0; the model chooses what is left out."""

    z: PlaneNumber | Projection | None = None
    c: Annotated[tuple[PlaneNumber, ...], Meta(min_length=1, max_length=MAX_CHANNELS)] | None = None
    t: PlaneNumber | None = None


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images of a dataset: those for which everything holds that is given."""

    path: Annotated[str, Meta(min_length=1, max_length=MAX_PATH_LENGTH)] | None = None
    uploaded_from: Moment | None = None
    uploaded_before: Moment | None = None
    device_id: UUID | None = None
    label: Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)] | None = None
    verdict: Verdict | None = None
    without_result: bool = False


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """A job: one model version run over an image, a list of images, a dataset or a part of it."""

    id: UUID
    dataset_id: UUID | None
    image_id: UUID | None
    model_name: str
    status: JobStatus
    created_by_id: UUID
    created_at: datetime
    updated_at: datetime
    model_id: UUID
    model_version: int
    model_sha256: str
    threshold: float
    planned: bool
    images: int
    succeeded: int
    failed: int
    reason: str | None
    planes: Planes | None
    listed: int
    filter: Filter | None
    external: bool
    priority: Priority
    deadline: datetime | None
    top_k: int | None
    fresh: bool
    retry_of: UUID | None
    started_at: datetime | None
    last_result_at: datetime | None
    rate: float | None
    remaining_seconds: float | None


class Watched(Classification, frozen=True, kw_only=True):
    """A job with its first failures."""

    failures: list[Failure]


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """The new job."""

    id: UUID
    status: JobStatus = JobStatus.PENDING


class Retry(Requested, frozen=True, kw_only=True):
    """The new job, which classifies again what the job `retry_of` left without a result."""

    retry_of: UUID


class RunClassification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model, and what to classify: exactly one of `image_id`, `image_ids` and `dataset_id`, which may have a `filter`.

    `model_name` may name a version too, as `NAME@ALIAS` or `NAME@NUMBER`.
    """

    image_id: UUID | None = None
    image_ids: Annotated[tuple[UUID, ...], Meta(min_length=1, max_length=MAX_LISTED)] | None = None
    dataset_id: UUID | None = None
    filter: Filter | None = None
    model_name: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    model_version: Annotated[str, Meta(min_length=1, max_length=50)] | Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    planes: Planes | None = None
    priority: Priority = Priority.NORMAL
    deadline: Moment | None = None
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    fresh: bool = False

    @property
    def selection(self) -> ImageSelection:
        asked = None if self.filter is None else msgspec.convert(self.filter, ImageFilter, from_attributes=True)
        path = None if self.filter is None else self.filter.path
        return ImageSelection(image_id=self.image_id, image_ids=self.image_ids, dataset_id=self.dataset_id, filter=asked, path=path)

    @property
    def plane_selection(self) -> PlaneSelection | None:
        return None if self.planes is None else PlaneSelection(z=self.planes.z, c=self.planes.c, t=self.planes.t)

    @property
    def options(self) -> RunOptions:
        return RunOptions(priority=self.priority, deadline=self.deadline, top_k=self.top_k, fresh=self.fresh)


def view(row: read_model.Job) -> Classification:
    return from_row(row, Classification, **_computed(row))


def _computed(row: read_model.Job) -> dict[str, object]:
    """The fields of a view that are not those of the row. A job over one image shows no dataset."""
    asked = None if row.filter is None and row.path is None else msgspec.to_builtins(row.filter or ImageFilter()) | {"path": row.path}
    return {
        "created_by_id": row.created_by,
        "dataset_id": None if row.image_id else row.dataset_id,
        "filter": asked,
        "rate": rate(row),
        "remaining_seconds": remaining_seconds(row),
    }


FOR_RUNNERS = for_services(Scope.JOBS_RUN)


class Classifications(Controller):
    path = "/api/classifications"
    tags = ("classifications",)

    @post("/run", opt=FOR_RUNNERS, summary="Run a model")
    async def run(self, context: NamedDependency[RequestContext], data: JSONBody[RunClassification]) -> Response[Requested]:
        """Start a job over one image, a list of images of one dataset, a dataset or a part of it, with the version of the model that is in
        production or with another one. A dataset is taken as it is now: images that are uploaded later are not covered.

        An image that does not fit the model is refused with the code `input_mismatch`. Images of a list or a dataset, and an image that is
        still pending, are looked at while the job runs: those that do not fit become failures with the reason `input_mismatch`.

        Images that the same version has classified already, with the same planes, get their earlier result again if you may read it;
        `fresh` prevents that. At its deadline a job fails; the results that it has stay.

        Read the job, or follow the WebSocket `/api/ws`, until it has ended. Needs the role analyst and the grant analyst, and for a version
        that is not in production the role researcher.
        """
        known = await context.read(lambda db, _: models.listed(db))
        result = await context.execute(
            classifications.run,
            selection=data.selection,
            model_name=data.model_name or _default_model(known, context.options.default_model),
            threshold=data.threshold,
            known_models=[model.name for model in known],
            model_version=None if data.model_version is None else str(data.model_version),
            planes=data.plane_selection,
            options=data.options,
            input_check=context.services.input_check,
        )
        return context.created(Requested(id=result.id), result)

    @get("/", opt=FOR_RUNNERS, operation_id="classificationsListed", summary="List classifications")
    async def list_classifications(
        self,
        context: NamedDependency[RequestContext],
        status_filter: FromQuery[str | None] = None,
        dataset_id: FromQuery[UUID | None] = None,
        image_id: FromQuery[UUID | None] = None,
        created_by: FromQuery[UUID | None] = None,
        mine: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Classification]]:
        """The jobs of all datasets that you may see, newest first."""
        page = await context.read(
            read_model.listed,
            status=status_filter,
            dataset_id=dataset_id,
            image_id=image_id,
            created_by=context.actor.id if mine else created_by,
            cursor=cursor,
            size=page_size,
        )
        return context.page(page, view)

    @get("/{job_id:uuid}", opt=FOR_RUNNERS, operation_id="classificationsOne", summary="Read a classification")
    async def get_classification(self, context: NamedDependency[RequestContext], job_id: FromPath[UUID]) -> Response[Watched]:
        """One job and its progress."""
        row = await context.read(read_model.get, job_id)
        ended = row.status not in {JobStatus.PENDING, JobStatus.RUNNING}
        failures = (await context.read(read_model.failures, job_id)).items if ended and row.failed else []
        return context.versioned(from_row(row, Watched, **_computed(row), failures=failures), version=row.version)

    @get("/{job_id:uuid}/failures", opt=FOR_RUNNERS, operation_id="classificationsFailures", summary="List failures of a classification")
    async def list_failures(
        self,
        context: NamedDependency[RequestContext],
        job_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Failure]]:
        """The images for which the job has no result, and the reasons."""
        await context.read(read_model.get, job_id)
        return context.page(await context.read(read_model.failures, job_id, cursor=cursor, size=page_size), lambda failure: failure)

    @post("/{job_id:uuid}/cancel", opt=FOR_RUNNERS, status_code=200, summary="Cancel a classification")
    async def cancel(self, context: NamedDependency[RequestContext], job_id: FromPath[UUID]) -> Response[Classification]:
        """Stop a job. Images not yet classified are skipped; existing results stay. Needs the role analyst and the grant analyst."""
        result = await context.execute(classifications.cancel, job_id, expected=context.expected_version)
        return context.changed(view(await context.read(read_model.get, job_id)), result)

    @post("/{job_id:uuid}/retry", opt=FOR_RUNNERS, summary="Retry a classification")
    async def retry(self, context: NamedDependency[RequestContext], job_id: FromPath[UUID]) -> Response[Retry]:
        """Start a new job over the images that a job left without a result, with the same model version, planes and threshold.

        The job must have ended. The new one names it in `retry_of` and has no deadline. Needs the role analyst and the grant analyst, and
        for a version that is not in production the role researcher.
        """
        result = await context.execute(classifications.retry, job_id)
        return context.created(Retry(id=result.id, retry_of=job_id), result)

    @delete("/{job_id:uuid}", status_code=204, summary="Delete a classification")
    async def remove(self, context: NamedDependency[RequestContext], job_id: FromPath[UUID]) -> Response[None]:
        """Hide a job with its results. The log keeps them. Needs the role researcher and the grant editor."""
        return context.no_content(await context.execute(classifications.delete, job_id, expected=context.expected_version))


def _default_model(known: list[models.Model], configured: str) -> str:
    """The model of the installation. Without it: the first one that has a version in production, or else the first one."""
    names = [model.name for model in known]
    if configured in names or not names:
        return configured
    return next((model.name for model in known if model.production), names[0])
