"""Statistics routes: results counted by model, version, dataset, device, day, label and verdict."""

from datetime import date
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from api.clock import utc_now
from api.middleware.authentication import for_services
from api.request import RequestContext, from_row
from domain.access import Scope
from projections import statistics

From = Annotated[str | None, QueryParameter(name="from", format="date")]
To = Annotated[str | None, QueryParameter(name="to", format="date")]
Version = Annotated[int | None, QueryParameter(ge=1, le=2**31 - 1)]


class VerdictCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many results have each verdict."""

    clear: int
    needs_review: int
    out_of_domain: int


class ResultGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of some results. Fields by which the results are not grouped are null."""

    model_name: str | None
    model_version: int | None
    dataset_id: UUID | None
    dataset_name: str | None
    device_id: UUID | None
    day: date | None
    label: str | None
    verdict: str | None
    count: int
    verdicts: VerdictCounts
    average_confidence: float | None
    confidence_histogram: tuple[int, ...]
    measured: int
    average_value: float | None


class ResultStatistics(msgspec.Struct, frozen=True, kw_only=True, rename={"first": "from", "last": "to"}):
    """Figures of the results of some days, in groups."""

    first: date
    last: date
    group_by: tuple[statistics.Dimension, ...]
    groups: tuple[ResultGroup, ...]


def view(row: statistics.Group) -> ResultGroup:
    return from_row(row, ResultGroup, verdicts=from_row(row, VerdictCounts), confidence_histogram=row.bins)


class Statistics(Controller):
    path = "/api/statistics"
    tags = ("statistics",)
    opt = for_services(Scope.RESULTS_READ)

    @get("/results", operation_id="statisticsResults", summary="Count results in groups")
    async def count_results(
        self,
        context: NamedDependency[RequestContext],
        from_day: From = None,
        to_day: To = None,
        dataset_id: FromQuery[UUID | None] = None,
        model_name: FromQuery[str | None] = None,
        model_version: Version = None,
        device_id: FromQuery[UUID | None] = None,
        group_by: FromQuery[str | None] = None,
    ) -> ResultStatistics:
        """Figures of the results that you may read, by the days on which they were recorded (UTC).

        They count each result with the label and verdict that are in force. A result that repeats an earlier one is not counted, nor are
        those of deleted jobs and images. Groups without results are left out; without `group_by`, all results are one group. At most
        1,000 groups are answered: more are refused.
        """
        first, last = statistics.days_of(from_day, to_day, today=utc_now().date())
        where = statistics.Filter(
            first=first, last=last, dataset_id=dataset_id, model_name=model_name, model_version=model_version, device_id=device_id
        )
        by = statistics.dimensions_of(group_by)
        rows = await context.read(statistics.grouped, where=where, by=by)
        return ResultStatistics(first=first, last=last, group_by=by, groups=tuple(map(view, rows)))
