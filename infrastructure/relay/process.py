"""The relay process: publishes the log and signs its head. An advisory lock decides which instance leads; others stand by."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from application.cancellation import run_until_first_ends
from domain.errors import Unavailable
from infrastructure.audit.access_heads import AccessHeadSigner
from infrastructure.audit.signed_heads import SIGN_AFTER_EVENTS, SIGN_INTERVAL_SECONDS, BrokenChain, HeadSigner
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.kafka.cloud_events import RecordKey
from infrastructure.kafka.topics import all_topics
from infrastructure.observability.heartbeat import HEARTBEAT
from infrastructure.observability.metrics import BROKEN_ACCESS_CHAIN, BROKEN_CHAIN
from infrastructure.postgres.advisory_locks import AdvisoryLock, try_lock_async
from infrastructure.postgres.connections import MonitoredAsyncConnection, notifications
from infrastructure.postgres.notifications import CONNECTION_LOST, reconnect_always
from infrastructure.postgres.profiles import RELAY, RELAY_LEADER
from infrastructure.postgres.wake_ups import APPENDED, PUBLISHED, WakeUps
from infrastructure.process_lifecycle import exit_within, signal_ready
from infrastructure.relay.checkpoint_store import PostgresCheckpointStore
from infrastructure.relay.errors import Fenced, Unpublishable
from infrastructure.relay.publisher import Publisher
from infrastructure.relay.topic import connect_topic
from infrastructure.security.keys import Keys
from infrastructure.security.process_keys import process_keys

log = structlog.get_logger()

STANDBY_INTERVAL_SECONDS: Final = 0.5  # between two attempts to lead
RETRY_DELAY_SECONDS: Final = 0.5
SIGN_CHECK_INTERVAL_SECONDS: Final = 1.0
LAST_SIGNATURE_TIMEOUT_SECONDS: Final = 1.5
STOP_TIMEOUT_SECONDS: Final = 2.7  # from SIGTERM; the supervisor kills after 3

LISTEN = f"listen {APPENDED}"


def run_relay(settings: Settings) -> None:
    """Run until SIGTERM. Exits with 1 if Kafka refuses an event permanently. Raises WrongRootKey."""
    keys = process_keys(settings, "relay")
    try:
        asyncio.run(_run_until_signal(Leader(settings, keys).lead_always))
    except Unpublishable as refused:
        log.critical("the relay has stopped: no event reaches Kafka until the cause is removed", reason=str(refused))
        sys.exit(1)


async def _run_until_signal(work: Callable[[], Awaitable[None]]) -> None:
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        exit_within(STOP_TIMEOUT_SECONDS)  # in case a library suppresses the cancellation

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await run_until_first_ends(work(), stopped.wait(), HEARTBEAT.beat_always())


class Heads(NamedTuple):
    """The signers of both chains: that of the log, and that of the trail of access."""

    log: HeadSigner
    access: AccessHeadSigner


class Leader:
    """Listens, publishes and signs while it leads. Kafka and the blob store may be unavailable."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings, self._keys = settings, keys
        self._wake_ups = WakeUps(settings.postgres_url)

    async def lead_always(self) -> None:
        lost = (*CONNECTION_LOST, Fenced)
        warning = "the lead is lost, or the database is unavailable"
        await reconnect_always(self._lead, warning=warning, lost=lost, delay_seconds=RETRY_DELAY_SECONDS)

    async def _lead(self) -> None:
        url = self._settings.postgres_url
        async with await RELAY_LEADER.connect_async(url) as leader:
            await _wait_for_lead(leader)
            log.info("leading")
            heads = await asyncio.to_thread(self._heads)
            async with await RELAY.connect_async(url) as connection:
                publisher = self._publisher(connection, heads.log)
                await run_until_first_ends(_listen(leader, publisher), publisher.publish_always(), self._sign_always(publisher, heads))

    def _publisher(self, connection: AsyncConnection, heads: HeadSigner) -> Publisher:
        store = PostgresCheckpointStore(connection, on_read=heads.take, on_advanced=partial(self._wake_ups.send, PUBLISHED))
        topics = all_topics(self._settings)
        return Publisher(store, partial(connect_topic, self._settings.kafka_url, topics=topics, key=RecordKey(self._keys)))

    async def _sign_always(self, publisher: Publisher, heads: Heads) -> None:
        try:
            while True:
                await _wait_until_due(publisher, heads.log)
                await asyncio.to_thread(self._sign, heads)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._sign, heads), LAST_SIGNATURE_TIMEOUT_SECONDS)

    def _heads(self) -> Heads:
        blobs = open_blobs(self._settings, self._keys)
        with closing(self._connection()) as connection:
            return Heads(HeadSigner(self._keys, blobs, connection), AccessHeadSigner(self._keys, blobs, connection))

    def _sign(self, heads: Heads) -> None:
        self._sign_log(heads.log)
        self._sign_access(heads.access)

    def _sign_log(self, heads: HeadSigner) -> None:
        try:
            with closing(self._connection()) as connection:
                heads.sign(connection, at=datetime.now(UTC))
        except (psycopg.Error, Unavailable) as error:
            log.warning("head not signed or not archived", error=type(error).__name__)
        except BrokenChain as broken:
            log.critical("head not signed: the log was changed; run `bioscope audit verify`", reason=str(broken))
            BROKEN_CHAIN.set(1)

    def _sign_access(self, heads: AccessHeadSigner) -> None:
        try:
            with closing(self._connection()) as connection:
                heads.sign(connection, at=datetime.now(UTC))
        except (psycopg.Error, Unavailable) as error:
            log.warning("head of the trail of access not signed or not archived", error=type(error).__name__)
        except BrokenChain as broken:
            log.critical("head of the trail of access not signed: it was changed; run `bioscope audit verify`", reason=str(broken))
            BROKEN_ACCESS_CHAIN.set(1)

    def _connection(self) -> psycopg.Connection:
        return RELAY.connect(self._settings.postgres_url)


async def _listen(leader: MonitoredAsyncConnection, publisher: Publisher) -> None:
    """Listen on the connection that holds the lock. When it is lost, so is the lead."""
    await leader.execute(LISTEN.encode())
    async for _ in notifications(leader):
        publisher.wake()


async def _wait_until_due(publisher: Publisher, heads: HeadSigner) -> None:
    """Wait for the signing interval, or until many events are published but not signed."""
    for _ in range(int(SIGN_INTERVAL_SECONDS / SIGN_CHECK_INTERVAL_SECONDS)):
        await asyncio.sleep(SIGN_CHECK_INTERVAL_SECONDS)
        if not heads.broken and publisher.position - heads.signed >= SIGN_AFTER_EVENTS:
            return


async def _wait_for_lead(leader: AsyncConnection) -> None:
    """Wait until this process leads. A standby relay reports ready too."""
    while True:
        leads = await try_lock_async(leader, AdvisoryLock.RELAY)
        signal_ready()
        if leads:
            return
        await asyncio.sleep(STANDBY_INTERVAL_SECONDS)
