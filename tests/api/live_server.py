"""The real API server over the log of a scenario, for tests of live events."""

import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime

import httpx
import psycopg
from websockets.asyncio.client import connect

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.installation import ensure_root_key, environment
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.wake_ups import PROJECTED, WakeUps
from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.keys import RootKey
from projections.process.composition import projector_over
from tests.api.live_messages import receive, send
from tests.conftest import TEMPLATE
from tests.rigs.scenario import Scenario
from tests.rigs.waiting import wait_until

ORIGIN = "http://web.example.org"
FAR = 10**9
MUCH = 500
INSERT_MUCH = """insert into read.activity (position, at, type, stream, actor, dataset, subjects)
  select %(far)s + n, now(), 'ImageUploaded', %(dataset)s, %(dataset)s, %(dataset)s, array_fill(%(dataset)s::uuid, array[500])
  from generate_series(1, %(much)s) n"""


class Served(Scenario):
    """`follow` brings the read models to the head of the log. `url` is the address of the WebSocket."""

    url = ""

    def token(self, member, *, ttl=600):
        """A token of a new session, and the session."""
        started = self.session(member)
        tokens = SignedAccessTokens(RootKey.read(self.settings.root_key_path), ttl=ttl)
        return tokens.issue(user=member.id, session=started, role=member.role, at=datetime.now(UTC)), started

    def service_token(self, scope):
        """The token of a program with that scope."""
        tokens = SignedAccessTokens(RootKey.read(self.settings.root_key_path), ttl=600)
        return tokens.issue_service(name="wall", scopes=frozenset({scope}), seconds=600, at=datetime.now(UTC))

    def follow(self, **mode):
        """Bring the read models to the head of the log, and wake the server up, as the projector does."""
        at = super().follow(**mode)
        self.wakes.send(PROJECTED, str(at))
        return at

    def mark(self, member, dataset):
        """Upload an image to a dataset of the member; its id. Who watches it has passed everything before it."""
        return str(self.appended(self.image, member, dataset))

    @contextmanager
    def much_to_send(self, dataset):
        """MUCH large events of the dataset in the read model, after the position that is yielded."""
        with psycopg.connect(self.owner_url, autocommit=True) as owner:
            owner.execute(INSERT_MUCH, {"far": FAR, "dataset": dataset, "much": MUCH})
            yield FAR
            owner.execute("delete from read.activity where position > %s", (FAR,))

    @asynccontextmanager
    async def watching(self, member, *, ttl=600, **query):
        async with self.connected() as watch:
            await send(watch, type="auth", token=self.token(member, ttl=ttl)[0])
            assert (await receive(watch))["type"] == "authenticated"
            await send(watch, type="subscribe", **query)
            yield watch

    def connected(self, **mode):
        return connect(self.url, compression=None, **mode)

    def appended(self, what, *given, **mode):
        """Do something, and let it be seen."""
        found = what(*given, **mode)
        self.follow()
        return found


@contextmanager
def live_server(postgres, redis_server, folder, *, database, **changes):
    """One server for many tests: each makes its own people and datasets."""
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {database} template {TEMPLATE}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = Settings(
        data=folder,
        port=port,
        postgres_url=postgres.url(user="bioscope_app", database=database),
        kafka_url="127.0.0.1:1",
        redis_url=redis_server.url,
        cors_origins=(ORIGIN,),
        **changes,
    )
    ensure_root_key(settings)
    root = RootKey.read(settings.root_key_path)
    log = RecorderEventStore(PostgresRecorder(settings.postgres_url, root), root)
    projector = projector_over(settings.postgres_url, log)
    served = Served(log, projector)
    served.wakes = WakeUps(settings.postgres_url)
    served.owner_url = postgres.url(user="postgres", database=database)
    served.settings, served.url = settings, f"ws://127.0.0.1:{port}/api/ws"
    with subprocess.Popen([sys.executable, "-m", "api.cli", "api"], env=environment(settings, os.environ)) as server:
        served.process = server
        try:
            until_it_serves(port)
            yield served
        finally:
            server.terminate()
            served.wakes.close()
            projector.close()
            log.close()


def until_it_serves(port):
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/live").raise_for_status(), within=60, ignoring=[httpx.HTTPError])
