"""The figures of docs/scaling.md, from docs/performance.md and the results of the last benchmark. `make scaling` writes them."""

import math
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from scripts.phrases import numbers, with_numbers

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "scaling.md"
PERFORMANCE: Final = ROOT / "docs" / "performance.md"
RESULTS: Final = ROOT / "benchmarks" / "results.json"

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400
IMAGES_A_DAY: Final = 2 * DAY_SECONDS
IMAGES_A_YEAR: Final = 365 * IMAGES_A_DAY
EVENTS_AN_IMAGE: Final = 2.008  # upload, acceptance, and its share of a chunk
ROWS_AN_IMAGE: Final = 4
LOG_BYTES_AN_IMAGE: Final = 2400
WAL_BYTES_A_COMMAND: Final = 1300
IMAGES_PER_CHUNK: Final = 64
PARTITION_EVENTS: Final = 16_777_216
INSPECTION_MS, RESULT_MS = 13.0, 3.4  # measured once, for an image of 200 KiB


class Measured(NamedTuple):
    """Milliseconds of CPU from docs/performance.md; `verify_us` and `append_us` in microseconds."""

    children: float
    parent: float
    worker: float
    projector: float
    servers: float
    upload: float
    page: float
    page_in_postgres: float
    count_in_postgres: float
    append_us: float
    verify_us: float


PHRASES: Final = Measured(  # type: ignore[arg-type]
    children="the rest messages | # |",
    parent="talks to children and Kafka, appends | # |",
    worker="an image costs # ms of the worker's CPU",
    projector="projector and scheduler | # |",
    servers="Postgres, broker, relay, API, Redis | # |",
    upload="It takes # ms of CPU. A bare handler",
    page="The next page takes # ms of CPU",
    page_in_postgres="of it, the page # ms",
    count_in_postgres="the count of the whole list # ms",
    append_us="fell from 69 to # µs a command",
    verify_us="needs about # µs for each event in one process",
)


def measured() -> Measured:
    """Raises PhraseMissing."""
    text = PERFORMANCE.read_text()
    return Measured(*(numbers(text, phrase)[0] for phrase in PHRASES))  # type: ignore[arg-type]


def benchmark(name: str) -> float:
    return next(float(row["value"]) for row in msgspec.json.decode(RESULTS.read_bytes()) if row["name"] == name)


def figures() -> list[tuple[str, list[str]]]:
    """The phrases of docs/scaling.md, and their numbers as they are written."""
    of = measured()
    images = 10 * IMAGES_A_YEAR
    events, rows = images * EVENTS_AN_IMAGE, images * ROWS_AN_IMAGE
    per_worker, per_projector = 1000 / of.worker, 1000 / of.projector
    verify_hours = events * of.verify_us / 1e6 / HOUR_SECONDS
    first_page = of.page_in_postgres + of.count_in_postgres
    return [
        ("2 images/s, or # a day", [rounded(IMAGES_A_DAY, 3)]),
        ("takes about # ms: # ms for the upload", [rounded(of.upload + INSPECTION_MS + RESULT_MS), f"{of.upload:g}"]),
        ("A year has # million images", [rounded(IMAGES_A_YEAR / 1e6)]),
        ("them takes about # hours", [rounded(IMAGES_A_YEAR / benchmark("inference fp32") / HOUR_SECONDS)]),
        ("kB an image, or # GB a year", [rounded(IMAGES_A_YEAR * LOG_BYTES_AN_IMAGE / 1e9)]),
        ("(# GB a day at 200 KiB each)", [rounded(IMAGES_A_DAY * 200 * 1024 / 1e9)]),
        (
            "costs the worker # ms of CPU (# in the children, # in the parent)",
            [f"{of.worker:.2f}", f"{of.children:.2f}", f"{of.parent:.2f}"],
        ),
        ("This is **# images/s per core**", [rounded(per_worker)]),
        ("spends # ms an image: projector #,", [f"{of.projector + of.servers:.2f}", f"{of.projector:.2f}"]),
        ("relay and API #.", [f"{of.servers:.2f}"]),
        ("At # ms an image, it is full at **# images/s**", [f"{of.projector:.2f}", rounded(per_projector)]),
        ("which is about # cores of workers", [rounded(per_projector / per_worker)]),
        ("so # images/s are # appends/s", [rounded(per_projector), rounded(per_projector / IMAGES_PER_CHUNK)]),
        ("A next page costs # ms of CPU in the API and # ms in Postgres", [f"{of.page:.1f}", f"{of.page_in_postgres:.1f}"]),
        ("**# pages/s per core of API**", [rounded(1000 / of.page)]),
        ("and about # pages/s per core of Postgres", [rounded(1000 / of.page_in_postgres)]),
        ("It costs Postgres # ms: # pages/s per core", [f"{first_page:.1f}", rounded(1000 / first_page)]),
        ("Postgres' part is # µs a command", [f"{of.append_us:g}"]),
        ("about **# commands/s** (computed", [rounded(1e6 / of.append_us)]),
        ("passes # images/s", [rounded(per_projector)]),
        ("10 \u00d7 # commands/s", [rounded(benchmark("append, 64 writers"))]),
        ("1.3 kB = # MB/s", [rounded(10 * benchmark("append, 64 writers") * WAL_BYTES_A_COMMAND / 1e6)]),
        ("# million images and # billion events", [rounded(images / 1e6), rounded(events / 1e9)]),
        ("# TB in # partitions", [rounded(images * LOG_BYTES_AN_IMAGE / 1e12), rounded(events / PARTITION_EVENTS)]),
        ("under # hours", [str(math.ceil(events / benchmark("audit verify") / HOUR_SECONDS))]),
        ("# µs an event and process", [f"{of.verify_us:g}"]),
        ("| # hours of CPU", [rounded(verify_hours)]),
        ("# billion rows: # hours", [rounded(rows / 1e9), rounded(rows / benchmark("rebuild from the store") / HOUR_SECONDS)]),
        ("So # hours of CPU are about # hours on 2 cores", [rounded(verify_hours), rounded(verify_hours / 2)]),
    ]


def page(text: str) -> str:
    """The page with its figures. Raises PhraseMissing."""
    for phrase, written in figures():
        text = with_numbers(text, phrase, written)
    return text


def rounded(value: float, digits: int = 2) -> str:
    """To so many significant digits."""
    places = digits - 1 - math.floor(math.log10(value))
    return f"{round(value, places):,.{max(places, 0)}f}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
