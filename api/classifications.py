"""Job routes: run a model over an image or a dataset, and follow its progress."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from api.request import PageSize, RequestContext, from_row
from application import classifications
from domain.classification import JobStatus, PlaneSelection, Projection
from domain.classification.job import MAX_CHANNELS, MAX_PLANE
from projections import classifications as read_model
from projections import models
from projections.classifications import Failure

PlaneNumber = Annotated[int, Meta(ge=0, le=MAX_PLANE)]


class Planes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The part of each image that a model gets. Planes and channels are counted from 0; the model chooses what is left out."""

    z: PlaneNumber | Projection | None = None
    c: Annotated[tuple[PlaneNumber, ...], Meta(min_length=1, max_length=MAX_CHANNELS)] | None = None
    t: PlaneNumber | None = None


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """A job: one model version run over an image or a dataset."""

    id: UUID
    dataset_id: UUID
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


class Watched(Classification, frozen=True, kw_only=True):
    """A job with its first failures."""

    failures: list[Failure]


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """The new job."""

    id: UUID
    status: JobStatus = JobStatus.PENDING


class RunClassification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model, and the image or the dataset to classify: exactly one of `image_id` and `dataset_id`."""

    image_id: UUID | None = None
    dataset_id: UUID | None = None
    model_name: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    model_version: Annotated[str, Meta(min_length=1, max_length=50)] | Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    planes: Planes | None = None

    @property
    def selection(self) -> PlaneSelection | None:
        return None if self.planes is None else PlaneSelection(z=self.planes.z, c=self.planes.c, t=self.planes.t)


def view(row: read_model.Classification) -> Classification:
    return from_row(row, Classification, created_by_id=row.created_by)


class Classifications(Controller):
    path = "/api/classifications"
    tags = ("classifications",)

    @post("/run", summary="Run a model")
    async def run(self, context: NamedDependency[RequestContext], data: JSONBody[RunClassification]) -> Response[Requested]:
        """Start a job over one image or a whole dataset, with the version of the model that is in production or with another one.

        An image that does not fit the model is refused with the code `input_mismatch`. Images of a dataset, and an image that is still
        pending, are looked at while the job runs: those that do not fit become failures with the reason `input_mismatch`.

        Read the job, or follow the WebSocket `/api/ws`, until it has ended. Needs the role analyst and the grant analyst, and for a version
        that is not in production the role researcher.
        """
        known = await context.read(lambda db, _: models.listed(db))
        result = await context.execute(
            classifications.run,
            dataset_id=data.dataset_id,
            image_id=data.image_id,
            model_name=data.model_name or _default_model(known, context.options.default_model),
            threshold=data.threshold,
            known_models=[model.name for model in known],
            model_version=None if data.model_version is None else str(data.model_version),
            planes=data.selection,
            input_check=context.services.input_check,
        )
        return context.created(Requested(id=result.id), result)

    @get("/", operation_id="classificationsListed", summary="List classifications")
    async def list_classifications(
        self,
        context: NamedDependency[RequestContext],
        status_filter: FromQuery[str | None] = None,
        dataset_id: FromQuery[UUID | None] = None,
        image_id: FromQuery[UUID | None] = None,
        created_by: FromQuery[UUID | None] = None,
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Classification]]:
        """The jobs of all datasets that you may see, newest first."""
        page = await context.read(
            read_model.listed,
            status=status_filter,
            dataset_id=dataset_id,
            image_id=image_id,
            created_by=created_by,
            cursor=cursor,
            size=page_size,
        )
        return context.page(page, view)

    @get("/{job_id:uuid}", operation_id="classificationsOne", summary="Read a classification")
    async def get_classification(self, context: NamedDependency[RequestContext], job_id: FromPath[UUID]) -> Response[Watched]:
        """One job and its progress."""
        row = await context.read(read_model.get, job_id)
        ended = row.status not in {JobStatus.PENDING, JobStatus.RUNNING}
        failures = (await context.read(read_model.failures, job_id)).items if ended and row.failed else []
        return context.versioned(from_row(row, Watched, created_by_id=row.created_by, failures=failures), version=row.version)

    @get("/{job_id:uuid}/failures", operation_id="classificationsFailures", summary="List failures of a classification")
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

    @post("/{job_id:uuid}/cancel", status_code=200, summary="Cancel a classification")
    async def cancel(self, context: NamedDependency[RequestContext], job_id: FromPath[UUID]) -> Response[Classification]:
        """Stop a job. Images not yet classified are skipped; existing results stay. Needs the role analyst and the grant analyst."""
        result = await context.execute(classifications.cancel, job_id, expected=context.expected_version)
        return context.changed(view(await context.read(read_model.get, job_id)), result)

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
