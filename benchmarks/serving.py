"""The cost of a request on ordinary routes, and of an idle connection: `python -m benchmarks.serving [NAME=PYTHON ...]`.

Each PYTHON is the interpreter of an environment with an installed revision; the default is this environment. All revisions serve the
same database at the same time and are measured alternately, so their figures are comparable.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.measure import percentile
from benchmarks.served import wait_until_it_answers
from benchmarks.stack import BenchmarkSystem, children_of, cpu_seconds, memory_of, system
from infrastructure.embedded.child import Child
from infrastructure.embedded.installation import environment, with_free_port

ROUTES = ("/health/live", "/api/users/me", "/api/datasets/?page_size=20")
DATASETS, ROUNDS, AT_A_TIME, WARM = 20, 80, 25, 10
IDLE, TIMES = 500, 1
PAUSE = 0.003  # seconds between two requests, so that a busy machine does not throttle the thread
OF_ALL_REVISIONS = ("DATA", "PORT", "POSTGRES_URL", "KAFKA_URL", "REDIS_URL", "BLOBS_URL", "ROOT_KEY_FILE", "LOG_LEVEL")


class Side(NamedTuple):
    port: int
    pid: int


class Cost(NamedTuple):
    p10: float  # microseconds; on a busy machine closest to the request alone
    p50: float  # microseconds
    cpu: float  # microseconds


def main(named: list[str]) -> None:
    pythons = dict(one.split("=", 1) for one in named) or {"this": sys.executable}
    with system() as bench, ExitStack() as running:
        for _ in range(DATASETS):
            bench.dataset()
        sides = {name: running.enter_context(served(bench, name, python)) for name, python in pythons.items()}
        for route in ROUTES * TIMES:
            for name, cost in turns(sides, route, bench.token).items():
                print(f"{route:30} {name:10} p10 {cost.p10:7.1f} us   p50 {cost.p50:7.1f} us   CPU {cost.cpu:7.1f} us", flush=True)
        for name, side in sides.items():
            print(f"{'idle connection':30} {name:10} {idle(side) / 1024:.1f} KiB", flush=True)


@contextmanager
def served(bench: BenchmarkSystem, name: str, python: str) -> Iterator[Side]:
    """An API process of an environment, on the database of `bench`."""
    given = with_free_port(msgspec.structs.replace(bench.settings, port=0, log_level="warning"))
    variables = environment(given, os.environ)
    passed = {key: value for key, value in variables.items() if not key.startswith("BIOSCOPE_") or key[9:] in OF_ALL_REVISIONS}
    child = Child((python, "-P", "-m", "api.cli", "api"), log=Path(given.data) / f"{name}.log", environment=passed)
    try:
        wait_until_it_answers(f"{given.base_url}/health/live")
        yield Side(given.port, child.pid)
    finally:
        child.ask_to_stop()
        child.ended(within=5)
        child.kill()


def turns(sides: dict[str, Side], route: str, token: str) -> dict[str, Cost]:
    """Requests over one connection to each side. Sides alternate often, so that other load affects all of them alike."""
    with ExitStack() as held:
        connections = {name: held.enter_context(socket.create_connection(("127.0.0.1", side.port))) for name, side in sides.items()}
        _asked(connections, sides, route, token, rounds=WARM)
        before = {name: cpu_seconds(side.pid) for name, side in sides.items()}
        times = _asked(connections, sides, route, token, rounds=ROUNDS)
        used = {name: cpu_seconds(side.pid) - before[name] for name, side in sides.items()}
    return {name: Cost(percentile(times[name], 0.1), percentile(times[name], 0.5), used[name] / len(times[name]) * 1e6) for name in sides}


def _asked(connections: dict[str, socket.socket], sides: dict[str, Side], route: str, token: str, *, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            request = f"GET {route} HTTP/1.1\r\nHost: 127.0.0.1:{sides[name].port}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            for _ in range(AT_A_TIME):
                time.sleep(PAUSE)
                began = time.perf_counter()
                _answer(connections[name], request)
                times[name].append((time.perf_counter() - began) * 1e6)
    return times


def _answer(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)


def idle(side: Side) -> float:
    """Memory in bytes of an idle connection."""
    before = _memory(side.pid)
    with ExitStack() as held:
        for _ in range(IDLE):
            held.enter_context(socket.create_connection(("127.0.0.1", side.port)))
        time.sleep(1)
        return (_memory(side.pid) - before) / IDLE


def _memory(pid: int) -> int:
    return sum(map(memory_of, [pid, *children_of(pid)]))


if __name__ == "__main__":
    main(sys.argv[1:])
