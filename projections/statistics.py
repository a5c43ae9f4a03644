"""The last day in figures, counting what the reader may read."""

from datetime import datetime, timedelta

import msgspec

from domain.access import Actor
from domain.values import hour_of
from projections import results
from projections.reading import Reads, subject_of
from projections.results import Result

HOURS = 25  # the hour under way, and the 24 before it


class HourlyCount(msgspec.Struct, frozen=True, kw_only=True):
    hour: datetime
    count: int


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """`average_confidence` is 0 when nothing was classified; `hourly_counts` are 25, oldest first."""

    classified_last_24_hours: int
    average_confidence: float
    last_10_results: list[Result]
    hourly_counts: list[HourlyCount]


class Hour(msgspec.Struct, frozen=True):
    hour: datetime
    count: int
    recent: int
    confidence: float


COUNTED = """select date_bin('1 hour', r.created_at, '2000-01-01 00:00Z') as hour, count(*),
    count(*) filter (where r.created_at > %(recent)s) as recent,
    coalesce(sum(r.confidence) filter (where r.created_at > %(recent)s), 0) as confidence
  from visible v join results r on r.dataset_id = v.dataset and not r.hidden and r.created_at >= %(since)s and r.created_at <= %(now)s
  where v.subject = %(subject)s group by 1"""


async def today(db: Reads, actor: Actor, *, now: datetime) -> Statistics:
    """The 24 hours before `now` (UTC)."""
    hours = [hour_of(now) - timedelta(hours=back) for back in reversed(range(HOURS))]
    wanted = {"subject": subject_of(actor), "since": hours[0], "recent": now - timedelta(hours=24), "now": now}
    counted = {hour.hour: hour for hour in await db.rows(COUNTED, wanted, into=Hour)}
    recent = sum(hour.recent for hour in counted.values())
    return Statistics(
        classified_last_24_hours=recent,
        average_confidence=sum(hour.confidence for hour in counted.values()) / recent if recent else 0.0,
        last_10_results=(await results.listed(db, actor, size=10)).items,
        hourly_counts=[HourlyCount(hour=hour, count=counted[hour].count if hour in counted else 0) for hour in hours],
    )
