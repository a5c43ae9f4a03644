"""The relay process: publishes the log and signs its head. One leads, by an advisory lock; others stand by."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final

import psycopg
import structlog
from psycopg import AsyncConnection

from domain.errors import Unavailable
from infrastructure.audit.signed_heads import SIGN_AFTER_EVENTS, SIGN_INTERVAL_SECONDS, BrokenChain, HeadSigner
from infrastructure.blobs.blob_store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.child import say_ready
from infrastructure.kafka.cloud_events import RecordKey
from infrastructure.observability.heartbeat import HEARTBEAT
from infrastructure.observability.metrics import BROKEN_CHAIN
from infrastructure.postgres.connections import UNACKNOWLEDGED_TIMEOUT_MS, MonitoredAsyncConnection, MonitoredConnection, notifications
from infrastructure.postgres.wake_ups import APPENDED, PUBLISHED, WakeUps
from infrastructure.relay.checkpoint_store import PostgresCheckpointStore
from infrastructure.relay.errors import Fenced, Unpublishable
from infrastructure.relay.publisher import Publisher
from infrastructure.relay.topic import connect_topic
from infrastructure.retry import first_of, leave_within
from infrastructure.security.keys import Keys
from infrastructure.security.process_keys import process_keys

log = structlog.get_logger()

LEADER_LOCK: Final = 0x72656C6179  # the process that holds it leads
STANDBY_INTERVAL_SECONDS: Final = 0.5  # between two attempts to lead
RETRY_DELAY_SECONDS: Final = 0.5
SIGN_CHECK_INTERVAL_SECONDS: Final = 1.0
LAST_SIGNATURE_TIMEOUT_SECONDS: Final = 1.5
STOP_TIMEOUT_SECONDS: Final = 2.7  # from SIGTERM; the supervisor kills after 3
CONNECTION_OPTIONS: Final = "-c synchronous_commit=off -c statement_timeout=5s -c lock_timeout=4s -c timezone=UTC"

TRY_LOCK = "select pg_try_advisory_lock(%s)"
LISTEN = f"listen {APPENDED}"

ProjectedPosition = Callable[[AsyncConnection], Awaitable[int]]
"""Reads the position of the read models."""


def run_relay(settings: Settings, *, projected_position: ProjectedPosition) -> None:
    """Run until SIGTERM. Exits with 1 when Kafka refuses an event for good. Raises WrongRootKey."""
    keys = process_keys(settings, "relay")
    try:
        asyncio.run(_run_until_signal(Leader(settings, keys, projected_position=projected_position).lead_always))
    except Unpublishable as refused:
        log.critical("the relay has stopped: nothing reaches Kafka until this is mended", reason=str(refused))
        sys.exit(1)


async def _run_until_signal(work: Callable[[], Awaitable[None]]) -> None:
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        leave_within(STOP_TIMEOUT_SECONDS)  # in case a library swallows the cancellation

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await first_of(work(), stopped.wait(), HEARTBEAT.beat_always())


class Leader:
    """Listens, publishes and signs while it leads. Kafka and the blob store may be unavailable meanwhile."""

    def __init__(self, settings: Settings, keys: Keys, *, projected_position: ProjectedPosition) -> None:
        self._settings, self._keys, self._projected_position = settings, keys, projected_position
        self._wakes = WakeUps(settings.postgres_url)

    async def lead_always(self) -> None:
        while True:
            try:
                await self._lead()
            except (psycopg.Error, OSError, Fenced) as error:
                log.warning("the lead is lost, or the database away", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_DELAY_SECONDS)

    async def _lead(self) -> None:
        url = self._settings.postgres_url
        leader_options = f"{CONNECTION_OPTIONS} {UNACKNOWLEDGED_TIMEOUT_MS}"
        async with await MonitoredAsyncConnection.connect(url, autocommit=True, options=leader_options) as leader:
            await _wait_for_lead(leader)
            log.info("leading")
            heads = await asyncio.to_thread(self._heads)
            async with await MonitoredAsyncConnection.connect(url, autocommit=True, options=CONNECTION_OPTIONS) as connection:
                publisher = self._publisher(connection, heads)
                await first_of(_listen(leader, publisher), publisher.publish_always(), self._sign_always(publisher, heads))

    def _publisher(self, connection: AsyncConnection, heads: HeadSigner) -> Publisher:
        store = PostgresCheckpointStore(
            connection,
            projected_position=self._projected_position,
            on_read=heads.take,
            on_advanced=partial(self._wakes.send, PUBLISHED),
        )
        return Publisher(store, partial(connect_topic, self._settings.kafka_url, key=RecordKey(self._keys)))

    async def _sign_always(self, publisher: Publisher, heads: HeadSigner) -> None:
        try:
            while True:
                await _wait_until_due(publisher, heads)
                await asyncio.to_thread(self._sign, heads)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._sign, heads), LAST_SIGNATURE_TIMEOUT_SECONDS)

    def _heads(self) -> HeadSigner:
        with closing(self._connection()) as connection:
            return HeadSigner(self._keys, open_blobs(self._settings, self._keys), connection)

    def _sign(self, heads: HeadSigner) -> None:
        try:
            with closing(self._connection()) as connection:
                heads.sign(connection, at=datetime.now(UTC))
        except (psycopg.Error, Unavailable) as error:
            log.warning("head not signed, or not put away", error=type(error).__name__)
        except BrokenChain as broken:
            log.critical("head not signed: the log is not what was written; run `bioscope audit verify`", reason=str(broken))
            BROKEN_CHAIN.set(1)

    def _connection(self) -> psycopg.Connection:
        return MonitoredConnection.connect(self._settings.postgres_url, autocommit=True, options=CONNECTION_OPTIONS)


async def _listen(leader: AsyncConnection, publisher: Publisher) -> None:
    """On the connection that holds the lock: when it is lost, so is the lead."""
    await leader.execute(LISTEN.encode())
    async for _ in notifications(leader):
        publisher.wake()


async def _wait_until_due(publisher: Publisher, heads: HeadSigner) -> None:
    """Return after the interval, or earlier when many events are published and not yet signed."""
    for _ in range(int(SIGN_INTERVAL_SECONDS / SIGN_CHECK_INTERVAL_SECONDS)):
        await asyncio.sleep(SIGN_CHECK_INTERVAL_SECONDS)
        if not heads.broken and publisher.position - heads.signed >= SIGN_AFTER_EVENTS:
            return


async def _wait_for_lead(leader: AsyncConnection) -> None:
    """Return once this process leads, until the connection ends. A relay that stands by reports ready too."""
    while True:
        row = await (await leader.execute(TRY_LOCK, (LEADER_LOCK,))).fetchone()
        say_ready()
        if row is not None and row[0]:
            return
        await asyncio.sleep(STANDBY_INTERVAL_SECONDS)
