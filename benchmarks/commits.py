"""Commits of four databases on one server: without notifications, with one in each commit, and with wake-ups after the commit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from uuid import uuid4

import psycopg

from application.ports import Command
from benchmarks.append import ACTOR, event
from benchmarks.measure import Row, database, in_threads, measure_alternately, rate
from infrastructure.embedded.postgres.server import DATABASE, Postgres
from infrastructure.eventstore.codec import Codec
from infrastructure.eventstore.group_commit import APPEND, Append, Columns, PendingAppend, PendingResult
from infrastructure.postgres.arrays import register
from infrastructure.postgres.profiles import COMMANDS, GROUP_COMMIT, Profile
from infrastructure.postgres.wake_ups import APPENDED, WakeUps
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import DataKeys, RootKey

DATABASES = 4
COMMITS = 400  # per database
ROOT = RootKey(bytes(32))
CODEC = Codec(DataKeys(ROOT, lambda _: {}), lambda _: ())


def rows() -> Iterator[Row]:
    with database() as server, ExitStack() as stack:
        urls = [_made(server, number) for number in range(DATABASES)]
        for url in urls:
            stack.enter_context(psycopg.connect(url, autocommit=True)).execute(f"listen {APPENDED}".encode())
        wakes = [WakeUps(url) for url in urls]
        found = measure_alternately(
            {
                "without": lambda: committed(urls, GROUP_COMMIT, [lambda: None for _ in urls]),
                "in the commit": lambda: committed(urls, COMMANDS, [lambda: None for _ in urls]),
                "afterwards": lambda: committed(urls, GROUP_COMMIT, [lambda one=one: one.send(APPENDED) for one in wakes]),  # type: ignore[misc]
            }
        )
        for one in wakes:
            one.close()
    name = f"commits of {DATABASES} databases on one server"
    yield Row(name=f"{name}, beside those without wake-ups", value=found["afterwards"] / found["without"], unit="x", goal=0.95)
    yield Row(name=f"{name}, notified in the commit (before)", value=found["in the commit"], unit="/s", goal=0, limit=found["without"])
    yield Row(name=name, value=found["afterwards"], unit="/s", goal=0.95 * found["without"], limit=found["without"])


def _made(server: Postgres, number: int) -> str:
    name = f"laboratory_{number}"
    with psycopg.connect(server.url(user="postgres", database="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {DATABASE}".encode())
    return server.url(user="postgres", database=name)


def committed(urls: Sequence[str], profile: Profile, notify: Sequence[Callable[[], object]]) -> float:
    """Commits per second of all databases together, with one writer each and one command per transaction."""
    with ExitStack() as stack:
        connections = [stack.enter_context(profile.connect_unmonitored(url)) for url in urls]
        for connection in connections:
            register(connection)
        commands = [[_arguments() for _ in range(COMMITS)] for _ in urls]

        def write(number: int) -> None:
            for arguments in commands[number]:
                connections[number].execute(APPEND, arguments, prepare=True)
                notify[number]()

        return rate(COMMITS * len(urls), lambda: in_threads(len(urls), write))


def _arguments() -> list[object]:
    command = Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC))
    return list(Columns(ClaimDigests(ROOT), [PendingAppend(Append(command=command), [CODEC.encode(event())], PendingResult())]).arguments())
