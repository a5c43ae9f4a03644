"""Statistics equal what counting the results gives, whatever happened to these; groups show what the reader may see."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.access import Actor, Grant, Role
from domain.errors import Invalid
from infrastructure.postgres.query_database import PostgresQueryDatabase
from projections import statistics
from projections.statistics import BINS, MAX_DAYS, MAX_GROUPS, NO_DEVICE, Dimension, Filter, days_of, dimensions_of
from tests.given import NOW

TODAY = NOW.date()
FEW_IDS = st.integers(1, 3).map(lambda number: UUID(int=number))
CONFIDENCES = st.one_of(st.floats(0, 1), st.integers(0, BINS).map(lambda number: number / BINS))
VALUES = st.one_of(st.none(), st.floats(-1e9, 1e9).map(lambda value: value + 0.0))
LABELS, VERDICTS = st.sampled_from(["round", "flat", "none"]), st.sampled_from(["clear", "needs_review", "out_of_domain"])
INSERT = """insert into results (id, classification_id, image_id, dataset_id, label, confidence, verdict, model_name, model_version, scores,
    created_at, hidden, position, sha256, value, device_id, reused)
  select id, classification_id, image_id, dataset_id, label, confidence, verdict, model_name, model_version, '{}',
    created_at, hidden, 1, '', value, device_id, reused from json_populate_recordset(null::results, %s::json) on conflict do nothing"""
COUNTED = """select dataset_id, day, model_name, model_version, device_id, label, verdict, count, micros, measured, total, bins
  from statistics where count <> 0"""


class Row(msgspec.Struct):
    id: UUID
    classification_id: UUID
    image_id: UUID
    dataset_id: UUID
    label: str
    confidence: float
    verdict: str
    model_name: str
    model_version: int
    created_at: datetime
    hidden: bool
    value: float | None
    device_id: UUID | None
    reused: UUID | None


ROWS = st.builds(
    Row,
    id=st.integers(0, 30).map(lambda number: UUID(int=number)),
    classification_id=FEW_IDS,
    image_id=FEW_IDS,
    dataset_id=FEW_IDS,
    label=LABELS,
    confidence=CONFIDENCES,
    verdict=VERDICTS,
    model_name=st.sampled_from(["shapes", "cells"]),
    model_version=st.integers(1, 2),
    created_at=st.integers(-2000, 2000).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    hidden=st.booleans(),
    value=VALUES,
    device_id=st.one_of(st.none(), FEW_IDS),
    reused=st.one_of(st.none(), st.none(), FEW_IDS),
)


class Change(NamedTuple):
    """A statement on results, as the projector or the worker of policies runs it."""

    statement: str
    parameters: tuple[object, ...]


CHANGES = st.one_of(
    st.lists(ROWS, min_size=1, max_size=8).map(lambda rows: Change(INSERT, (msgspec.json.encode(rows).decode(),))),
    st.builds(lambda job: Change("update results set hidden = true where not hidden and classification_id = %s", (job,)), FEW_IDS),
    st.builds(lambda image: Change("update results set hidden = true where not hidden and image_id = %s", (image,)), FEW_IDS),
    st.builds(
        lambda label, confidence, verdict, dataset: Change(
            "update results set label = %s, confidence = %s, verdict = %s where dataset_id = %s", (label, confidence, verdict, dataset)
        ),
        LABELS,
        CONFIDENCES,
        VERDICTS,
        FEW_IDS,
    ),
    st.builds(lambda job: Change("delete from results where classification_id = %s", (job,)), FEW_IDS),
)


def counted(connection):
    """{key: (count, micros, measured, total, bins)}, counted from the results."""
    found = defaultdict(lambda: [0, 0, 0, Decimal(0), [0] * BINS])
    rows = connection.execute(
        """select dataset_id, created_at, model_name, model_version, device_id, label, verdict, confidence, value
        from results where not hidden and reused is null"""
    )
    for dataset, at, model, version, device, label, verdict, confidence, value in rows:
        figures = found[dataset, at.astimezone(UTC).date(), model, version, device or NO_DEVICE, label, verdict]
        micros = round(confidence * 1_000_000)
        figures[0] += 1
        figures[1] += micros
        if value is None:
            figures[4][min(micros // (1_000_000 // BINS), BINS - 1)] += 1
        else:
            figures[2] += 1
            figures[3] += Decimal(f"{value:.15g}")
    return dict(found)


@given(st.lists(CHANGES, max_size=12))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_results_the_statistics_are_what_counting_gives(connection, changes):
    for table in ("results", "statistics", "tallies"):
        connection.execute(f"delete from {table}")
    for change in changes:
        connection.execute(change.statement, change.parameters)
        assert {tuple(row[:7]): list(row[7:]) for row in connection.execute(COUNTED)} == counted(connection)
    tallied = connection.execute("select coalesce(sum(count), 0), coalesce(sum(micros), 0), coalesce(sum(measured), 0) from tallies")
    of_statistics = connection.execute(
        "select coalesce(sum(count), 0), coalesce(sum(micros), 0), coalesce(sum(measured), 0) from statistics"
    )
    assert tallied.fetchone() == of_statistics.fetchone()


def test_results_are_counted_in_their_own_schema_whatever_the_search_path_is(owner_url, app_url):
    """As those of a rebuild are, and of an operator who repairs rows."""
    row = msgspec.convert({"model_version": 1, **dict.fromkeys(("label", "verdict", "model_name"), "x")} | ROW, Row)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("call ops.create_read_models('elsewhere')")
        for schema in ("elsewhere", "read", "elsewhere"):
            with owner.transaction():
                statement = INSERT.replace("results (", f"{schema}.results (").replace("null::results", f"null::{schema}.results")
                owner.execute(statement, (msgspec.json.encode([msgspec.structs.replace(row, id=uuid4())]).decode(),))
                assert owner.execute("show search_path").fetchone() == ('"$user", public',)
        counts = [owner.execute(f"select sum(count) from {schema}.statistics").fetchone()[0] for schema in ("elsewhere", "read")]
    assert counts == [2, 1]


ROW = {
    **{name: str(UUID(int=7)) for name in ("id", "classification_id", "image_id", "dataset_id")},
    "confidence": 0.5,
    "created_at": NOW.isoformat(),
    "hidden": False,
    "value": None,
    "device_id": None,
    "reused": None,
}


# ---- groups ------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
async def db(app_url):
    db = PostgresQueryDatabase(app_url)
    await db.open()
    yield db
    await db.close()


class TwoDays:
    """Results of two datasets on two days: `ada` owns both, `eve` may read the first one."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.ada, self.eve, self.admin = scenario.user(), scenario.user(Role.VIEWER, "eve"), scenario.user(Role.ADMIN, "admin")
        scenario.model("shapes")
        scenario.model("cells")
        self.scope = scenario.device(self.admin)
        self.first, self.second = scenario.dataset(self.ada, "first"), scenario.dataset(self.ada, "second")
        scenario.share(self.ada, self.first, self.eve, Grant.VIEWER)
        self.image = scenario.image(self.ada, self.first, device=self.scope)
        other = scenario.image(self.ada, self.second)
        self.job = self.judge(self.image, confidence=0.9)
        self.judge(self.image, confidence=0.5, model="cells")
        scenario.later(days=1)
        self.judge(self.image, confidence=0.7)
        self.judge(other, confidence=0.04)
        self.judge(other, confidence=0.0, value=12.5)
        self.judge(other, confidence=0.0, value=-2.0)
        scenario.follow()

    def judge(self, image, *, model="shapes", **found):
        job = self.scenario.job(self.ada, image=image, model=model)
        self.scenario.judge(job, 0, [image], **found)
        return job


@pytest.fixture
def two_days(scenario):
    return TwoDays(scenario)


BOTH_DAYS = Filter(first=TODAY, last=TODAY + timedelta(days=1))


@pytest.mark.anyio
async def test_without_columns_all_results_are_one_group(db, two_days):
    (found,) = await statistics.grouped(db, two_days.ada, where=BOTH_DAYS)
    assert (found.count, found.measured, found.clear, found.needs_review) == (6, 2, 6, 0)
    assert found.average_confidence == pytest.approx((0.9 + 0.5 + 0.7 + 0.04) / 4)
    assert {number: count for number, count in enumerate(found.bins) if count} == {0: 1, 10: 1, 14: 1, 18: 1}
    assert found.average_value is None
    assert [found.model_name, found.dataset_id, found.device_id, found.day, found.label, found.verdict] == [None] * 6


@pytest.mark.anyio
async def test_results_are_grouped_by_any_columns(db, two_days):
    async def counts(*by, **where):
        found = await statistics.grouped(db, two_days.ada, where=msgspec.structs.replace(BOTH_DAYS, **where), by=by)
        return [tuple(getattr(one, name) for name in NAMES[by]) for one in found]

    tomorrow = TODAY + timedelta(days=1)
    assert await counts(Dimension.DAY) == [(TODAY, 2), (tomorrow, 4)]
    assert await counts(Dimension.MODEL, Dimension.VERSION) == [("cells", 1, 1), ("shapes", 1, 5)]
    assert await counts(Dimension.DATASET) == [("first", two_days.first, 3), ("second", two_days.second, 3)]
    assert sorted(await counts(Dimension.DEVICE), key=str) == sorted([(None, 3), (two_days.scope, 3)], key=str)
    assert await counts(Dimension.DAY, dataset_id=two_days.first) == [(TODAY, 2), (tomorrow, 1)]
    assert await counts(Dimension.DAY, device_id=two_days.scope, model_name="cells", model_version=1) == [(TODAY, 1)]
    assert await counts(Dimension.DAY, model_name="cells", model_version=2) == []
    assert await counts(Dimension.DAY, last=TODAY) == [(TODAY, 2)]
    (label,) = await statistics.grouped(db, two_days.ada, where=BOTH_DAYS, by=[Dimension.VERDICT])
    assert (label.verdict, label.count) == ("clear", 6)


NAMES = {
    (Dimension.DAY,): ("day", "count"),
    (Dimension.MODEL, Dimension.VERSION): ("model_name", "model_version", "count"),
    (Dimension.DATASET,): ("dataset_name", "dataset_id", "count"),
    (Dimension.DEVICE,): ("device_id", "count"),
}


@pytest.mark.anyio
async def test_numbers_have_a_mean_where_they_are_of_one_quantity(db, two_days):
    found = await statistics.grouped(db, two_days.ada, where=BOTH_DAYS, by=[Dimension.MODEL, Dimension.LABEL])
    assert {one.model_name: (one.measured, one.average_value) for one in found} == {"cells": (0, None), "shapes": (2, 5.25)}


@pytest.mark.anyio
async def test_readers_count_only_what_they_may_see(db, two_days):
    nobody, service = Actor(id=uuid4(), role=Role.RESEARCHER), Actor(id=uuid4(), kind="service", scopes=frozenset({"images:read"}))
    readers = (two_days.ada, two_days.admin, two_days.eve, nobody, service)
    seen = [sum(one.count for one in await statistics.grouped(db, reader, where=BOTH_DAYS)) for reader in readers]
    assert seen == [6, 6, 3, 0, 0]
    foreign = msgspec.structs.replace(BOTH_DAYS, dataset_id=two_days.second)
    assert await statistics.grouped(db, two_days.eve, where=foreign) == []


@pytest.mark.anyio
async def test_deleted_jobs_images_and_datasets_are_taken_out(db, scenario, two_days):
    async def count():
        scenario.follow()
        return sum(one.count for one in await statistics.grouped(db, two_days.ada, where=BOTH_DAYS))

    scenario.delete_job(two_days.ada, two_days.job)
    assert await count() == 5
    scenario.delete_image(two_days.ada, two_days.image)
    assert await count() == 3
    scenario.delete_dataset(two_days.ada, two_days.second)
    assert await count() == 0


@pytest.mark.anyio
async def test_a_policy_moves_the_counts_to_the_labels_and_verdicts_in_force(db, connection, two_days):
    connection.execute("update results set label = 'flat', confidence = 0.3, verdict = 'needs_review' where value is null")
    found = await statistics.grouped(db, two_days.ada, where=BOTH_DAYS, by=[Dimension.LABEL])
    assert {one.label: (one.count, one.clear, one.needs_review) for one in found} == {"flat": (4, 0, 4), "round": (2, 2, 0)}
    assert found[0].average_confidence == pytest.approx(0.3)


@pytest.mark.anyio
async def test_a_result_that_repeats_an_earlier_one_counts_nowhere(db, scenario, connection, two_days):
    """Nor in the partial minute with which the last 24 hours begin, whose results are counted one by one."""
    in_that_minute = scenario.now + timedelta(days=1, microseconds=-1)
    for repeated in (0, 1):
        if repeated:
            connection.execute("update results set reused = %s", (uuid4(),))
        today = [await statistics.today(db, two_days.ada, now=now) for now in (scenario.now, in_that_minute)]
        assert [one.classified_last_24_hours for one in today] == ([0, 0] if repeated else [4, 4])
        found = await statistics.grouped(db, two_days.ada, where=BOTH_DAYS)
        assert [one.count for one in found] == ([] if repeated else [6])


@pytest.mark.anyio
async def test_too_many_groups_are_refused_with_a_way_out(db, connection, two_days):
    connection.execute(
        """insert into statistics select %s, %s::date, 'm' || n, 1, %s, 'round', 'clear', 1, 1, 0, 0, array_fill(0, array[20])
        from generate_series(1, %s) n""",
        (two_days.first, TODAY, NO_DEVICE, MAX_GROUPS),
    )
    with pytest.raises(Invalid, match="choose fewer days"):
        await statistics.grouped(db, two_days.ada, where=BOTH_DAYS, by=[Dimension.MODEL])
    (found,) = await statistics.grouped(db, two_days.ada, where=BOTH_DAYS)
    assert found.count == 6 + MAX_GROUPS


# ---- what callers choose -----------------------------------------------------------------------------------------------------------
def test_columns_are_a_list_of_known_words():
    assert dimensions_of(None) == dimensions_of("") == ()
    assert dimensions_of("version") == (Dimension.MODEL, Dimension.VERSION)
    assert dimensions_of("verdict, model,model") == (Dimension.MODEL, Dimension.VERDICT)
    for wrong in ("colour", "model,", "model;day", "MODEL"):
        with pytest.raises(Invalid, match="must be a list of model, version, dataset, device, day, label, verdict") as refused:
            dimensions_of(wrong)
        assert refused.value.errors[0]["loc"] == ["query", "group_by"]


def test_days_default_to_the_last_30():
    today = date(2026, 3, 1)
    assert days_of(None, None, today=today) == (date(2026, 1, 31), today)
    assert days_of("2025-01-01", "2025-01-01", today=today) == (date(2025, 1, 1), date(2025, 1, 1))
    assert days_of(None, "0001-01-02", today=today) == (date.min, date(1, 1, 2))
    assert days_of("2024-01-01", "2024-12-31", today=today) == (date(2024, 1, 1), date(2024, 12, 31))


@pytest.mark.parametrize(
    ("first", "last", "parameter", "advice"),
    [
        ("2026-03-02", None, "from", "must not be after `to`"),
        ("2024-01-01", "2025-01-01", "from", f"must be at most {MAX_DAYS - 1} days before `to`"),
        ("0001-01-01", "9999-12-31", "from", "days before `to`"),
        ("yesterday", None, "from", "must be a day such as 2026-03-01"),
        ("20260301", None, "from", "must be a day such as"),
        (None, "2026-02-30", "to", "must be a day such as"),
        (None, "2026-02-01T00:00:00Z", "to", "must be a day such as"),
    ],
)
def test_other_days_are_refused_with_what_is_right(first, last, parameter, advice):
    with pytest.raises(Invalid, match=advice) as refused:
        days_of(first, last, today=date(2026, 3, 1))
    assert refused.value.errors[0]["loc"] == ["query", parameter]
