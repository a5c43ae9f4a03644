"""Results over HTTP: what models saw, and the last day in figures."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from api.request import PageSize, RequestContext, current_context
from domain.classification import Verdict
from domain.values import ImageWarning
from projections import results as reading
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


def view(row: reading.Result) -> Result:
    return Result(
        id=row.id,
        image_id=row.image_id,
        classification_id=row.classification_id,
        label=row.label,
        confidence=row.confidence,
        model_name=row.model_name,
        created_at=row.created_at,
        verdict=row.verdict,
        scores=row.scores,
        warnings=row.warnings,
        model_version=row.model_version,
        dataset_id=row.dataset_id,
    )


class Results(Controller):
    path = "/api/classification-results"
    tags = ("results",)

    @get("/")
    async def listed(
        self,
        call: NamedDependency[RequestContext],
        classification_id: FromQuery[UUID | None] = None,
        image_id: FromQuery[UUID | None] = None,
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        """Newest first."""
        return await _listed(call, classification_id=classification_id, image_id=image_id, size=page_size, cursor=cursor)

    @get("/today/statistics")
    async def today(self, call: NamedDependency[RequestContext]) -> Statistics:
        """The last 24 hours, of what the caller may read."""
        found = await call.read(statistics.today, now=current_context())
        return Statistics(
            classified_last_24_hours=found.classified_last_24_hours,
            average_confidence=found.average_confidence,
            last_10_results=[view(row) for row in found.last_10_results],
            hourly_counts=found.hourly_counts,
        )

    @get("/{result_id:uuid}")
    async def one(self, call: NamedDependency[RequestContext], result_id: FromPath[UUID]) -> Result:
        return view(await call.read(reading.get, result_id))

    @get("/classification/{job_id:uuid}")
    async def of_classification(
        self,
        call: NamedDependency[RequestContext],
        job_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        return await _listed(call, classification_id=job_id, size=page_size, cursor=cursor)

    @get("/image/{image_id:uuid}")
    async def of_image(
        self,
        call: NamedDependency[RequestContext],
        image_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Result]]:
        return await _listed(call, image_id=image_id, size=page_size, cursor=cursor)


async def _listed(
    call: RequestContext, *, size: int, cursor: str | None, classification_id: UUID | None = None, image_id: UUID | None = None
) -> Response[list[Result]]:
    found = await call.read(reading.listed, classification_id=classification_id, image_id=image_id, size=size, cursor=cursor)
    return call.page(found, view)
