"""Starts a separate embedded system with a signed-in administrator, and fills it quickly."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import httpx
import psycopg

from api.cli.client.api_client import Client
from api.cli.client.image_folder import scan
from api.cli.stack import prepare
from application.accounts import register
from application.ports import BlobStore, Command
from benchmarks.filled_log import ACTOR, FOUND, WRITERS, append
from benchmarks.measure import folder
from domain import image
from domain.access import Role
from infrastructure.configuration.settings import Settings
from infrastructure.container import blobs, passwords
from infrastructure.embedded.supervisor import SupervisedStack
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.inference.models.bundled import micrographs
from infrastructure.security.keys import RootKey

PASSWORD = "forty benches measured 9"
PICTURES = [image.path for image in scan(Path(os.environ.get("BIOSCOPE_BENCH_PICTURES") or micrographs())).images]
UNLIMITED = {"logins_per_minute_account": 100_000, "logins_per_hour_account": 100_000, "logins_per_minute_address": 100_000}


class BenchmarkSystem(NamedTuple):
    """`system` has the processes. `http` is signed in as an administrator with the id `owner`."""

    system: SupervisedStack
    settings: Settings
    log: RecorderEventStore
    blobs: BlobStore
    http: httpx.Client
    token: str
    email: str
    owner: UUID

    def post(self, path: str, body: object) -> httpx.Response:
        answer = self.http.post(path, json=body, headers={"Idempotency-Key": uuid4().hex})
        answer.raise_for_status()
        return answer

    def dataset(self) -> str:
        return str(self.post("/api/datasets/", {"name": f"bench {uuid4().hex[:6]}"}).json()["id"])

    def caught_up(self) -> None:
        """Wait until the read models show the whole log."""
        while not self.http.get("/api/datasets/", params={"min_position": self.log.head(), "page_size": 1}).is_success:
            time.sleep(0.2)


@contextmanager
def system() -> Iterator[BenchmarkSystem]:
    with folder() as home:
        stack = SupervisedStack(Settings(data=home / "data", port=0, **UNLIMITED), prepare=prepare)  # type: ignore[arg-type]
        with stack as settings:
            yield from _signed_in(stack, settings)


def _signed_in(stack: SupervisedStack, settings: Settings) -> Iterator[BenchmarkSystem]:
    root = RootKey.read(settings.root_key_path)
    log = RecorderEventStore(PostgresRecorder(settings.postgres_url, root), root)
    with _administrator(settings, log) as (http, token, email, owner):
        yield BenchmarkSystem(stack, settings, log, blobs(settings), http, token, email, owner)
    log.close()


@contextmanager
def another_person(bench: BenchmarkSystem) -> Iterator[BenchmarkSystem]:
    """The same system for another administrator."""
    with _administrator(bench.settings, bench.log) as (http, token, email, owner):
        yield bench._replace(http=http, token=token, email=email, owner=owner)


@contextmanager
def _administrator(settings: Settings, log: RecorderEventStore) -> Iterator[tuple[httpx.Client, str, str, UUID]]:
    """A new one, signed in, with the access token, the e-mail address and the id."""
    email = f"bench-{uuid4().hex[:6]}@example.org"
    command = Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC))
    names = {"username": email[:12], "first_name": "Bench", "last_name": "Mark", "role": Role.ADMIN}
    made = register(email=email, password=PASSWORD, command=command, log=log, passwords=passwords(settings), **names)  # type: ignore[arg-type]
    with Client.sign_in(settings.base_url, email, PASSWORD) as client:
        token = client.credentials.access_token
        with httpx.Client(base_url=settings.base_url, timeout=60, headers={"Authorization": f"Bearer {token}"}) as http:
            yield http, token, email, made.id


def with_images(bench: BenchmarkSystem, count: int) -> str:
    """A dataset with `count` accepted images, whose files are the shipped micrographs."""
    dataset = bench.dataset()
    stored = [(path, _store(bench.blobs, path.read_bytes())) for path in PICTURES]

    def upload(number: int) -> None:
        path, (digest, size) = stored[number % len(stored)]
        one, now = uuid4(), datetime.now(UTC)
        about = {"sha256": digest, "size": size, "media_type": "image/jpeg", "width": 360, "height": 363}
        first = image.upload(one, dataset=UUID(dataset), device=None, filename=path.name, **about, by=bench.owner, at=now)  # type: ignore[arg-type]
        state = image.evolve(None, first)
        assert state is not None
        append(bench.log, first, *image.accept(state, FOUND, by=ACTOR.id, at=now))

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(upload, range(count)))
    bench.caught_up()
    return dataset


def _store(store: BlobStore, data: bytes) -> tuple[str, int]:
    if not store.exists(sha256(data).hexdigest()):
        writer = store.begin()
        writer.write(data)
        return writer.commit()
    return sha256(data).hexdigest(), len(data)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its children, user and system."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for one in [pid, *children_of(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has ended
            for child in (task / "children").read_text().split():
                found += [int(child), *children_of(int(child))]
    return found


def memory_of(pid: int) -> int:
    """Proportional set size in bytes: each shared page is divided among the processes that share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def owner_connection(bench: BenchmarkSystem) -> psycopg.Connection:
    return psycopg.connect(bench.settings.postgres_owner_url, autocommit=True)
