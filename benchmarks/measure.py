"""Shared parts of the benchmarks: rows of the table, alternating measurements, separate servers."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Thread

import msgspec
import psycopg

from infrastructure.embedded.postgres.server import Postgres
from infrastructure.postgres.schema import migrate

ROUNDS = 5


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its goal. `limit` is the best that the machine could do in the same run, in the same unit."""

    name: str
    value: float
    unit: str
    goal: float
    limit: float | None = None
    at_least: bool = True

    @property
    def reached(self) -> bool:
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def shown(value: float) -> str:
    """The value with four digits, or as a whole number from 1,000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def measure_alternately(sides: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of each side. Sides alternate, and the first round is a warm-up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, measure in sides.items():
            value = measure()
            if number:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def rate(count: int, work: Callable[[], object]) -> float:
    """Operations per second."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def in_threads(threads: int, work: Callable[[int], object]) -> None:
    """Run `work(number)` in `threads` threads that start at the same time."""
    barrier = Barrier(threads + 1)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    running = [Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    barrier.wait()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def database() -> Iterator[Postgres]:
    """A separate, migrated Postgres."""
    with folder() as home, Postgres(home) as server:
        migrate(server.owner_url)
        yield server


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bioscope-bench-", dir=os.environ.get("BIOSCOPE_BENCH_FOLDER")) as home:
        yield Path(home)


def one(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None
