"""Pages of 25 images out of ten thousand and out of a million, compared with a bare handler."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import UUID

import httpx
import msgspec

from benchmarks.bare import CapturedQuery
from benchmarks.latency import timed
from benchmarks.measure import Row, measure_alternately, percentile
from benchmarks.served import bare_server
from benchmarks.stack import BenchmarkSystem, cpu_seconds, owner_connection, system
from domain.access import Actor, Role
from projections import images

FEW, MANY = 10_000, 1_000_000
REQUESTS = 600
FILL_IMAGES = """insert into read.images (id, version, dataset_id, filename, sha256, size, media_type, width, height, bands, dtype,
    pages, axes, uploaded_by, uploaded_at, analyzed, accepted, deleted, position)
  select gen_random_uuid(), 2, %(dataset)s, 'cell ' || n || '.jpg', encode(sha256(n::text::bytea), 'hex'), 16000, 'image/jpeg', 360, 363,
    3, 'uint8', 1, 'YXC', %(owner)s, now() - n * interval '1 second', false, true, false, n from generate_series(1, %(count)s) n"""


def rows() -> Iterator[Row]:
    with system() as bench:
        few, many = filled(bench, FEW), filled(bench, MANY)
        with owner_connection(bench) as connection:
            connection.execute("vacuum analyze read.images")
        sides = measure_alternately({"few": lambda: listed(bench, few), "many": lambda: listed(bench, many)})
        yield Row(
            name="list 25 of 1,000,000 beside 25 of 10,000 images", value=sides["many"] / sides["few"], unit="x", goal=1.2, at_least=False
        )
        yield Row(
            name="list 25 of 1,000,000 images, p50",
            value=sides["many"],
            unit="ms",
            goal=1.2 * sides["few"],
            limit=sides["few"],
            at_least=False,
        )
        yield beside_bare(bench, few)


def filled(bench: BenchmarkSystem, count: int) -> str:
    dataset = bench.dataset()
    with owner_connection(bench) as connection:
        connection.execute(FILL_IMAGES, {"dataset": dataset, "owner": bench.owner, "count": count})
    return dataset


def listed(bench: BenchmarkSystem, dataset: str) -> float:
    """Median in ms."""
    return percentile([timed(lambda: bench.http.get("/api/images/", params={"dataset_id": dataset})) for _ in range(40)], 0.5)


def beside_bare(bench: BenchmarkSystem, dataset: str) -> Row:
    path = f"/api/images/?dataset_id={dataset}&cursor="  # the first page also counts; further pages do not
    first = bench.http.get("/api/images/", params={"dataset_id": dataset})
    path += first.headers["X-Next-Cursor"]
    answer = bench.http.get(path)
    home = bench.settings.data
    (home / "query.json").write_bytes(msgspec.json.encode(captured_query(bench, dataset, first.headers["X-Next-Cursor"], answer.content)))
    variables = {"BIOSCOPE_BENCH_QUERY": str(home / "query.json"), "BIOSCOPE_BENCH_DATABASE": bench.settings.postgres_url}
    with bare_server(home, **variables) as (url, pid), httpx.Client(base_url=url) as plain:
        assert plain.get("/page").content == answer.content
        api = bench.system.pid("api")
        sides = measure_alternately(
            {"ours": lambda: cost(api, lambda: bench.http.get(path)), "bare": lambda: cost(pid, lambda: plain.get("/page"))}
        )
    return Row(name="CPU of a page beside a bare handler", value=sides["ours"] / sides["bare"], unit="x", goal=1.7, at_least=False)


def captured_query(bench: BenchmarkSystem, dataset: str, cursor: str, answer: bytes) -> CapturedQuery:
    """The statement that reads the page, captured on its way to the database."""
    captured: list[CapturedQuery] = []

    class Capturing:
        async def rows(self, query: str, parameters: dict[str, object], **_: object) -> list[object]:
            plain = {name: str(value) if isinstance(value, UUID) else value for name, value in parameters.items()}
            captured.append(CapturedQuery(query, plain, answer))
            return []

    actor = Actor(id=bench.owner, role=Role.ADMIN)
    reading = images.listed(Capturing(), actor, where=images.Filter(dataset_id=UUID(dataset)), cursor=cursor)  # type: ignore[arg-type]
    with suppress(StopIteration):
        reading.send(None)
    return captured[-1]


def cost(pid: int, ask: Callable[[], httpx.Response]) -> float:
    """CPU seconds per request in the processes of the server."""
    before = cpu_seconds(pid)
    for _ in range(REQUESTS):
        ask().raise_for_status()
    return (cpu_seconds(pid) - before) / REQUESTS
