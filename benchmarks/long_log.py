"""Verifies, rebuilds, compares and backs up a log of many years, and measures time and memory of each.

    python -m benchmarks.long_log FOLDER --events 40000000

This generates the log in a separate Postgres in FOLDER, if it does not exist yet, then runs each part in its own process. Before the
backup the read models are emptied, because the backup does not need them and the disk may not hold both. The disk needs up to 1.5 kB per
event (estimated), while two sets of read models are compared.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread
from typing import Final, NamedTuple

import click
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.made_log import make_log
from benchmarks.stack import children_of
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.postgres.server import Postgres
from infrastructure.postgres.schema import migrate
from infrastructure.security.keys import RootKey, new_root_key

PICTURES: Final = 1000
SAMPLE_SECONDS: Final = 0.1
MIB: Final = 1 << 20
SIZES: Final = """select pg_total_relation_size(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'es' and c.relkind in ('r') and c.relname like 'events%'"""


class Measured(NamedTuple):
    """`memory` is the largest resident set of the process, `backend` that of the largest Postgres process, in bytes.

    Resident sets include shared pages: for Postgres up to 48 MB of buffers.
    """

    part: str
    seconds: float
    memory: int
    backend: int
    note: str


# ---- parts, each run in a process of its own ---------------------------------------------------------------------------------------
def verify(given: Settings, _: Path) -> str:
    from infrastructure.audit.log_verification import verify_log  # noqa: PLC0415 - a process loads what it needs
    from infrastructure.eventstore.event_store import open_event_store  # noqa: PLC0415 - a process loads what it needs

    with open_event_store(given) as log:
        found = verify_log(given, log)
    return f"{found.events} events, " + (found.problem or "intact")


def rebuild(given: Settings, _: Path) -> str:
    return _rebuilt(given, check=False)


def check(given: Settings, _: Path) -> str:
    return _rebuilt(given, check=True)


def backup(given: Settings, folder: Path) -> str:
    from infrastructure.blobs.store import open_blobs  # noqa: PLC0415 - a process loads what it needs
    from infrastructure.operations.backup import backup as copy  # noqa: PLC0415 - a process loads what it needs
    from infrastructure.security.process_keys import operator_keys  # noqa: PLC0415 - a process loads what it needs

    rmtree(folder / "backup", ignore_errors=True)
    keys = operator_keys(given)
    made = copy(given.postgres_owner_url, open_blobs(given, keys), folder / "backup", root=keys)
    size = sum(path.stat().st_size for path in (folder / "backup").rglob("*") if path.is_file())
    rmtree(folder / "backup")
    return f"{made.position} events, {len(made.blobs)} blobs, {size / MIB:,.0f} MiB"


def _rebuilt(given: Settings, *, check: bool) -> str:
    from projections.process.rebuilds import rebuild as made_anew  # noqa: PLC0415 - a process loads what it needs

    began = time.monotonic()
    applied = [began]

    def progress(what: str, _: int) -> None:
        if what == "events":
            applied[:] = [time.monotonic()]

    found = made_anew(given, check=check, progress=progress)
    differing = ", ".join(map(str, found.differing)) or "none"
    return f"{found.events} events applied after {applied[0] - began:.0f} s" + (f"; differing: {differing}" if check else "")


PARTS: Final[dict[str, Callable[[Settings, Path], str]]] = {"verify": verify, "rebuild": rebuild, "check": check, "backup": backup}


def _run(part: str, given: Settings, folder: Path, answer: Path) -> None:
    answer.write_text(PARTS[part](given, folder))


# ---- measuring ---------------------------------------------------------------------------------------------------------------------
def measured(part: str, given: Settings, folder: Path) -> Measured:
    answer = folder / "answer"
    answer.unlink(missing_ok=True)
    process = get_context("spawn").Process(target=_run, args=(part, given, folder, answer))
    began = time.monotonic()
    process.start()
    with sampled(int(process.pid or 0), folder) as peaks:
        process.join()
    seconds = time.monotonic() - began
    note = answer.read_text() if answer.exists() else f"FAILED ({process.exitcode})"
    return Measured(part, seconds, peaks["process"], peaks["postgres"], note)


@contextmanager
def sampled(pid: int, folder: Path) -> Iterator[dict[str, int]]:
    """Yields the peaks so far of the process with its children, and of the server."""
    peaks, ended = {"process": 0, "postgres": 0}, Event()
    server = int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for name, root in (("process", pid), ("postgres", server)):
                with suppress(OSError):
                    peaks[name] = max([peaks[name], *map(_peak, [root, *children_of(root)])])

    watching = Thread(target=watch, daemon=True)
    watching.start()
    yield peaks
    ended.set()
    watching.join()


def _peak(pid: int) -> int:
    """Largest resident set of a process, in bytes."""
    with suppress(OSError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def settings(folder: Path, server: Postgres) -> Settings:
    given = Settings(data=folder, postgres_url=server.app_url, postgres_owner_url=server.owner_url)
    given.root_key_path.parent.mkdir(parents=True, exist_ok=True)
    if not given.root_key_path.exists():
        given.root_key_path.write_text(new_root_key())
    return given


def stored_pictures(given: Settings) -> list[str]:
    """Store placeholders for pictures in the blob store. Returns their sha256."""
    from infrastructure.blobs.store import open_blobs  # noqa: PLC0415 - a process loads what it needs
    from infrastructure.security.process_keys import operator_keys  # noqa: PLC0415 - a process loads what it needs

    store = open_blobs(given, operator_keys(given))
    names = []
    for number in range(PICTURES):
        data = f"picture {number}".encode()
        if not store.exists(sha256(data).hexdigest()):
            writer = store.begin()
            writer.write(data)
            writer.commit()
        names.append(sha256(data).hexdigest())
    return names


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--events", default=40_000_000, show_default=True)
@click.option("--only", "only", multiple=True, type=click.Choice(list(PARTS)), help="Run this part only; may be repeated.")
def main(folder: Path, events: int, only: tuple[str, ...]) -> None:
    """Generate a log in FOLDER, and measure operations over the whole log."""
    console = Console(stderr=True)
    folder.mkdir(parents=True, exist_ok=True)
    with Postgres(folder) as server:
        migrate(server.owner_url)
        given = settings(folder, server)
        rows = [_made(given, server, events, console)]
        for part in only or PARTS:
            if part == "backup":
                _empty_read_models(server)
            rows.append(measured(part, given, folder))
            console.print(*rows[-1])
    console.print(_table(rows), highlight=False)


def _made(given: Settings, server: Postgres, events: int, console: Console) -> Measured:
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        (head,) = connection.execute("select position from es.head").fetchone() or (0,)
        seconds = 0.0
        if not head:
            pictures, root = stored_pictures(given), RootKey.read(given.root_key_path)
            seconds = make_log(server.owner_url, root, events, pictures, progress=lambda at: console.print(f"{at} events", end="\r"))
            connection.execute("vacuum analyze")
        (head,) = connection.execute("select position from es.head").fetchone() or (0,)
        (size,) = connection.execute(f"select sum(pg_total_relation_size) from ({SIZES}) sizes").fetchone() or (0,)
    return Measured("make", seconds, _peak(os.getpid()), 0, f"{head} events, {size / head:.0f} bytes per event in es.events, with indexes")


def _empty_read_models(server: Postgres) -> None:
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("drop schema read cascade")
        connection.execute("call ops.create_read_models('read')")


def _table(rows: list[Measured]) -> Table:
    table = Table(title="A long log", title_justify="left")
    for column in ("part", "seconds", "process, MiB", "largest Postgres process, MiB", ""):
        table.add_column(column, justify="left" if column in {"part", ""} else "right")
    for part, seconds, memory, backend, note in rows:
        table.add_row(part, f"{seconds:,.1f}", f"{memory / MIB:,.0f}", f"{backend / MIB:,.0f}", note)
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
