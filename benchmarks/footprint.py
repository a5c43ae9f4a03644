"""What the embedded system weighs, how long it takes to start, and how fast the record is verified."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.laboratory import fill
from benchmarks.measure import Row, database, folder, taking_turns
from benchmarks.stack import children_of, memory_of
from infrastructure.audit.chain_verification import verify
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey

SETTLE = 10.0  # seconds after which it is idle
EVENTS = 20_000
PAGE = 2000


def rows() -> Iterator[Row]:
    with folder() as home:
        first, _ = started(home)
        warm, weight = started(home, weigh=True)
    yield Row(name="first start until ready", value=first, unit="s", goal=12, at_least=False)
    yield Row(name="warm start until ready", value=warm, unit="s", goal=5, at_least=False)
    yield Row(name="memory of the whole system, idle", value=weight / 1e6, unit="MB", goal=600, at_least=False)
    yield verified()


def started(home: Path, *, weigh: bool = False) -> tuple[float, float]:
    """(seconds until it says ready, bytes of all its processes)."""
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
    with database() as server:
        root = RootKey(bytes(32))
        log = RecorderEventStore(PostgresRecorder(server.app_url, root), root)
        fill(log, images=EVENTS // 2, jobs=1)

        def walk() -> float:
            head = log.head()
            batches = (log.read(after, PAGE) for after in range(0, head, PAGE))
            began = time.perf_counter()
            newest = log.read(head - 1, 1)[0]
            found = verify(batches, heads=[], keys=root.public("heads"), stored_head=(head, newest.hash))
            assert found.problem is None
            return found.events / (time.perf_counter() - began)

        rate = taking_turns({"walk": walk}, rounds=3)["walk"]
        log.close()
    return Row(name="audit verify", value=rate, unit="events/s", goal=50_000)
