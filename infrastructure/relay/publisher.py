"""The log onto its topic: what follows the checkpoint, in order, until Kafka has it; never past an event that it has not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError, ProducerFenced, RecordListTooLargeError
from psycopg import AsyncConnection

from application.cancellation import run_until_first_ends
from application.hash_chain import START, linked
from application.poll_interval import PollInterval
from application.ports import ChainedEvent, RecordedEvent
from application.topics import EVENTS
from infrastructure.eventstore.recorder import EVENT_COLUMNS, recorded_from
from infrastructure.kafka.cloud_events import RecordKey, headers
from infrastructure.kafka.producer import producer, start_fencing, stop_producer
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS, make_topics, make_topics_when_reachable, quiet_clients
from infrastructure.postgres.system import relay_checkpoint
from infrastructure.postgres.system.relay_checkpoint import RelayCheckpoint

log = structlog.get_logger()

EVENTS_PER_BATCH: Final = 1000  # events
REPUBLISHED_EVENTS: Final = 500  # events before the projector's place that are published again where the log was lost
BATCH_TIMEOUT_SECONDS: Final = 20.0  # seconds for a batch
POLL_INTERVAL_SECONDS: Final = 0.25  # seconds after something happened, should a wake-up have been lost; longer while nothing happens
TOPIC_CHECK_INTERVAL_SECONDS: Final = 5.0  # seconds between two looks at the cluster
RETRY_DELAY_SECONDS: Final = 0.5  # seconds after a failure
REFUSED_ERRORS: Final = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError)

READ = f"select {EVENT_COLUMNS} from es.events where notification_id >= %s order by notification_id limit %s"  # noqa: S608 - constants


class Fenced(Exception):
    """Another relay has taken over."""


class Unpublishable(Exception):
    """Kafka refuses an event for good. Somebody must look: what follows it must not be published before it."""


class BeyondTheLog(Unpublishable):
    """The checkpoint of the relay stands where the log has no event: it was changed by somebody else, or the log was cut off."""


class TopicReset(Exception):
    """The topic is not the one that was published to: in another cluster, or begun anew."""


class Published(Protocol):
    """How far the log was published, and what follows there. Calls raise what the database raises when it is away."""

    async def take_over(self) -> tuple[int, RelayCheckpoint]:
        """A new epoch, and the place: whoever led before cannot move it any more."""

    async def needed(self) -> int:
        """Up to which position nobody needs the log from Kafka any more."""

    async def after(self, position: int, limit: int) -> Sequence[ChainedEvent]: ...

    async def move(self, epoch: int, was: RelayCheckpoint, to: RelayCheckpoint) -> bool:
        """False when the place is another than `was`, or this epoch is over."""


class Topic(Protocol):
    """The log's topic. Calls raise one of `kafka.broker.AWAY` when Kafka is away."""

    async def cluster(self) -> str:
        """The cluster's id."""

    async def look(self) -> tuple[str, int]:
        """The cluster's id, and the offset behind the newest record."""

    async def publish(self, events: Sequence[ChainedEvent]) -> Sequence[int | BaseException]:
        """What became of each: its offset (-1: Kafka has it, and does not say where), or why it was not taken. Raises Outlived."""


class Relay:
    """Begins with `take_over`, at every error again. Raises Outlived, LostLog, what the topic raises and what the database raises."""

    def __init__(self, published: Published, topic: Topic) -> None:
        self._published, self._topic = published, topic
        self._epoch = 0
        self.place = RelayCheckpoint(0, "", 0)

    async def take_over(self) -> None:
        """Whoever led before cannot move the checkpoint any more. Where Kafka lost the log it is published again, as far as needed."""
        cluster, end = await self._topic.look()
        self._epoch, self.place = await self._published.take_over()
        if cluster == self.place.cluster and end >= self.place.next_offset:
            return
        needed = await self._published.needed()
        log.warning("the log begins anew in Kafka", cluster=cluster, before=self.place.cluster, after=max(0, needed - REPUBLISHED_EVENTS))
        await self._move(RelayCheckpoint(max(0, needed - REPUBLISHED_EVENTS), cluster, end))

    async def publish(self) -> int:
        """Publish the next events, and return how many. Raises Unpublishable too."""
        events = await self._published.after(self.place.position, EVENTS_PER_BATCH)
        if not events:
            return 0
        last = events[-1].event.position
        if last != self.place.position + len(events):
            raise LookupError(f"the log has {len(events)} events from {self.place.position} to {last}")
        outcomes = await self._topic.publish(events)
        offsets = list(_taken(outcomes))
        if offsets:
            await self._move(self._behind(events[len(offsets) - 1].event.position, offsets))
        if len(offsets) < len(events):
            _explain(events[len(offsets)].event, outcomes[len(offsets)])
        return len(events)

    def _behind(self, position: int, offsets: Sequence[int]) -> RelayCheckpoint:
        known = [offset for offset in offsets if offset >= 0]
        if known and known[0] < self.place.next_offset:
            raise TopicReset(f"offset {known[0]} was given after {self.place.next_offset - 1}")
        return RelayCheckpoint(position, self.place.cluster, max([self.place.next_offset, *(offset + 1 for offset in known[-1:])]))

    async def _move(self, to: RelayCheckpoint) -> None:
        if not await self._published.move(self._epoch, self.place, to):
            raise Fenced
        self.place = to


def _taken(outcomes: Sequence[int | BaseException]) -> Iterator[int]:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            return
        yield outcome


def _explain(event: RecordedEvent, outcome: int | BaseException) -> None:
    assert isinstance(outcome, BaseException)
    if isinstance(outcome, REFUSED_ERRORS):
        raise Unpublishable(f"Kafka refuses the event at position {event.position} ({event.type}, {len(event.data)} bytes): {outcome!r}")
    raise outcome


class Publisher:
    """Publishes for ever; Kafka may be away meanwhile. Raises Outlived, Unpublishable, and what the database raises.

    `position`: of the last event published.
    """

    def __init__(self, published: Published, topic: Callable[[], AbstractAsyncContextManager[Topic]]) -> None:
        self._published, self._open = published, topic
        self._woken = asyncio.Event()
        self.position = 0

    def wake(self) -> None:
        """There may be something to publish."""
        self._woken.set()

    async def publish_always(self) -> None:
        while True:
            try:
                async with self._open() as topic:
                    await self._publish_to(topic)
            except (*UNAVAILABLE_ERRORS, TopicReset) as error:
                log.warning("waiting for Kafka", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_DELAY_SECONDS)

    async def _publish_to(self, topic: Topic) -> None:
        relay = Relay(self._published, topic)
        await relay.take_over()
        log.info("publishing", after=relay.place.position, cluster=relay.place.cluster)
        await run_until_first_ends(self._publish(relay), self._watch(topic, relay.place.cluster))

    async def _publish(self, relay: Relay) -> None:
        interval = PollInterval(POLL_INTERVAL_SECONDS)
        while True:
            self._woken.clear()
            published = await relay.publish()
            self.position = relay.place.position
            if published:
                interval.shorten()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval.take()):
                        await self._woken.wait()

    async def _watch(self, topic: Topic, cluster: str) -> None:
        """An emptied Kafka gets its topics and what is needed of the log at once, not with the next event."""
        while True:
            await asyncio.sleep(TOPIC_CHECK_INTERVAL_SECONDS)
            if await topic.cluster() != cluster:
                raise TopicReset("another cluster")


class PostgresPublished:
    """The port `Published`. `connection` is autocommitting, and nobody else's.

    `read` is given what was read of the log, `moved` is called once Kafka has more of it.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        read: Callable[[Sequence[RecordedEvent]], object] = lambda _: None,
        moved: Callable[[], object] = lambda: None,
    ) -> None:
        self._connection, self._read, self._moved = connection, read, moved

    async def take_over(self) -> tuple[int, RelayCheckpoint]:
        return await relay_checkpoint.take_over(self._connection)

    async def needed(self) -> int:
        return await relay_checkpoint.needed_position(self._connection)

    async def after(self, position: int, limit: int) -> list[ChainedEvent]:
        """Raises BeyondTheLog where the event at `position` is missing."""
        before = 1 if position else 0
        cursor = await self._connection.execute(READ, (position, limit + before), prepare=True, binary=True)
        events = [recorded_from(row) for row in await cursor.fetchall()]
        if before and (not events or events[0].position != position):
            raise BeyondTheLog(f"the log has no event at position {position}, up to which ops.relay says that it was published")
        self._read(events)
        return list(linked(events[before:], events[0].hash if before else START))

    async def move(self, epoch: int, was: RelayCheckpoint, to: RelayCheckpoint) -> bool:
        if not await relay_checkpoint.move(self._connection, epoch, was, to):
            return False
        self._moved()
        return True


class KafkaTopic:
    """`bioscope.events`, its one partition."""

    def __init__(self, brokers: str, sender: AIOKafkaProducer, *, key: RecordKey) -> None:
        self._brokers, self._sender, self._key = brokers, sender, key

    async def cluster(self) -> str:
        return await make_topics(self._brokers)

    async def look(self) -> tuple[str, int]:
        cluster = await self.cluster()
        consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers, request_timeout_ms=5000)
        try:
            await consumer.start()
            log_itself = TopicPartition(EVENTS, 0)
            return cluster, (await consumer.end_offsets([log_itself]))[log_itself]
        finally:
            await consumer.stop()

    async def publish(self, events: Sequence[ChainedEvent]) -> Sequence[int | BaseException]:
        async with asyncio.timeout(BATCH_TIMEOUT_SECONDS):
            sent = [await self._send(event) for event in events]
            acks = await asyncio.gather(*sent, return_exceptions=True)
        if any(isinstance(ack, ProducerFenced) for ack in acks):
            raise Fenced("Kafka refuses its records: another relay publishes")
        return [ack if isinstance(ack, BaseException) else int(ack.offset) for ack in acks]

    async def _send(self, linked: ChainedEvent) -> "asyncio.Future[Any]":
        event = linked.event
        try:
            future: asyncio.Future[Any] = await self._sender.send(
                EVENTS, event.data, key=str(event.stream).encode(), partition=0, headers=headers(linked, self._key)
            )
        except ProducerFenced:
            raise Fenced("Kafka refuses its records: another relay publishes") from None
        except REFUSED_ERRORS as refused:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(refused)
        return future


@asynccontextmanager
async def connect_publisher(brokers: str, *, key: RecordKey) -> AsyncIterator[KafkaTopic]:
    """Waits for the brokers as long as it takes. From then on Kafka takes nothing from a relay that was connected before (decision 0074).

    Raises one of `kafka.broker.AWAY`.
    """
    await make_topics_when_reachable(brokers)
    quiet_clients()
    sender = producer(brokers)
    try:
        await start_fencing(sender, f"bioscope-relay-{key.source.decode()}")
        yield KafkaTopic(brokers, sender, key=key)
    finally:
        await stop_producer(sender)
