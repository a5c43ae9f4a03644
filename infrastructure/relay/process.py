"""The process that publishes the log and signs its heads. One leads, by an advisory lock; others wait for the lead."""

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

from application.cancellation import run_until_first_ends
from domain.errors import Unavailable
from infrastructure.audit.signed_heads import SIGN_AFTER_EVENTS, SIGN_INTERVAL_SECONDS, BrokenChain, HeadSigner
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.kafka.cloud_events import RecordKey
from infrastructure.observability.heartbeat import HEARTBEAT
from infrastructure.observability.metrics import BROKEN_CHAIN
from infrastructure.postgres.advisory_locks import AdvisoryLock, try_lock_async
from infrastructure.postgres.connections import MonitoredAsyncConnection, notifications
from infrastructure.postgres.notifications import CONNECTION_LOST, reconnect_always
from infrastructure.postgres.profiles import RELAY, RELAY_LEADER
from infrastructure.postgres.wake_ups import APPENDED, PUBLISHED, WakeUps
from infrastructure.process_lifecycle import exit_within, signal_ready
from infrastructure.relay.publisher import Fenced, PostgresPublished, Publisher, Unpublishable, connect_publisher
from infrastructure.security.keys import Keys
from infrastructure.security.process_keys import process_keys

log = structlog.get_logger()

STANDBY_INTERVAL_SECONDS: Final = 0.5  # seconds between two tries to lead
RETRY_DELAY_SECONDS: Final = 0.5  # seconds after a failure
LAST_SIGNATURE_TIMEOUT_SECONDS: Final = 1.5  # seconds that the last signature may take
STOP_TIMEOUT_SECONDS: Final = 2.7  # seconds from SIGTERM; the supervisor kills after 3

LISTEN = f"listen {APPENDED}"


def run_relay(given: Settings) -> None:
    """Until SIGTERM. Exits with 1 when Kafka refuses an event for good. Raises WrongRootKey."""
    keys = process_keys(given, "relay")
    try:
        asyncio.run(_until_told(Leader(given, keys).lead_always))
    except Unpublishable as refused:
        log.critical("the relay has stopped: nothing reaches Kafka until this is mended", reason=str(refused))
        sys.exit(1)


async def _until_told(work: Callable[[], Awaitable[None]]) -> None:
    told = asyncio.Event()

    def end() -> None:
        told.set()
        exit_within(STOP_TIMEOUT_SECONDS)  # a library that swallows a cancellation would keep it for ever

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    await run_until_first_ends(work(), told.wait(), HEARTBEAT.beat_always())


class Leader:
    """Three things at once while it leads: it listens, publishes and signs. Kafka may be away meanwhile, the blob store too."""

    def __init__(self, given: Settings, keys: Keys) -> None:
        self._given, self._keys = given, keys
        self._wakes = WakeUps(given.postgres_url)

    async def lead_always(self) -> None:
        await reconnect_always(
            self._lead, warning="the lead is lost, or the database away", lost=(*CONNECTION_LOST, Fenced), delay_seconds=RETRY_DELAY_SECONDS
        )

    async def _lead(self) -> None:
        url = self._given.postgres_url
        async with await RELAY_LEADER.connect_async(url) as leader:
            await _lead_of(leader)
            log.info("leading")
            heads = await asyncio.to_thread(self._heads)
            async with await RELAY.connect_async(url) as own:
                topic = partial(connect_publisher, self._given.kafka_url, key=RecordKey(self._keys))
                publisher = Publisher(PostgresPublished(own, read=heads.take, moved=partial(self._wakes.send, PUBLISHED)), topic)
                await run_until_first_ends(_listen(leader, publisher), publisher.publish_always(), self._sign_always(publisher, heads))

    async def _sign_always(self, publisher: Publisher, heads: HeadSigner) -> None:
        try:
            while True:
                await _until_due(publisher, heads)
                await asyncio.to_thread(self._sign, heads)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._sign, heads), LAST_SIGNATURE_TIMEOUT_SECONDS)

    def _heads(self) -> HeadSigner:
        with closing(self._connection()) as connection:
            return HeadSigner(self._keys, open_blobs(self._given, self._keys), connection)

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
        return RELAY.connect(self._given.postgres_url)


async def _listen(leader: MonitoredAsyncConnection, publisher: Publisher) -> None:
    """On the connection that holds the lock: when it is lost, so is the lead."""
    await leader.execute(LISTEN.encode())
    async for _ in notifications(leader):
        publisher.wake()


async def _until_due(publisher: Publisher, heads: HeadSigner) -> None:
    """A minute; less when much happens, and is signed."""
    for _ in range(int(SIGN_INTERVAL_SECONDS)):
        await asyncio.sleep(1.0)
        if not heads.broken and publisher.position - heads.signed >= SIGN_AFTER_EVENTS:
            return


async def _lead_of(leader: AsyncConnection) -> None:
    """Return once the lead is ours, until the connection ends. A relay that stands by is ready too."""
    while True:
        leads = await try_lock_async(leader, AdvisoryLock.RELAY)
        signal_ready()
        if leads:
            return
        await asyncio.sleep(STANDBY_INTERVAL_SECONDS)
