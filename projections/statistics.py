"""Statistics of visible results: of the last 24 hours, and of whole days in groups. A result that repeats an earlier one does not count.

Triggers on results keep the tables `tallies` and `statistics` (migration 0024).
"""

import asyncio
import re
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor, Scope
from domain.errors import FieldError, Invalid
from domain.values import hour_of
from projections import results
from projections.access import subject_of
from projections.results import Result

# ---- the last 24 hours -------------------------------------------------------------------------------------------------------------
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


class Tally(msgspec.Struct, frozen=True):
    """Results of an hour. Those of the first partial minute of the last 24 hours are counted once more, without an hour.

    `recent`: all of them are of the last 24 hours.
    """

    hour: datetime | None
    recent: bool
    count: int
    micros: int
    measured: int


TALLIED = """with visible_datasets as materialized (select v.dataset from visible v where v.subject = %(subject)s)
  select date_bin('1 hour', t.minute, '2000-01-01 00:00Z') as hour, t.minute > %(recent)s as recent, sum(t.count) as count,
    sum(t.micros) as micros, sum(t.measured) as measured
  from visible_datasets d join tallies t on t.dataset_id = d.dataset and t.minute >= %(since)s and t.minute <= %(now)s group by 1, 2
  union all select null, true, count(*), coalesce(sum(round(r.confidence * 1000000)), 0)::bigint, count(r.value)
  from visible_datasets d join results r on r.dataset_id = d.dataset and not r.hidden and r.reused is null
    and r.created_at > %(recent)s and r.created_at < %(minute)s"""


async def today(db: QueryDatabase, actor: Actor, *, now: datetime) -> Statistics:
    """Statistics of the 24 hours before `now` (UTC). Whole minutes are read from tallies, the first partial one from results."""
    tallies, newest = await asyncio.gather(_tallied(db, actor, now), results.newest(db, actor, maximum=10))
    hours = [hour_of(now) - timedelta(hours=back) for back in reversed(range(HOURS))]
    counts = Counter[datetime | None]()
    for tally in tallies:
        counts[tally.hour] += tally.count
    recent = [tally for tally in tallies if tally.recent]
    count = sum(tally.count for tally in recent)
    labelled = count - sum(tally.measured for tally in recent)
    return Statistics(
        classified_last_24_hours=count,
        average_confidence=sum(tally.micros for tally in recent) / 1_000_000 / labelled if labelled else 0.0,
        last_10_results=[*newest],
        hourly_counts=[HourlyCount(hour=hour, count=counts[hour]) for hour in hours],
    )


async def _tallied(db: QueryDatabase, actor: Actor, now: datetime) -> list[Tally]:
    recent = now - timedelta(hours=24)
    times = {
        "since": hour_of(recent),
        "recent": recent,
        "minute": recent.replace(second=0, microsecond=0) + timedelta(minutes=1),
        "now": now,
    }
    return await db.rows(TALLIED, {"subject": subject_of(actor, scope=Scope.RESULTS_READ), **times}, into=Tally)


# ---- groups ------------------------------------------------------------------------------------------------------------------------
BINS: Final = 20
"""Of the histogram of confidence: each is 0.05 wide, and the last includes 1."""
DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 366
MAX_GROUPS: Final = 1000
DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
NO_DEVICE: Final = UUID(int=0)
"""The device of results whose image names none."""


class Dimension(StrEnum):
    """What results can be grouped by."""

    MODEL = "model"
    VERSION = "version"
    DATASET = "dataset"
    DEVICE = "device"
    DAY = "day"
    LABEL = "label"
    VERDICT = "verdict"


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which results to count: those of the days from `first` to `last`, both included (UTC). A field that is None does not restrict."""

    first: date
    last: date
    dataset_id: UUID | None = None
    model_name: str | None = None
    model_version: int | None = None
    device_id: UUID | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a group. Fields by which results were not grouped are None; so is `device_id` if the images name none.

    `measured` of the `count` results are numbers of a regression, which have no confidence. `micros` is the sum of the confidence of the
    others, in millionths, and `bins` its histogram. `total` is the sum of the numbers.
    """

    model_name: str | None
    model_version: int | None
    dataset_id: UUID | None
    dataset_name: str | None
    device_id: UUID | None
    day: date | None
    label: str | None
    verdict: str | None
    count: int
    clear: int
    needs_review: int
    out_of_domain: int
    micros: int
    measured: int
    total: float
    bins: tuple[int, ...]

    @property
    def average_confidence(self) -> float | None:
        """From 0 to 1; None if all results are numbers."""
        labelled = self.count - self.measured
        return self.micros / 1_000_000 / labelled if labelled else None

    @property
    def average_value(self) -> float | None:
        """The mean of the numbers; None if there are none, and unless all of them are of one quantity of one model."""
        one_quantity = self.model_name is not None and self.label is not None
        return self.total / self.measured if self.measured and one_quantity else None


def _counted(verdict: str) -> str:
    return f"coalesce(sum(s.count) filter (where s.verdict = '{verdict}'), 0)"


HISTOGRAM = ", ".join(f"sum(s.bins[{number}])" for number in range(1, BINS + 1))
GROUPED = f"""select g.*, d.name as dataset_name from (
    select case when %(by_model)s then s.model_name end as model_name, case when %(by_version)s then s.model_version end as model_version,
      case when %(by_dataset)s then s.dataset_id end as dataset_id,
      case when %(by_device)s then nullif(s.device_id, %(no_device)s::uuid) end as device_id, case when %(by_day)s then s.day end as day,
      case when %(by_label)s then s.label end as label, case when %(by_verdict)s then s.verdict end as verdict,
      sum(s.count) as count, {_counted("clear")} as clear, {_counted("needs_review")} as needs_review,
      {_counted("out_of_domain")} as out_of_domain, sum(s.micros) as micros, sum(s.measured) as measured, sum(s.total) as total,
      array[{HISTOGRAM}] as bins
    from visible v join statistics s on s.dataset_id = v.dataset
    where v.subject = %(subject)s and s.day between %(first)s and %(last)s
      and (%(dataset_id)s::uuid is null or s.dataset_id = %(dataset_id)s::uuid)
      and (%(model_name)s::text is null or s.model_name = %(model_name)s::text)
      and (%(model_version)s::integer is null or s.model_version = %(model_version)s::integer)
      and (%(device_id)s::uuid is null or s.device_id = %(device_id)s::uuid)
    group by 1, 2, 3, 4, 5, 6, 7 having sum(s.count) > 0 limit %(maximum)s
  ) g left join datasets d on d.id = g.dataset_id order by g.day, g.model_name, g.model_version, d.name, g.dataset_id, g.device_id, g.label,
    g.verdict"""  # noqa: S608 - constants


async def grouped(db: QueryDatabase, actor: Actor, *, where: Filter, by: Collection[Dimension] = ()) -> list[Group]:
    """Statistics of visible results, in groups that have results. Without `by`, all results are one group.

    Raises Invalid if there are more than MAX_GROUPS groups.
    """
    grouping = {f"by_{dimension}": dimension in by for dimension in Dimension}
    parameters = {"subject": subject_of(actor, scope=Scope.RESULTS_READ), "no_device": NO_DEVICE, "maximum": MAX_GROUPS + 1, **grouping}
    found = await db.rows(GROUPED, parameters | msgspec.structs.asdict(where), into=Group)
    if len(found) > MAX_GROUPS:
        raise _invalid("group_by", f"gives more than {MAX_GROUPS:,} groups: choose fewer days, a filter, or fewer columns")
    return found


def days_of(first: str | None, last: str | None, *, today: date) -> tuple[date, date]:
    """The first and the last day that a caller chose: by default today, and DEFAULT_DAYS days that end with the last day.

    Raises Invalid for a text that is no day, if `first` is after `last`, or if there are more than MAX_DAYS.
    """
    until = _day("to", last) if last else today
    since = _day("from", first) if first else date.fromordinal(max(date.min.toordinal(), until.toordinal() - DEFAULT_DAYS + 1))
    if since > until:
        raise _invalid("from", "must not be after `to`")
    if (until - since).days >= MAX_DAYS:
        raise _invalid("from", f"must be at most {MAX_DAYS - 1} days before `to`")
    return since, until


def _day(parameter: str, text: str) -> date:
    if DAY.fullmatch(text):
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise _invalid(parameter, "must be a day such as 2026-03-01")


def dimensions_of(text: str | None) -> tuple[Dimension, ...]:
    """The dimensions in a list such as `model,day`. A version belongs to its model, so `version` includes `model`. Raises Invalid."""
    words = [word.strip() for word in text.split(",")] if text else []
    if unknown := set(words) - set(Dimension):
        raise _invalid("group_by", f"must be a list of {', '.join(Dimension)}, separated by commas; {len(unknown)} of these are unknown")
    chosen = {*words, Dimension.MODEL} if Dimension.VERSION in words else words
    return tuple(dimension for dimension in Dimension if dimension in chosen)


def _invalid(parameter: str, message: str) -> Invalid:
    return Invalid(f"{parameter} {message}", errors=[FieldError(loc=["query", parameter], msg=message)])
