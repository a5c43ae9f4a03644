"""The publisher: publishes the log to Kafka in order, from the checkpoint, never past an unacknowledged event."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, NamedTuple

import structlog

from application.cancellation import run_until_first_ends
from application.poll_interval import PollInterval
from application.ports import RecordedEvent
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS
from infrastructure.postgres.system.relay_checkpoint import RelayCheckpoint
from infrastructure.relay.checkpoint_store import CheckpointStore
from infrastructure.relay.errors import Fenced, TopicReset, Unpublishable
from infrastructure.relay.topic import REFUSED_ERRORS, Topic

log = structlog.get_logger()


class RelayLimits(NamedTuple):
    """`republished_events`: number of events before the read models' checkpoint that are published again if Kafka lost the log.

    The log is polled every `poll_interval_seconds` after an event, and less often while there are none, since a wake-up may be lost.
    `topic_check_interval_seconds`: time between two checks that the cluster is still the same.
    """

    events_per_batch: int = 1000
    republished_events: int = 500
    poll_interval_seconds: float = 0.25
    topic_check_interval_seconds: float = 5.0
    retry_delay_seconds: float = 0.5


DEFAULT_LIMITS: Final = RelayLimits()


class RelaySession:
    """Publishes in one epoch. Call `take_over` first, and create a new session after every error.

    Raises Fenced, TopicReset, and the errors of the topic and the database.
    """

    def __init__(self, store: CheckpointStore, topic: Topic, limits: RelayLimits = DEFAULT_LIMITS) -> None:
        self._store, self._topic, self._limits = store, topic, limits
        self._epoch = 0
        self.checkpoint = RelayCheckpoint(0, "", 0)

    async def take_over(self) -> None:
        """Begin a new epoch. If Kafka lost the log, move the checkpoint back as far as the read models need it."""
        cluster, end = await self._topic.end()
        self._epoch, self.checkpoint = await self._store.take_over()
        if cluster == self.checkpoint.cluster and end >= self.checkpoint.next_offset:
            return
        after = max(0, await self._store.needed_position() - self._limits.republished_events)
        log.warning("starting over in Kafka, which is new or lost the log", cluster=cluster, before=self.checkpoint.cluster, after=after)
        await self._advance(RelayCheckpoint(after, cluster, end))

    async def publish(self) -> int:
        """Publish the next events; return their number. Also raises Unpublishable."""
        events = await self._store.events_after(self.checkpoint.position, self._limits.events_per_batch)
        if not events:
            return 0
        last = events[-1].event.position
        if last != self.checkpoint.position + len(events):
            raise LookupError(f"the log has {len(events)} events from {self.checkpoint.position} to {last}")
        outcomes = await self._topic.publish(events)
        offsets = list(_acknowledged(outcomes))
        if offsets:
            await self._advance(self._checkpoint_after(events[len(offsets) - 1].event.position, offsets))
        if len(offsets) < len(events):
            _raise_reason(events[len(offsets)].event, outcomes[len(offsets)])
        return len(events)

    def _checkpoint_after(self, position: int, offsets: Sequence[int]) -> RelayCheckpoint:
        known = [offset for offset in offsets if offset >= 0]
        next_offset = self.checkpoint.next_offset
        if known and known[0] < next_offset:
            raise TopicReset(f"Kafka assigned offset {known[0]} after {next_offset - 1}")
        return RelayCheckpoint(position, self.checkpoint.cluster, max([next_offset, *(offset + 1 for offset in known[-1:])]))

    async def _advance(self, to: RelayCheckpoint) -> None:
        if not await self._store.advance(self._epoch, self.checkpoint, to):
            raise Fenced
        self.checkpoint = to


def _acknowledged(outcomes: Sequence[int | BaseException]) -> Iterator[int]:
    """The offsets of the events before the first one that was not accepted."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            return
        yield outcome


def _raise_reason(event: RecordedEvent, outcome: int | BaseException) -> None:
    assert isinstance(outcome, BaseException)
    if isinstance(outcome, REFUSED_ERRORS):
        raise Unpublishable(f"Kafka refuses the event at position {event.position} ({event.type}, {len(event.data)} bytes): {outcome!r}")
    raise outcome


class Publisher:
    """Publishes without end; Kafka may be unavailable. Raises Fenced, Unpublishable, and the errors of the database.

    `position` is that of the last published event.
    """

    def __init__(
        self,
        store: CheckpointStore,
        open_topic: Callable[[], AbstractAsyncContextManager[Topic]],
        *,
        limits: RelayLimits = DEFAULT_LIMITS,
    ) -> None:
        self._store, self._open_topic, self._limits = store, open_topic, limits
        self._wake_up = asyncio.Event()
        self.position = 0

    def wake(self) -> None:
        """Check for new events now."""
        self._wake_up.set()

    async def publish_always(self) -> None:
        while True:
            try:
                async with self._open_topic() as topic:
                    await self._publish_to(topic)
            except (*UNAVAILABLE_ERRORS, TopicReset) as error:
                log.warning("waiting for Kafka", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._limits.retry_delay_seconds)

    async def _publish_to(self, topic: Topic) -> None:
        session = RelaySession(self._store, topic, self._limits)
        await session.take_over()
        log.info("publishing", after=session.checkpoint.position, cluster=session.checkpoint.cluster)
        await run_until_first_ends(self._publish_events(session), self._watch(topic, session.checkpoint.cluster))

    async def _publish_events(self, session: RelaySession) -> None:
        interval = PollInterval(self._limits.poll_interval_seconds)
        while True:
            self._wake_up.clear()
            published = await session.publish()
            self.position = session.checkpoint.position
            if published:
                interval.shorten()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval.take()):
                        await self._wake_up.wait()

    async def _watch(self, topic: Topic, cluster: str) -> None:
        """Detect an emptied Kafka, so that topics and the needed part of the log are published at once, not with the next event."""
        while True:
            await asyncio.sleep(self._limits.topic_check_interval_seconds)
            if await topic.cluster_id() != cluster:
                raise TopicReset("another cluster")
