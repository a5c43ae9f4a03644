"""Result routes: results of models, and statistics of the last 24 hours."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from api.clock import utc_now
from api.policies import answer_at
from api.request import PageSize, RequestContext, from_row
from application.history.as_of import position_of
from domain.classification import Verdict
from domain.values import ImageWarning
from projections import results as read_model
from projections import statistics
from projections.statistics import HourlyCount


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a model found in one image."""

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
    value: float | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the last 24 hours."""

    classified_last_24_hours: int
    average_confidence: float
    last_10_results: list[Result]
    hourly_counts: list[HourlyCount]


def view(row: read_model.Result) -> Result:
    return from_row(row, Result)


class Results(Controller):
    path = "/api/classification-results"
    tags = ("results",)

    @get("/", operation_id="resultsListed", summary="List results")
    async def list_results(
        self,
        context: NamedDependency[RequestContext],
        classification_id: FromQuery[UUID | None] = None,
        image_id: FromQuery[UUID | None] = None,
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """The results of all datasets that you may see, newest first."""
        return await _page(context, classification_id=classification_id, image_id=image_id, size=page_size, cursor=cursor)

    @get("/today/statistics", operation_id="resultsToday", summary="Read statistics of the last 24 hours")
    async def get_statistics(self, context: NamedDependency[RequestContext]) -> Statistics:
        """Figures of the last 24 hours. They count only results that you may read."""
        row = await context.read(statistics.today, now=utc_now())
        return from_row(row, Statistics)

    @get("/{result_id:uuid}", operation_id="resultsOne", summary="Read a result")
    async def get_result(
        self, context: NamedDependency[RequestContext], result_id: FromPath[UUID], as_of: FromQuery[str | None] = None
    ) -> Result:
        """One result. With `as_of`, the label, the confidence and the verdict are those under the policies in force then."""
        row = await context.read(read_model.get, result_id)
        if as_of is None:
            return view(row)
        answer, _ = await answer_at(context, row, await context.read_log(position_of, as_of))
        return view(msgspec.structs.replace(row, label=answer.label, confidence=answer.confidence, verdict=answer.verdict))

    @get("/classification/{job_id:uuid}", operation_id="resultsOfClassification", summary="List results of a classification")
    async def list_results_of_classification(
        self,
        context: NamedDependency[RequestContext],
        job_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """The results of one job, newest first. Empty for a job that does not exist."""
        return await _page(context, classification_id=job_id, size=page_size, cursor=cursor)

    @get("/image/{image_id:uuid}", operation_id="resultsOfImage", summary="List results of an image")
    async def list_results_of_image(
        self,
        context: NamedDependency[RequestContext],
        image_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """The results of one image, newest first. Empty for an image that does not exist."""
        return await _page(context, image_id=image_id, size=page_size, cursor=cursor)


async def _page(
    context: RequestContext, *, size: int, cursor: str | None, classification_id: UUID | None = None, image_id: UUID | None = None
) -> Response[list[Result]]:
    page = await context.read(read_model.listed, classification_id=classification_id, image_id=image_id, size=size, cursor=cursor)
    return context.page(page, view)
