"""Latency of the embedded system: of a command until it is visible, and of a run until its result is readable, alone and beside a job."""

import json
import time
from collections.abc import Callable, Iterator
from statistics import median

from websockets.sync.client import ClientConnection, connect

from benchmarks.measure import Row, percentile
from benchmarks.stack import PICTURES, BenchmarkSystem, another_person, system, with_images

COMMANDS, RUNS = 300, 60
BESIDE = 10_000  # images of the job in the background
PAUSE = 0.02  # seconds between two commands, during which the system is idle
POLL = 0.003


def rows() -> Iterator[Row]:
    with system() as bench:
        dataset = bench.dataset()
        image = uploaded(bench, dataset)
        for _ in range(5):
            until_readable(bench, image)
        commands = [timed(bench.dataset) for _ in range(COMMANDS)]
        yield Row(name="command -> visible, p50 (over HTTP)", value=percentile(commands, 0.5), unit="ms", goal=15, at_least=False)
        yield Row(name="command -> visible, p99 (over HTTP)", value=percentile(commands, 0.99), unit="ms", goal=60, at_least=False)
        runs = [timed(lambda: until_readable(bench, image)) for _ in range(RUNS)]
        yield Row(name="run -> result readable, p50", value=percentile(runs, 0.5), unit="ms", goal=120, at_least=False)
        yield Row(name="run -> result readable, p99", value=percentile(runs, 0.99), unit="ms", goal=500, at_least=False)
        pushed, readable = pushes(bench, image)
        yield Row(
            name="WebSocket push, p50", value=median(pushed), unit="ms", goal=median(readable) + 5, limit=median(readable), at_least=False
        )
        with another_person(bench) as other:
            yield from beside_a_job(bench, other, image, alone=median(runs))


def beside_a_job(bench: BenchmarkSystem, other: BenchmarkSystem, image: str, *, alone: float) -> Iterator[Row]:
    """Runs of one image by another person than that of the job. `alone` is their usual duration in ms."""
    job = bench.post("/api/classifications/run", {"dataset_id": with_images(bench, BESIDE), "fresh": True}).json()["id"]
    found = []
    while other.http.get(f"/api/classifications/{job}").json()["status"] in {"pending", "running"}:
        found.append(timed(lambda: until_readable(other, image)))
        time.sleep(0.1)
    readable = percentile(found, 0.99)
    beside = f"beside another person's job of {BESIDE:,} images"
    yield Row(name=f"run -> result readable, p99, {beside}", value=readable, unit="ms", goal=500, at_least=False)
    yield Row(name=f"delay of a run, p99, {beside}", value=readable - alone, unit="ms", goal=200, at_least=False)


def uploaded(bench: BenchmarkSystem, dataset: str) -> str:
    picture = PICTURES[0]
    answer = bench.http.post("/api/images/upload", data={"dataset_id": dataset}, files={"file": (picture.name, picture.read_bytes())})
    answer.raise_for_status()
    return str(answer.json()["id"])


def until_readable(bench: BenchmarkSystem, image: str) -> None:
    job = bench.post("/api/classifications/run", {"image_id": image, "fresh": True}).json()["id"]
    while not bench.http.get(f"/api/classification-results/classification/{job}").json():
        time.sleep(POLL)


def pushes(bench: BenchmarkSystem, image: str) -> tuple[list[float], list[float]]:
    """(ms until the result was pushed, ms until it was readable), each a list over the same runs."""
    pushed, readable = [], []
    with connect(bench.settings.base_url.replace("http", "ws") + "/api/ws") as socket:
        socket.send(json.dumps({"type": "auth", "token": bench.token}))
        socket.send(json.dumps({"type": "subscribe"}))
        for _ in range(20):
            drain(socket)
            began = time.perf_counter()
            job = bench.post("/api/classifications/run", {"image_id": image, "fresh": True}).json()["id"]
            wait_for_result(socket, job)
            pushed.append((time.perf_counter() - began) * 1000)
            readable.append(timed(lambda: until_readable(bench, image)))
    return pushed, readable


def wait_for_result(socket: ClientConnection, job: str) -> None:
    while True:
        message = json.loads(socket.recv(timeout=10))
        if message.get("event") == "ChunkJudged" and job in message.get("subjects", ()):
            return


def drain(socket: ClientConnection) -> None:
    time.sleep(0.1)
    while True:
        try:
            socket.recv(timeout=0)
        except TimeoutError:
            return


def timed(act: Callable[[], object]) -> float:
    """Duration in ms."""
    time.sleep(PAUSE)
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000
