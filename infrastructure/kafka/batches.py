"""The ports of batch consumption: the reader of batches, and the Kafka client that delivers them."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from aiokafka import TopicPartition

MAX_BATCH_RECORDS: Final = 500
MAX_WAITING_BATCHES: Final = 4  # per topic, before fetching stops


class RecordBatch(NamedTuple):
    """Consecutive records of one partition; `records` are `aiokafka.ConsumerRecord`s with ascending offsets."""

    cluster: str
    partition: TopicPartition
    records: Sequence[Any]

    @property
    def next_offset(self) -> int:
        return int(self.records[-1].offset) + 1


class OffsetRange(NamedTuple):
    """The offsets of a partition: from `begin` to before `end`. `committed` is the group's offset, or None."""

    begin: int
    end: int
    committed: int | None

    @property
    def start(self) -> int:
        """The committed offset within the range, or the beginning."""
        return self.begin if self.committed is None else min(max(self.committed, self.begin), self.end)


class BatchReader(Protocol):
    """Processes batches. An error in either call ends the process.

    `is_waiting`: the reader waits for something other than Kafka, so the watchdog accepts that it makes no progress.
    """

    @property
    def is_waiting(self) -> bool: ...

    def starting_offsets(
        self, cluster: str, ranges: Mapping[TopicPartition, OffsetRange]
    ) -> Coroutine[Any, Any, Mapping[TopicPartition, int]]:
        """The offset from which to read each partition. Exactly these partitions are assigned to this process from now on."""

    def process(self, batch: RecordBatch) -> Coroutine[Any, Any, None]:
        """Process a batch. Batches of one topic are processed one after the other; topics are independent."""


class BatchSource(Protocol):
    """A Kafka client that reads topics for a `BatchReader` as one member of a consumer group.

    After each assignment the reader decides from which offset to read. `processed` is the offset after the last processed batch, by
    partition.
    """

    @property
    def processed(self) -> Mapping[TopicPartition, int]: ...

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run `loop` and call the reader on it. Blocks; ends when reading has failed permanently."""

    def wake(self) -> None:
        """Fetch now, because there may be new records. For the embedded broker, which does not end a waiting fetch. Thread-safe."""

    @property
    def assigned(self) -> frozenset[TopicPartition] | None:
        """The assigned partitions; None while this process is not a member of the group."""

    @property
    def has_joined(self) -> bool:
        """Whether this process is a member, and no rebalance is in progress."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit the group's offsets. Raises one of UNAVAILABLE_ERRORS, or a KafkaError if the assignment has changed."""

    def end_offsets(self, timeout: float) -> Mapping[TopicPartition, int]:
        """The offset after the newest record of each assigned partition. Blocks; not to be called on the event loop.

        Raises one of UNAVAILABLE_ERRORS.
        """

    def leave(self, timeout: float) -> None:
        """Leave the group, so that the next member need not wait for the session timeout. Blocks. Thread-safe."""
