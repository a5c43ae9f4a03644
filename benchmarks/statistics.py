"""Statistics over a million results of one day: of the last 24 hours, and in groups."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

from benchmarks.filled_log import LABELS
from benchmarks.latency import timed
from benchmarks.measure import Row, percentile
from benchmarks.stack import BenchmarkSystem, owner_connection, system
from domain.access import Actor, Role
from domain.classification import Verdict
from infrastructure.postgres.query_database import PostgresQueryDatabase
from projections import statistics
from projections.statistics import Dimension, Filter

RESULTS: Final = 1_000_000
DATASETS, DEVICES, VERSIONS = 20, 3, 2
REQUESTS: Final = 60
ROWS_PER_STATEMENT: Final = 20_000
FILL: Final = """insert into read.results (id, classification_id, image_id, dataset_id, label, confidence, verdict, model_name,
    model_version, scores, created_at, hidden, position, sha256, device_id)
  select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), (%(datasets)s::uuid[])[1 + n %% %(dataset_count)s],
    (%(labels)s::text[])[1 + n / 3 %% %(label_count)s], random(), (%(verdicts)s::text[])[1 + n / 7 %% %(verdict_count)s], 'pbc8',
    1 + n / 5 %% %(versions)s, '{}', %(now)s::timestamptz - n * interval '10 milliseconds', false, n, '',
    (%(devices)s::uuid[])[1 + n / 11 %% %(device_count)s]
  from generate_series(%(first)s::integer, %(last)s::integer) n"""
GROUPINGS: Final[Mapping[str, Sequence[Dimension]]] = {
    "together": (),
    "by model version": (Dimension.MODEL, Dimension.VERSION),
    "by dataset and verdict": (Dimension.DATASET, Dimension.VERDICT),
    "by label": (Dimension.LABEL,),
}


def rows() -> Iterator[Row]:
    with system() as bench:
        fill(bench)
        today = [timed(lambda: bench.http.get("/api/classification-results/today/statistics")) for _ in range(REQUESTS)]
        yield Row(name="statistics of today over 1,000,000 results, p50", value=percentile(today, 0.5), unit="ms", goal=5, at_least=False)
        slowest = max(over_http(bench, by) for by in GROUPINGS.values())
        yield Row(name="statistics in groups over 1,000,000 results, p50 over HTTP", value=slowest, unit="ms", goal=5, at_least=False)
        slowest = asyncio.run(in_process(bench))
        yield Row(name="statistics in groups over 1,000,000 results, p50 of the query", value=slowest, unit="ms", goal=3, at_least=False)


def fill(bench: BenchmarkSystem) -> None:
    """Results of the last three hours, of every combination of what they can be grouped by."""
    made = {
        "datasets": [bench.dataset() for _ in range(DATASETS)],
        "dataset_count": DATASETS,
        "labels": list(LABELS),
        "label_count": len(LABELS),
        "verdicts": list(Verdict),
        "verdict_count": len(Verdict),
        "versions": VERSIONS,
        "devices": [uuid4() for _ in range(DEVICES)],
        "device_count": DEVICES,
        "now": datetime.now(UTC),
    }
    with owner_connection(bench) as connection:
        for first in range(1, RESULTS, ROWS_PER_STATEMENT):
            connection.execute(FILL, {**made, "first": first, "last": first + ROWS_PER_STATEMENT - 1})
        connection.execute("vacuum analyze read.results, read.tallies, read.statistics, read.datasets, read.dataset_access")


def over_http(bench: BenchmarkSystem, by: Sequence[Dimension]) -> float:
    """Median in ms."""
    query = {"group_by": ",".join(by)}
    return percentile([timed(lambda: bench.http.get("/api/statistics/results", params=query)) for _ in range(REQUESTS)], 0.5)


async def in_process(bench: BenchmarkSystem) -> float:
    """Median in ms of the slowest grouping, from the call of the query to its decoded rows."""
    db = PostgresQueryDatabase(bench.settings.postgres_url)
    await db.open()
    where = Filter(first=datetime.now(UTC).date(), last=datetime.now(UTC).date())
    medians = []
    for by in GROUPINGS.values():
        found = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            groups = await statistics.grouped(db, Actor(id=UUID(str(bench.owner)), role=Role.ADMIN), where=where, by=by)
            found.append((time.perf_counter() - began) * 1000)
            assert groups
        medians.append(percentile(found, 0.5))
    await db.close()
    return max(medians)
