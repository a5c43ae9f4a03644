"""Result routes: results of models, and statistics of the last 24 hours."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from api.clock import utc_now
from api.request import PageSize, RequestContext, from_row
from domain.classification import Verdict
from domain.values import ImageWarning
from projections import results as read_model
from projections import statistics
from projections.statistics import HourlyCount


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`confidence` 0 to 1; `scores` by label, adding up to 1; `verdict` says whether it is clear, or wants a look;
    `warnings` what of the image file was not used, assumed or converted."""

    id: UUID
    image_id: UUID
    classification_id: UUID
    label: str
    confidence: float
    model_name: str
    created_at: datetime
    verdict: Verdict
    scores: dict[str, float]
    warnings: tuple[ImageWarning, ...]
    model_version: int
    dataset_id: UUID


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """`average_confidence` is 0 when nothing was classified; `hourly_counts` are 25, oldest first."""

    classified_last_24_hours: int
    average_confidence: float
    last_10_results: list[Result]
    hourly_counts: list[HourlyCount]


def view(row: read_model.Result) -> Result:
    return from_row(row, Result)


class Results(Controller):
    path = "/api/classification-results"
    tags = ("results",)

    @get("/", operation_id="resultsListed")
    async def list_results(
        self,
        context: NamedDependency[RequestContext],
        classification_id: FromQuery[UUID | None] = None,
        image_id: FromQuery[UUID | None] = None,
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """Newest first."""
        return await _page(context, classification_id=classification_id, image_id=image_id, size=page_size, cursor=cursor)

    @get("/today/statistics", operation_id="resultsToday", summary="Today")
    async def get_statistics(self, context: NamedDependency[RequestContext]) -> Statistics:
        """The last 24 hours, of what the caller may read."""
        row = await context.read(statistics.today, now=utc_now())
        return from_row(row, Statistics)

    @get("/{result_id:uuid}", operation_id="resultsOne")
    async def get_result(self, context: NamedDependency[RequestContext], result_id: FromPath[UUID]) -> Result:
        return view(await context.read(read_model.get, result_id))

    @get("/classification/{job_id:uuid}", operation_id="resultsOfClassification", summary="Of classification")
    async def list_results_of_classification(
        self,
        context: NamedDependency[RequestContext],
        job_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        return await _page(context, classification_id=job_id, size=page_size, cursor=cursor)

    @get("/image/{image_id:uuid}", operation_id="resultsOfImage", summary="Of image")
    async def list_results_of_image(
        self,
        context: NamedDependency[RequestContext],
        image_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        return await _page(context, image_id=image_id, size=page_size, cursor=cursor)


async def _page(
    context: RequestContext, *, size: int, cursor: str | None, classification_id: UUID | None = None, image_id: UUID | None = None
) -> Response[list[Result]]:
    page = await context.read(read_model.listed, classification_id=classification_id, image_id=image_id, size=size, cursor=cursor)
    return context.page(page, view)
