"""Memory and start time of the embedded system, and speed of the verification of the log."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.long_log import settings, stored_pictures
from benchmarks.made_log import make_log
from benchmarks.measure import Row, folder, measure_alternately
from benchmarks.stack import children_of, memory_of
from infrastructure.audit.log_verification import verify_log
from infrastructure.embedded.postgres.server import Postgres
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.postgres.schema import migrate
from infrastructure.security.keys import RootKey

SETTLE = 10.0  # seconds until it is idle
EVENTS = 400_000


def rows() -> Iterator[Row]:
    with folder() as home:
        first, _ = started(home)
        warm, weight = started(home, weigh=True)
    yield Row(name="first start until ready", value=first, unit="s", goal=12, at_least=False)
    yield Row(name="warm start until ready", value=warm, unit="s", goal=5, at_least=False)
    yield Row(name="memory of the whole system, idle", value=weight / 1e6, unit="MB", goal=600, at_least=False)
    yield verified()


def started(home: Path, *, weigh: bool = False) -> tuple[float, float]:
    """(seconds until it prints ready, memory of all its processes in bytes)."""
    command = [sys.executable, "-m", "api.cli", "up", "--data", str(home / "data"), "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
        assert up.stdout is not None
        next(line for line in up.stdout if line.startswith("ready:"))
        seconds, weight = time.perf_counter() - began, 0
        if weigh:
            time.sleep(SETTLE)
            weight = sum(memory_of(pid) for pid in [up.pid, *children_of(up.pid)])
        os.kill(up.pid, signal.SIGTERM)
        up.wait(15)
    return seconds, float(weight)


def verified() -> Row:
    """The checks of `bioscope audit verify`: chain, heads, rules and accompanying tables, with one process per core."""
    with folder() as home, Postgres(home) as server:
        migrate(server.owner_url)
        given = settings(home, server)
        make_log(server.owner_url, RootKey.read(given.root_key_path), EVENTS, stored_pictures(given))
        with open_event_store(given) as log:

            def walk() -> float:
                began = time.perf_counter()
                found = verify_log(given, log)
                assert found.problem is None, found.problem
                return found.events / (time.perf_counter() - began)

            rate = measure_alternately({"walk": walk}, rounds=3)["walk"]
    return Row(name="audit verify", value=rate, unit="events/s", goal=50_000)
