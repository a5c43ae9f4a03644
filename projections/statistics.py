"""Statistics of visible results in the last 24 hours."""

from datetime import datetime, timedelta

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.values import hour_of
from projections import results
from projections.access import subject_of
from projections.results import ReadResult, Result

HOURS = 25  # the current hour and the 24 before it


class HourlyCount(msgspec.Struct, frozen=True, kw_only=True):
    hour: datetime
    count: int


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics. `hourly_counts` has 25 entries, oldest first.

    `average_confidence` (0 to 1; 0 if there is none) is the mean of the results with a label. Numbers of a regression have no confidence.
    """

    classified_last_24_hours: int
    average_confidence: float
    last_10_results: list[Result]
    hourly_counts: list[HourlyCount]


class Hour(msgspec.Struct, frozen=True):
    hour: datetime
    count: int
    recent: int
    micros: int
    measured: int


TALLIED = """select t.hour, sum(t.count) as count, sum(t.recent) as recent, sum(t.micros) as micros,
    sum(t.measured) as measured
  from visible v cross join lateral (
    select date_bin('1 hour', t.minute, '2000-01-01 00:00Z') as hour, sum(t.count) as count,
      coalesce(sum(t.count) filter (where t.minute > %(recent)s), 0) as recent,
      coalesce(sum(t.micros) filter (where t.minute > %(recent)s), 0) as micros,
      coalesce(sum(t.measured) filter (where t.minute > %(recent)s), 0) as measured
    from tallies t where t.dataset_id = v.dataset and t.minute >= %(since)s and t.minute <= %(now)s group by 1
  ) t where v.subject = %(subject)s group by 1"""
OF_THE_FIRST_MINUTE = """select %(since)s::timestamptz as hour, 0 as count, count(*) as recent,
    coalesce(sum(round(r.confidence * 1000000)), 0)::bigint as micros, count(r.value) as measured
  from visible v join results r on r.dataset_id = v.dataset and not r.hidden and r.created_at > %(recent)s and r.created_at < %(minute)s
  where v.subject = %(subject)s"""
TODAY = f"""select (select json_agg(counted) from ({TALLIED} union all {OF_THE_FIRST_MINUTE}) counted) as hours,
  (select coalesce(json_agg(newest), '[]') from ({results.NEWEST_OF_ALL}) newest) as newest"""  # noqa: S608 - constants


class Found(msgspec.Struct, frozen=True):
    hours: list[Hour]
    newest: list[ReadResult]


async def today(db: QueryDatabase, actor: Actor, *, now: datetime) -> Statistics:
    """Statistics of the 24 hours before `now` (UTC). Whole minutes are read from tallies, the first partial one from results."""
    hours = [hour_of(now) - timedelta(hours=back) for back in reversed(range(HOURS))]
    recently = now - timedelta(hours=24)
    minute = recently.replace(second=0, microsecond=0) + timedelta(minutes=1)
    parameters = {"subject": subject_of(actor), "since": hours[0], "recent": recently, "minute": minute, "now": now}
    [found] = await db.rows(TODAY, parameters | {"at": None, "after": None, "maximum": 10}, into=Found)
    counted = {hour.hour: hour for hour in found.hours if hour.count}
    recent = sum(hour.recent for hour in found.hours)
    labelled = recent - sum(hour.measured for hour in found.hours)
    return Statistics(
        classified_last_24_hours=recent,
        average_confidence=sum(hour.micros for hour in found.hours) / 1_000_000 / labelled if labelled else 0.0,
        last_10_results=[results.shown(one) for one in found.newest],
        hourly_counts=[HourlyCount(hour=hour, count=counted[hour].count if hour in counted else 0) for hour in hours],
    )
