"""Whether the time of a refused sign-in reveals that an account exists."""

import time
from collections.abc import Iterator
from statistics import median

import httpx

from benchmarks.measure import Row
from benchmarks.stack import BenchmarkSystem, system

SAMPLES = 200
WRONG = "not the password of anyone"


def rows() -> Iterator[Row]:
    with system() as bench:
        known, unknown = refused(bench, [bench.email, "nobody@example.org"])
        yield Row(
            name=f"refused sign-in, known against unknown address ({known:.1f} and {unknown:.1f} ms)",
            value=100 * abs(known - unknown) / known,
            unit="%",
            goal=10,
            at_least=False,
        )


def refused(bench: BenchmarkSystem, addresses: list[str]) -> list[float]:
    """The median of milliseconds for each address; the attempts alternate."""
    found: dict[str, list[float]] = {address: [] for address in addresses}
    with httpx.Client(base_url=bench.settings.base_url, timeout=60) as http:
        for _ in range(SAMPLES):
            for address, times in found.items():
                began = time.perf_counter()
                answer = http.post("/api/auth/login", json={"email": address, "password": WRONG})
                times.append(1000 * (time.perf_counter() - began))
                assert answer.status_code == httpx.codes.UNAUTHORIZED, answer.text
    return [median(times) for times in found.values()]
