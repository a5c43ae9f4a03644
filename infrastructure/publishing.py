"""The log onto its topic: what follows the checkpoint, in order, until Kafka has it; never past an event that it has not."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError, RecordListTooLargeError
from psycopg import AsyncConnection

from application.ports import Recorded
from infrastructure.event_store import EVENT_COLUMNS, recorded_from
from infrastructure.kafka.broker import EVENTS, make_topics
from infrastructure.kafka.cloud_events import headers
from infrastructure.kafka.sending import producer

log = structlog.get_logger()

BATCH: Final = 1000  # events
AGAIN: Final = 500  # events before the projector's place that are published again where the log was lost
PATIENCE: Final = 20.0  # seconds for a batch
REFUSED: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError)

TAKE_OVER = "update ops.relay set epoch = epoch + 1 returning epoch, position, cluster, next_offset"
NEEDED = "select least(r.position, c.position) from ops.relay r, read.checkpoint c where c.projection = 'main'"
READ = f"select {EVENT_COLUMNS} from es.events where notification_id > %s order by notification_id limit %s"  # noqa: S608 - constants
MOVE = """update ops.relay set position = %s, cluster = %s, next_offset = %s
  where epoch = %s and position = %s and cluster = %s and next_offset = %s"""


class Outlived(Exception):
    """Another relay has taken over."""


class Unpublishable(Exception):
    """Kafka refuses an event for good. Somebody must look: what follows it must not be published before it."""


class LostLog(Exception):
    """The topic is not the one that was published to: in another cluster, or begun anew."""


class Place(NamedTuple):
    """The events up to `position` stand in `cluster`, before `next_offset`."""

    position: int
    cluster: str
    next_offset: int


class Topic(Protocol):
    """The log's topic. Calls raise one of `kafka.broker.AWAY` when Kafka is away."""

    async def look(self) -> tuple[str, int]:
        """The cluster's id, and the offset behind the newest record."""

    async def publish(self, events: Sequence[Recorded]) -> Sequence[int | BaseException]:
        """What became of each: its offset (-1: Kafka has it, and does not say where), or why it was not taken."""


class Relay:
    """Begins with `take_over`, at every error again. Raises Outlived, LostLog, what the topic raises and what the database raises.

    `connection` is autocommitting, and nobody else's.
    """

    def __init__(self, connection: AsyncConnection, topic: Topic) -> None:
        self._connection, self._topic = connection, topic
        self._epoch = 0
        self.place = Place(0, "", 0)

    async def take_over(self) -> None:
        """Whoever led before cannot move the checkpoint any more. Where Kafka lost the log it is published again, as far as needed."""
        cluster, end = await self._topic.look()
        self._epoch, *place = await self._row(TAKE_OVER)
        self.place = Place(*place)
        if cluster == self.place.cluster and end >= self.place.next_offset:
            return
        (needed,) = await self._row(NEEDED)
        log.warning("the log begins anew in Kafka", cluster=cluster, before=self.place.cluster, after=max(0, needed - AGAIN))
        await self._move(Place(max(0, needed - AGAIN), cluster, end))

    async def publish(self) -> int:
        """Publish the next events, and return how many. Raises Unpublishable too."""
        cursor = await self._connection.execute(READ, (self.place.position, BATCH), prepare=True, binary=True)
        events = [recorded_from(row) for row in await cursor.fetchall()]
        if not events:
            return 0
        if events[-1].position != self.place.position + len(events):
            raise LookupError(f"the log has {len(events)} events from {self.place.position} to {events[-1].position}")
        outcomes = await self._topic.publish(events)
        offsets = list(_taken(outcomes))
        if offsets:
            await self._move(self._behind(events[len(offsets) - 1].position, offsets))
        if len(offsets) < len(events):
            _explain(events[len(offsets)], outcomes[len(offsets)])
        return len(events)

    def _behind(self, position: int, offsets: Sequence[int]) -> Place:
        known = [offset for offset in offsets if offset >= 0]
        if known and known[0] < self.place.next_offset:
            raise LostLog(f"offset {known[0]} was given after {self.place.next_offset - 1}")
        return Place(position, self.place.cluster, max([self.place.next_offset, *(offset + 1 for offset in known[-1:])]))

    async def _move(self, to: Place) -> None:
        cursor = await self._connection.execute(MOVE, (*to, self._epoch, *self.place), prepare=True)
        if cursor.rowcount != 1:
            raise Outlived
        self.place = to

    async def _row(self, query: str) -> tuple[Any, ...]:
        row = await (await self._connection.execute(query)).fetchone()
        assert row is not None
        return row


def _taken(outcomes: Sequence[int | BaseException]) -> Iterator[int]:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            return
        yield outcome


def _explain(event: Recorded, outcome: int | BaseException) -> None:
    assert isinstance(outcome, BaseException)
    if isinstance(outcome, REFUSED):
        raise Unpublishable(f"Kafka refuses the event at position {event.position} ({event.type}, {len(event.data)} bytes): {outcome!r}")
    raise outcome


class KafkaTopic:
    """`bioscope.events`, its one partition."""

    def __init__(self, brokers: str, sender: AIOKafkaProducer, *, source: str) -> None:
        self._brokers, self._sender, self._source = brokers, sender, source.encode()

    async def look(self) -> tuple[str, int]:
        cluster = await make_topics(self._brokers)
        consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers, request_timeout_ms=5000)
        try:
            await consumer.start()
            log_itself = TopicPartition(EVENTS, 0)
            return cluster, (await consumer.end_offsets([log_itself]))[log_itself]
        finally:
            await consumer.stop()

    async def publish(self, events: Sequence[Recorded]) -> Sequence[int | BaseException]:
        async with asyncio.timeout(PATIENCE):
            sent = [await self._send(event) for event in events]
            acks = await asyncio.gather(*sent, return_exceptions=True)
        return [ack if isinstance(ack, BaseException) else int(ack.offset) for ack in acks]

    async def _send(self, event: Recorded) -> "asyncio.Future[Any]":
        try:
            told = headers(event, source=self._source)
            future: asyncio.Future[Any] = await self._sender.send(
                EVENTS, event.data, key=str(event.stream).encode(), partition=0, headers=told
            )
        except REFUSED as refused:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(refused)
        return future


@asynccontextmanager
async def connected(brokers: str, *, source: str) -> AsyncIterator[KafkaTopic]:
    """Raises one of `kafka.broker.AWAY`."""
    sender = producer(brokers)
    try:
        await sender.start()
        yield KafkaTopic(brokers, sender, source=source)
    finally:
        await sender.stop()
