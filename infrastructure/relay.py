"""The process that publishes the log and signs its heads. One leads, by an advisory lock; others wait for the lead."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from domain.errors import Unavailable
from infrastructure.heads import EVERY, OFTEN, Heads
from infrastructure.kafka.broker import AWAY, hush, make_topics, topics_made
from infrastructure.keys import RootKey
from infrastructure.objects import open_blobs
from infrastructure.publishing import LostLog, Outlived, Relay, Unpublishable, connected
from infrastructure.settings import Settings

log = structlog.get_logger()

LOCK: Final = 0x72656C6179  # who holds it leads
LOOK_ANYWAY: Final = 0.25  # seconds, should a notification have been lost
STANDBY: Final = 0.5  # seconds between two tries to lead
REST: Final = 0.5  # seconds after a failure
CHECK: Final = 5.0  # seconds between two looks at the cluster
FAREWELL: Final = 1.5  # seconds that the last signature may take
OPTIONS: Final = "-c synchronous_commit=off -c statement_timeout=10s -c lock_timeout=5s -c timezone=UTC"
KEPT_ALIVE: Final = {"keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3", "connect_timeout": "3"}

LEAD = "select pg_try_advisory_lock(%s)"
LISTEN = "listen bioscope_appended"


def run_relay(given: Settings) -> None:
    """Until SIGTERM. Exits with 1 when Kafka refuses an event for good. Raises WrongRootKey."""
    root = RootKey.read(given.root_key_path)
    try:
        asyncio.run(_until_told(Leader(given, root).lead_always))
    except Unpublishable as refused:
        log.critical("the relay has stopped: nothing reaches Kafka until this is mended", reason=str(refused))
        sys.exit(1)


async def _until_told(work: Callable[[], Awaitable[None]]) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await first_of(work(), told.wait())


async def first_of(*works: Awaitable[Any]) -> None:
    """Run them together until one ends; then end the others, and raise what that one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class Leader:
    """Three things at once while it leads: it listens, publishes and signs. Kafka may be away meanwhile, the blob store too."""

    def __init__(self, given: Settings, root: RootKey) -> None:
        self._given, self._root = given, root
        self._woken = asyncio.Event()
        self._position = 0

    async def lead_always(self) -> None:
        while True:
            try:
                await self._lead()
            except (psycopg.Error, OSError, Outlived) as error:
                log.warning("the lead is lost, or the database away", error=type(error).__name__)
            await asyncio.sleep(REST)

    async def _lead(self) -> None:
        url = make_conninfo(self._given.postgres_url, **KEPT_ALIVE)
        async with await AsyncConnection.connect(url, autocommit=True, options=OPTIONS) as leader:
            await _lead_of(leader)
            log.info("leading")
            async with await AsyncConnection.connect(url, autocommit=True, options=OPTIONS) as own:
                await first_of(self._listen(leader), self._publish_always(own), self._sign_always())

    async def _listen(self, leader: AsyncConnection) -> None:
        """On the connection that holds the lock: when it is lost, so is the lead."""
        await leader.execute(LISTEN)
        async for _ in leader.notifies():
            self._woken.set()

    async def _publish_always(self, own: AsyncConnection) -> None:
        brokers, source = self._given.kafka_url, self._given.public_url or "bioscope"
        while True:
            cluster = await topics_made(brokers)
            hush()
            try:
                async with connected(brokers, source=source) as topic:
                    relay = Relay(own, topic)
                    await relay.take_over()
                    log.info("publishing", after=relay.place.position, cluster=cluster)
                    await first_of(self._publish(relay), self._watch(relay.place.cluster))
            except (*AWAY, LostLog) as error:
                log.warning("waiting for Kafka", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(REST)

    async def _publish(self, relay: Relay) -> None:
        while True:
            self._woken.clear()
            published = await relay.publish()
            self._position = relay.place.position
            if not published:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), LOOK_ANYWAY)

    async def _watch(self, cluster: str) -> None:
        """An emptied Kafka gets its topics and what is needed of the log at once, not with the next event."""
        while True:
            await asyncio.sleep(CHECK)
            if await make_topics(self._given.kafka_url) != cluster:
                raise LostLog("another cluster")

    async def _sign_always(self) -> None:
        heads = await asyncio.to_thread(self._heads)
        try:
            while True:
                await self._until_due(heads)
                await asyncio.to_thread(self._sign, heads)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._sign, heads), FAREWELL)

    async def _until_due(self, heads: Heads) -> None:
        """A minute; less when much happens."""
        for _ in range(int(EVERY)):
            await asyncio.sleep(1.0)
            if self._position - heads.signed >= OFTEN:
                return

    def _heads(self) -> Heads:
        with closing(self._connection()) as connection:
            return Heads(self._root, open_blobs(self._given, self._root), connection)

    def _sign(self, heads: Heads) -> None:
        try:
            with closing(self._connection()) as connection:
                heads.sign(connection, at=datetime.now(UTC))
        except (psycopg.Error, Unavailable) as error:
            log.warning("head not signed, or not put away", error=type(error).__name__)

    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(self._given.postgres_url, autocommit=True, options=OPTIONS, connect_timeout=3)


async def _lead_of(leader: AsyncConnection) -> None:
    """Return once the lead is ours, until the connection ends."""
    while True:
        row = await (await leader.execute(LEAD, (LOCK,))).fetchone()
        if row is not None and row[0]:
            return
        await asyncio.sleep(STANDBY)
