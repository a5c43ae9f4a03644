"""Uploads of 200 KiB, compared with a bare handler that hashes and writes the same bytes, and from a device with a long stream.

Also the latency of /health/live while users sign in.
"""

import io
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import count
from threading import Event, Thread
from uuid import UUID, uuid4

import httpx
import numpy as np
from PIL import Image

from benchmarks.filled_log import append
from benchmarks.lists import cost
from benchmarks.measure import Row, measure_alternately, percentile
from benchmarks.served import bare_server
from benchmarks.stack import PASSWORD, BenchmarkSystem, system
from domain.device import DeviceCameOnline

SIZE = 200 * 1024  # bytes
SIGNING_IN = 8
SIGNS = 26_000  # three days with one every ten seconds
SECONDS = 5.0


def rows() -> Iterator[Row]:
    with system() as bench:
        yield calm(bench)
        yield from from_a_watched_device(bench)
        yield beside_bare(bench)


def picture() -> bytes:
    """A JPEG of about `SIZE` bytes, with detail."""
    noise = np.random.default_rng(1).normal(128, 40, (560, 560, 3)).clip(0, 255).astype(np.uint8)
    for quality in range(50, 100):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=quality)
        if file.tell() >= SIZE:
            return file.getvalue()
    return file.getvalue()


def numbered(jpeg: bytes, number: int) -> bytes:
    """Another file with the same picture: it has a comment after the first marker."""
    comment = f"{number:08}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + jpeg[2:]


def beside_bare(bench: BenchmarkSystem) -> Row:
    dataset, data, numbers = bench.dataset(), picture(), count()

    def ours() -> httpx.Response:
        file = ("cell.jpg", numbered(data, next(numbers)), "image/jpeg")
        return bench.http.post("/api/images/upload", data={"dataset_id": dataset}, files={"file": file})

    with bare_server(bench.settings.data) as (url, pid), httpx.Client(base_url=url) as plain:
        api = bench.system.pid("api")

        def bare() -> httpx.Response:
            return plain.post("/upload", content=numbered(data, next(numbers)))

        sides = measure_alternately({"ours": lambda: cost(api, ours), "bare": lambda: cost(pid, bare)}, rounds=3)
    return Row(
        name="CPU of a 200 KiB upload beside a bare handler", value=sides["ours"] / sides["bare"], unit="x", goal=2.5, at_least=False
    )


def from_a_watched_device(bench: BenchmarkSystem) -> Iterator[Row]:
    """A device with three days of heartbeats as events, as an earlier release recorded them, compared with a new device."""
    dataset, data, numbers = bench.dataset(), picture(), count(10**6)
    watched, new = (bench.post("/api/devices/", {"name": "scope", "hostname": uuid4().hex}).json()["id"] for _ in range(2))
    _recorded_signs(bench, UUID(watched), SIGNS)

    def upload(device: str) -> None:
        file = ("cell.jpg", numbered(data, next(numbers)), "image/jpeg")
        form = {"dataset_id": dataset, "device_id": device}
        bench.http.post("/api/images/upload", data=form, files={"file": file}).raise_for_status()

    def sign(device: str) -> None:
        bench.http.patch(f"/api/devices/{device}/status", json={"is_online": True}).raise_for_status()

    for name, act in {"upload from": upload, "sign of life of": sign}.items():
        measures = {device: partial(_milliseconds, partial(act, device)) for device in (watched, new)}
        sides = measure_alternately(measures, rounds=15)
        print(f"{name} a watched device {sides[watched]:.1f} ms, of a new one {sides[new]:.1f} ms")
        yield Row(
            name=f"{name} a device with {SIGNS:,} events beside a new one",
            value=sides[watched] / sides[new],
            unit="x",
            goal=1.2,
            at_least=False,
        )


def _recorded_signs(bench: BenchmarkSystem, scope: UUID, signs: int) -> None:
    at, by = datetime.now(UTC), bench.owner
    for start in range(2, signs + 2, 500):
        versions = range(start, min(start + 500, signs + 2))
        append(bench.log, *(DeviceCameOnline(originator_id=scope, originator_version=one, at=at, by=by) for one in versions))
    bench.caught_up()


def _milliseconds(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def calm(bench: BenchmarkSystem) -> Row:
    stop = Event()

    def sign_in() -> None:
        with httpx.Client(base_url=bench.settings.base_url, timeout=30) as http:
            while not stop.is_set():
                http.post("/api/auth/login", json={"email": bench.email, "password": PASSWORD})

    people = [Thread(target=sign_in) for _ in range(SIGNING_IN)]
    for person in people:
        person.start()
    found, until = [], time.monotonic() + SECONDS
    with httpx.Client(base_url=bench.settings.base_url, timeout=30) as http:
        while time.monotonic() < until:
            began = time.perf_counter()
            http.get("/health/live")
            found.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    stop.set()
    for person in people:
        person.join()
    return Row(
        name=f"/health/live, p95 while {SIGNING_IN} people sign in", value=percentile(found, 0.95), unit="ms", goal=50, at_least=False
    )
