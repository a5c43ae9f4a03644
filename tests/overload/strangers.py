"""Unauthenticated clients that exceed each limit by a tenth, and the experience of a user meanwhile."""

import asyncio
import contextlib
import io
import multiprocessing
import resource
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import count, cycle, islice
from math import ceil
from typing import Any, NamedTuple, Self

import httpx
import msgspec
import numpy as np
from PIL import Image

from api.cli.client.api_client import Client, RequestRefused
from api.options import AdmissionLimits
from infrastructure.configuration.settings import Settings
from infrastructure.http.connections import MAX_HEAD, MAX_HEADERS
from infrastructure.security.passwords import MAX_QUEUED
from tests.overload.load import LOOPBACK
from tests.overload.trial import memory

MORE = 1.1  # than a limit allows
REST = 1.0  # seconds until a connection that was closed is opened again
WITHIN = 1.0  # seconds: what 95 of 100 of a user's requests may take
NORMAL = 64 * 1024**2  # bytes that the API may keep afterwards: allocators do not give back all that was used once
NORMAL_WITHIN = 30.0  # seconds
BEGINS_WITHIN = 60.0  # seconds
RAMP = 1.0  # seconds until the strangers are there
ALWAYS = 10**9  # times
ANSWERED_WITHIN = 20.0  # seconds
FILES_MOST = 8192  # connections that a generator may hold

HEAD = b"Host: localhost\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = (
    b"GET /api/ws HTTP/1.1\r\n" + HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
names = count()


class Strangers(NamedTuple):
    """From where they come: `many` addresses, each of which stays below the limits of one, or the first of them alone."""

    place: tuple[str, int]
    limits: Settings
    many: Sequence[str]
    user: str  # the e-mail address of the user whom they know

    @property
    def one(self) -> Sequence[str]:
        return self.many[:1]

    async def hold(self, number: int, said: bytes, sources: Sequence[str]) -> None:
        """As many connections on which `said` was sent and no more, each opened again when it was closed."""
        await self._each(number, lambda source: self._held(source, said), sources)

    async def ask(self, number: int, request: Callable[[], bytes], sources: Sequence[str], *, times: int = ALWAYS) -> None:
        """So many connections at once, each with one request; `times` in all, however they are answered."""
        left = iter(range(times))

        async def again(source: str) -> None:
            for _ in left:
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(self._said(source, request()), ANSWERED_WITHIN)

        await self._each(number, again, sources)

    @staticmethod
    @staticmethod
    async def _each(number: int, work: Callable[[str], Coroutine[Any, Any, None]], sources: Sequence[str]) -> None:
        await asyncio.gather(*(work(source) for source in islice(cycle(sources), number)))

    async def _held(self, source: str, said: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self._said(source, said)
            await asyncio.sleep(REST)

    async def _said(self, source: str, said: bytes) -> None:
        """Until the server closes; what it says is not kept."""
        reader, writer = await asyncio.open_connection(*self.place, local_addr=(source, 0))
        try:
            writer.write(said)
            while await reader.read(65536):
                pass
        finally:
            writer.transport.abort()


def over(limit: int) -> int:
    return ceil(MORE * limit)


def post(path: str, body: bytes, *, length: int | None = None) -> bytes:
    """`length`: how long it says that it is."""
    head = f"POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n"
    return head.encode() + HEAD + b"\r\n" + body


def sign_in(email: str) -> bytes:
    return post("/api/auth/login", msgspec.json.encode({"email": email, "password": "not the password 1"}))


def somebody() -> str:
    return f"nobody-{next(names)}@example.org"


def registration() -> bytes:
    name = f"stranger-{next(names)}-{time.time_ns()}"
    said = {"email": f"{name}@example.org", "username": name[:50], "first_name": "No", "last_name": "Body"}
    return post("/api/auth/register", msgspec.json.encode({**said, "password": "correct horse battery 9"}))


def get(path: str, headers: bytes = b"") -> bytes:
    return f"GET {path} HTTP/1.1\r\nConnection: close\r\n".encode() + HEAD + headers + b"\r\n"


def frame(size: int) -> bytes:
    return b"\x81\xfe" + struct.pack("!H", size) + bytes(4) + bytes(size)


UNFINISHED = post("/api/auth/login", b"{", length=8000)

Case = Callable[[Strangers], Coroutine[Any, Any, object]]

CASES: dict[str, Case] = {
    "connections that say nothing": lambda s: s.hold(over(s.limits.anonymous_connections), b"", s.many),
    "connections of one address": lambda s: s.hold(over(s.limits.connections_per_address), b"", s.one),
    "heads that do not end": lambda s: s.hold(over(s.limits.anonymous_connections), b"GET / HTTP/1.1\r\nX-", s.many),
    "HTTP/2": lambda s: s.hold(over(s.limits.anonymous_connections), PREFACE, s.many),
    "too many headers": lambda s: s.ask(8, lambda: get("/health/live", b"X:\r\n" * over(MAX_HEADERS)), s.many),
    "too large headers": lambda s: s.ask(8, lambda: get("/health/live", b"X: " + b"x" * over(MAX_HEAD) + b"\r\n"), s.many),
    "bodies that do not come": lambda s: s.hold(over(s.limits.anonymous_bodies), UNFINISHED, s.many),
    "bodies of one address": lambda s: s.hold(over(s.limits.anonymous_bodies_per_address), UNFINISHED, s.one),
    "too large bodies": lambda s: s.ask(8, lambda: post("/api/auth/login", b" " * over(s.limits.anonymous_body_max_bytes)), s.many),
    "WebSockets": lambda s: s.hold(over(s.limits.anonymous_websockets), UPGRADE, s.many),
    "WebSockets of one address": lambda s: s.hold(over(s.limits.anonymous_websockets_per_address), UPGRADE, s.one),
    "too large messages": lambda s: s.ask(8, lambda: UPGRADE + frame(over(s.limits.anonymous_body_max_bytes)), s.many),
    "requests at once": lambda s: s.ask(over(AdmissionLimits().normal), lambda: get("/api/users/me"), s.many),
    "requests of one address": lambda s: s.ask(over(AdmissionLimits().normal), lambda: get("/api/users/me"), s.one),
    "failed sign-ins of one address": lambda s: s.ask(
        8, lambda: sign_in(somebody()), s.one, times=over(s.limits.logins_per_minute_address)
    ),
    "failed sign-ins of many": lambda s: s.ask(over(MAX_QUEUED), lambda: sign_in(somebody()), s.many),
    "wrong passwords of the user": lambda s: s.ask(8, lambda: sign_in(s.user), s.many, times=over(s.limits.logins_per_hour_account)),
    "registrations": lambda s: s.ask(8, registration, s.one, times=over(s.limits.registrations_per_hour_address)),
}


ALL = "everything at once"


async def everything(strangers: Strangers) -> None:
    await asyncio.gather(*(case(strangers) for case in CASES.values()))


# ---- the user ----------------------------------------------------------------------------------------------------------------------
class Experience(NamedTuple):
    """Of a user who lists, uploads and runs once a second each: seconds within which 95 of 100 were answered, and what failed.

    `grown`: bytes, at the most. `normal_after`: seconds after the end; None when not within NORMAL_WITHIN.
    """

    seconds: dict[str, float]
    failed: list[str]
    grown: int
    normal_after: float | None

    @property
    def broken(self) -> list[str]:
        slow = [f"{what} took {seconds:.2f} s" for what, seconds in self.seconds.items() if seconds >= WITHIN]
        back = ["memory is not back to normal"] if self.normal_after is None else []
        return [*slow, *self.failed, *back]


class User:
    """Signed in, with a connection for each thing that it does."""

    def __init__(self, url: str, email: str, password: str) -> None:
        self._url, self._email, self._password = url, email, password
        self._client = Client.sign_in(url, email, password)
        self._dataset = self._client.create_dataset("beside strangers")
        self._image = self._upload(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(None, None, None)

    def does(self, seconds: float) -> tuple[dict[str, list[float]], list[str]]:
        """How long each thing took, and what failed."""
        took: dict[str, list[float]] = {"list": [], "upload": [], "run": []}
        failed: list[str] = []
        works = {"list": lambda client: client.get("/api/datasets/"), "upload": self._upload, "run": self._run}
        threads = [threading.Thread(target=self._again, args=(name, work, took[name], failed, seconds)) for name, work in works.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return took, failed

    def signs_in(self) -> list[str]:
        """Anew; what failed."""
        failed: list[str] = []
        with _noted(failed, "sign-in"):
            Client.sign_in(self._url, self._email, self._password).__exit__(None, None, None)
        return failed

    def _again(self, name: str, work: Callable[[Client], object], took: list[float], failed: list[str], seconds: float) -> None:
        ends = time.monotonic() + seconds
        with Client(self._client.credentials) as client:
            while (began := time.monotonic()) < ends:
                with _noted(failed, name):
                    work(client)
                took.append(time.monotonic() - began)
                time.sleep(max(0.0, began + 1 - time.monotonic()))

    def _upload(self, client: Client) -> str:
        noise = np.random.default_rng().integers(0, 256, (64, 64, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG")
        files = {"file": ("noise.png", file.getvalue(), "image/png")}
        answer = client.call("POST", "/api/images/upload", data={"dataset_id": self._dataset}, files=files)
        return str(answer.json()["id"])

    def _run(self, client: Client) -> None:
        client.post("/api/classifications/run", {"image_id": self._image, "model_name": "pbc8", "fresh": True})


@contextlib.contextmanager
def _noted(failed: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except (RequestRefused, httpx.HTTPError, OSError) as error:
        failed.append(f"{what}: {type(error).__name__} {error}")


# ---- a trial -----------------------------------------------------------------------------------------------------------------------
def beside(case: str, strangers: Strangers, user: User, api_pid: int, *, seconds: float) -> Experience:
    """What the user experiences during a case (one of CASES, or ALL), and whether the API is as before afterwards."""
    assert strangers.place[0] in LOOPBACK, f"{strangers.place}: load goes to this machine alone"
    before = memory(api_pid)
    processes = multiprocessing.get_context("spawn")
    begun = processes.Event()
    attack = processes.Process(target=_attack, args=(case, strangers, begun), daemon=True)
    attack.start()
    try:
        assert begun.wait(BEGINS_WITHIN), "the strangers do not come"
        time.sleep(RAMP)
        took, failed = user.does(seconds)
        failed += user.signs_in()
        assert attack.is_alive() or attack.exitcode == 0, "the strangers failed"
        grown = memory(api_pid) - before
    finally:
        attack.terminate()
        attack.join()
    return Experience({what: _p95(each) for what, each in took.items()}, failed, grown, _normal_after(api_pid, before))


def _attack(case: str, strangers: Strangers, begun: Any) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES_MOST), hard))
    begun.set()
    asyncio.run(_case(CASES.get(case, everything), strangers))


async def _case(case: Case, strangers: Strangers) -> None:
    await case(strangers)


def _p95(seconds: Sequence[float]) -> float:
    return sorted(seconds)[ceil(0.95 * len(seconds)) - 1]


def _normal_after(pid: int, before: int) -> float | None:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < NORMAL_WITHIN:
        if memory(pid) - before < NORMAL:
            return passed
        time.sleep(0.25)
    return None
