"""Uploads of 200 KiB: the server's CPU beside a bare handler that hashes and writes the same bytes; and calm while people sign in."""

import io
import time
from collections.abc import Iterator
from itertools import count
from threading import Event, Thread

import httpx
import numpy as np
from PIL import Image

from benchmarks.lists import cost
from benchmarks.measure import Row, percentile, taking_turns
from benchmarks.served import bare_server
from benchmarks.stack import PASSWORD, Bench, system

SIZE = 200 * 1024  # bytes
SIGNING_IN = 8
SECONDS = 5.0


def rows() -> Iterator[Row]:
    with system() as bench:
        yield calm(bench)
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
    """Another file of the same picture: with a comment behind the first marker."""
    comment = f"{number:08}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + jpeg[2:]


def beside_bare(bench: Bench) -> Row:
    dataset, data, numbers = bench.dataset(), picture(), count()

    def ours() -> httpx.Response:
        file = ("cell.jpg", numbered(data, next(numbers)), "image/jpeg")
        return bench.http.post("/api/images/upload", data={"dataset_id": dataset}, files={"file": file})

    with bare_server(bench.settings.data) as (url, pid), httpx.Client(base_url=url) as plain:
        api = bench.system.pid("api")

        def bare() -> httpx.Response:
            return plain.post("/upload", content=numbered(data, next(numbers)))

        sides = taking_turns({"ours": lambda: cost(api, ours), "bare": lambda: cost(pid, bare)}, rounds=3)
    return Row(
        name="CPU of a 200 KiB upload beside a bare handler", value=sides["ours"] / sides["bare"], unit="x", goal=2.5, at_least=False
    )


def calm(bench: Bench) -> Row:
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
