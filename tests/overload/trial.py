"""Three trials of a running API: overload, slow clients, and a stop under load."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.chaos.bioscope_up import children
from tests.overload.load import Line, Load

TIMES = 4
LIGHT, BUSY = 2, 64  # connections that ask one request after the other
SETTLED_WITHIN = 10.0
ACCEPTED_WITHIN = 2.5  # seconds; a command's answer waits 2 s at most until its effect can be read
MEMORY_MOST = 128 * 1024**2  # bytes that the API may grow by
SLOW = 300  # clients: more than are worked on at once
DEAF = 150


class Overloaded(NamedTuple):
    """`broken` is empty where all held. Seconds; bytes; requests a second."""

    capacity: float
    light_p50: float
    busy_p99: float
    offered: float
    accepted: float
    statuses: dict[int, int]
    held_back: int
    accepted_p50: float
    accepted_p99: float
    grown: int
    normal_after: float | None
    broken: list[str]


async def overloaded(load: Load, api_pid, *, seconds, measured=5.0, slower=3.0):
    """Offer TIMES what it can take for `seconds`. `slower`: what the accepted requests' p99 may be, in its p99 when it is just busy."""
    await load.sustained(lines=BUSY, seconds=1.0)
    light = await load.sustained(lines=LIGHT, seconds=measured)
    busy = await load.sustained(lines=BUSY, seconds=measured)
    before = memory(api_pid)
    heard = await load.offered(rate=TIMES * busy.per_second, seconds=seconds)
    normal = await _normal_again(load, light.at(0.5))
    grown = memory(api_pid) - before
    return Overloaded(
        capacity=busy.per_second,
        light_p50=light.at(0.5),
        busy_p99=busy.at(0.99),
        offered=heard.offered,
        accepted=heard.per_second,
        statuses=dict(sorted(heard.statuses.items())),
        held_back=heard.held_back,
        accepted_p50=heard.at(0.5),
        accepted_p99=heard.at(0.99),
        grown=grown,
        normal_after=normal,
        broken=list(_broken(heard, busy, slower, grown, normal)),
    )


def _broken(heard, busy, slower, grown, normal):
    yield from (
        f"{times} answers of {status}" for status, times in heard.statuses.items() if not (200 <= status < 300 or status in {429, 503})
    )
    yield from (f"{times} requests ended by {what}" for what, times in heard.broken.items())
    silent = sum(one.status in {429, 503} and not one.says_when for one in heard.answered)
    if silent:
        yield f"{silent} refusals without Retry-After"
    if heard.at(0.99) > (maximum := max(ACCEPTED_WITHIN, slower * busy.at(0.99))):
        yield f"accepted requests' p99 is {heard.at(0.99):.2f} s, more than {maximum:.2f} s"
    if grown > MEMORY_MOST:
        yield f"the API grew by {grown / 2**20:.0f} MiB"
    if normal is None:
        yield f"not as before within {SETTLED_WITHIN:.0f} s"


async def _normal_again(load, p50):
    """Seconds until requests are answered as before, twice as slow at most; None when not within SETTLED_WITHIN."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < SETTLED_WITHIN:
        found = await load.sustained(lines=LIGHT, seconds=0.5)
        if found.accepted and found.at(0.5) < 2 * p50 + 0.05 and set(found.statuses) <= {200, 201}:
            return passed
    return None


class Slowed(NamedTuple):
    before_p99: float
    beside_p99: float
    refused: int


async def beside_slow_clients(load: Load, large: str, *, seconds=4.0):
    """How others are served while SLOW clients send their bodies a byte at a time, and DEAF ones read nothing of `large`, a path."""
    before = await load.sustained(lines=4, seconds=seconds)
    slow = [asyncio.ensure_future(_trickle(load)) for _ in range(SLOW)]
    deaf = [asyncio.ensure_future(_reads_nothing(load, large)) for _ in range(DEAF)]
    await asyncio.sleep(2.0)
    beside = await load.sustained(lines=4, seconds=seconds)
    for one in (*slow, *deaf):
        one.cancel()
    await asyncio.gather(*slow, *deaf, return_exceptions=True)
    return Slowed(before.at(0.99), beside.at(0.99), sum(times for status, times in beside.statuses.items() if status >= 300))


async def _trickle(load):
    head, _, body = load.command().partition(b"\r\n\r\n")
    async with _connected(load) as say:
        await say(head + b"\r\n\r\n")
        for at in range(len(body) - 1):
            await say(body[at : at + 1])
            await asyncio.sleep(1.0)
        await asyncio.sleep(600)


async def _reads_nothing(load, path):
    async with _connected(load) as say:
        await say(f"GET {path} HTTP/1.1\r\nHost: {load.place[0]}\r\n\r\n".encode())
        await asyncio.sleep(600)


@contextlib.asynccontextmanager
async def _connected(load):
    """A connection with hardly any room for what comes."""
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(narrow, load.place)
        yield lambda said: loop.sock_sendall(narrow, said)


def large_picture(folder: Path) -> Path:
    """12 MB: more than what lies between two programs ever holds."""
    path = folder / "large.tif"
    pixels = np.random.default_rng(1).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


class Drained(NamedTuple):
    """`cut_off`: requests on connections that were let in, without a whole answer."""

    answered: int
    refused: int
    cut_off: list[str]
    ended_after: float


async def drained(load: Load, api_pid, *, lines=24, before=2.0):
    """Ask the API to end while `lines` clients ask: half of them on a new connection each time, half on one as long as it is kept.

    Refused is who was not let in any more.
    """
    counts = {"answered": 0, "refused": 0}
    cut_off: list[str] = []

    async def client(*, keeps):
        line = Line(*load.place)
        while True:
            try:
                answer = await line.ask(load.command())
                counts["answered"] += answer.status < 400 or answer.status in {429, 503}
            except ConnectionRefusedError:
                counts["refused"] += 1
                return
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                cut_off.append(type(error).__name__)
                return
            finally:
                if not keeps:
                    line.close()

    clients = [asyncio.ensure_future(client(keeps=number % 2 == 0)) for number in range(lines)]
    await asyncio.sleep(before)
    began = time.monotonic()
    os.kill(api_pid, signal.SIGTERM)
    while Path(f"/proc/{api_pid}").exists() and time.monotonic() - began < 15 and not _is_zombie(api_pid):
        await asyncio.sleep(0.02)
    ended = time.monotonic() - began
    await asyncio.wait(clients, timeout=10)
    for one in clients:
        one.cancel()
    return Drained(counts["answered"], counts["refused"], cut_off, ended)


def memory(pid):
    """Bytes that a process and its children have in use."""
    return sum(_resident(one) for one in (pid, *(child for child, _ in children(pid))))


def _resident(pid):
    found = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(found.split()[1]) * 1024


def _is_zombie(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
