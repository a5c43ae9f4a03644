"""Result routes: results of models with filters, as lists and exports, and statistics of the last 24 hours."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from api.clock import utc_now
from api.export_slots import ExportSlots, ExportStream
from api.middleware.authentication import for_services
from api.policies import answer_at, labels_under
from api.request import PageSize, RequestContext, from_row
from api.result_exports import MEDIA_TYPES, ExportedResult, ExportFormat, ModelVersions, exported
from application.history.as_of import position_of
from application.signed_downloads import content_disposition
from domain.access import Scope
from domain.classification import Verdict
from domain.values import ImageWarning
from projections import models, statistics
from projections import results as read_model
from projections.pagination import Page
from projections.results import Filter, ReadResult, Versions
from projections.statistics import HourlyCount

Confidence = Annotated[float | None, QueryParameter(ge=0, le=1)]
ModelNumber = Annotated[int | None, QueryParameter(ge=1, le=2**31 - 1)]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a model found in one image."""

    id: UUID
    image_id: UUID
    classification_id: UUID
    label: str
    labels: tuple[str, ...]
    confidence: float
    model_name: str
    created_at: datetime
    verdict: Verdict
    scores: dict[str, float]
    warnings: tuple[ImageWarning, ...]
    model_version: int
    dataset_id: UUID
    value: float | None
    path: str | None
    filename: str
    result_version: int
    is_newest: bool
    reused: UUID | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the last 24 hours."""

    classified_last_24_hours: int
    average_confidence: float
    last_10_results: list[Result]
    hourly_counts: list[HourlyCount]


def view(row: ReadResult) -> Result:
    return from_row(row, Result)


def result_filter(
    dataset_id: FromQuery[UUID | None] = None,
    classification_id: FromQuery[UUID | None] = None,
    image_id: FromQuery[UUID | None] = None,
    label: FromQuery[str | None] = None,
    verdict: FromQuery[Verdict | None] = None,
    min_confidence: Confidence = None,
    max_confidence: Confidence = None,
    model_name: FromQuery[str | None] = None,
    model_version: ModelNumber = None,
    created_from: FromQuery[datetime | None] = None,
    created_before: FromQuery[datetime | None] = None,
) -> Filter:
    """The conditions in the query of a request."""
    return Filter(
        dataset_id=dataset_id,
        classification_id=classification_id,
        image_id=image_id,
        label=label,
        verdict=verdict,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        model_name=model_name,
        model_version=model_version,
        created_from=created_from,
        created_before=created_before,
    )


FILTERED = {"where": Provide(result_filter, sync_to_thread=False)}


class Results(Controller):
    path = "/api/classification-results"
    tags = ("results",)
    opt = for_services(Scope.RESULTS_READ)

    @get("/", operation_id="resultsListed", dependencies=FILTERED, summary="List results")
    async def list_results(
        self,
        context: NamedDependency[RequestContext],
        where: NamedDependency[Filter],
        versions: FromQuery[Versions | None] = None,
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """The results of all datasets that you may see, newest first. Filters can be combined.

        Of each image and model only the newest result is listed, unless `versions` is `all` or `classification_id` names a job.
        """
        return context.page(await context.read(read_model.listed, where=where, versions=versions, size=page_size, cursor=cursor), view)

    @get(
        "/export",
        operation_id="resultsExport",
        dependencies=FILTERED,
        responses={200: ResponseSpec(list[ExportedResult], description="Success", generate_examples=False)},
        summary="Export results",
    )
    async def export_results(
        self,
        context: NamedDependency[RequestContext],
        export_slots: NamedDependency[ExportSlots],
        where: NamedDependency[Filter],
        versions: FromQuery[Versions | None] = None,
        export_format: Annotated[ExportFormat, QueryParameter(name="format")] = ExportFormat.CSV,
    ) -> Stream:
        """All results that a list with these filters has, in one file, newest first. Results that arrive meanwhile are not included.

        In CSV, a text that a spreadsheet would read as a formula begins with an apostrophe; `scores` and `warnings` are in one cell each.
        """
        known = ModelVersions(await context.read(lambda db, _: models.listed(db, retired=True)))
        first = await context.read(read_model.listed, where=where, versions=versions)
        pages = _exported_pages(context, where, versions, known=known, page=first)
        disposition = content_disposition(f"results.{export_format}", inline=False)
        headers = {"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}
        content = exported(pages, export_format)
        return ExportStream(content, export_slots, context.actor.id, media_type=MEDIA_TYPES[export_format], headers=headers)

    @get("/today/statistics", operation_id="resultsToday", summary="Read statistics of the last 24 hours")
    async def get_statistics(self, context: NamedDependency[RequestContext]) -> Statistics:
        """Figures of the last 24 hours. They count only results that you may read."""
        row = await context.read(statistics.today, now=utc_now())
        return from_row(row, Statistics)

    @get("/{result_id:uuid}", operation_id="resultsOne", summary="Read a result")
    async def get_result(
        self, context: NamedDependency[RequestContext], result_id: FromPath[UUID], as_of: FromQuery[str | None] = None
    ) -> Result:
        """One result. With `as_of`, labels, confidence and verdict are those under the policies in force then."""
        row = await context.read(read_model.get, result_id)
        if as_of is None:
            return view(row)
        answer, policy = await answer_at(context, row, await context.read_log(position_of, as_of))
        return from_row(row, Result, **msgspec.structs.asdict(answer), labels=await labels_under(context, row, answer, policy))

    @get("/classification/{job_id:uuid}", operation_id="resultsOfClassification", summary="List results of a classification")
    async def list_results_of_classification(
        self,
        context: NamedDependency[RequestContext],
        job_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """The results of one job, newest first. Empty for a job that does not exist."""
        page = await context.read(read_model.listed, where=Filter(classification_id=job_id), size=page_size, cursor=cursor)
        return context.page(page, view)

    @get("/image/{image_id:uuid}", operation_id="resultsOfImage", summary="List results of an image")
    async def list_results_of_image(
        self,
        context: NamedDependency[RequestContext],
        image_id: FromPath[UUID],
        versions: FromQuery[Versions | None] = None,
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """The newest result of each model for one image; all with `versions=all`. Empty for an image that does not exist."""
        page = await context.read(read_model.listed, where=Filter(image_id=image_id), versions=versions, size=page_size, cursor=cursor)
        return context.page(page, view)


async def _exported_pages(
    context: RequestContext, where: Filter, versions: Versions | None, *, known: ModelVersions, page: Page[ReadResult]
) -> AsyncIterator[list[ExportedResult]]:
    """All pages, beginning with `page`."""
    while True:
        yield [known.exported(row) for row in page.items]
        if page.next_cursor is None:
            return
        page = await context.read(read_model.listed, where=where, versions=versions, cursor=page.next_cursor)
