"""Batches of records from Kafka: the port of readers, and the port of the clients that deliver to them."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from aiokafka import TopicPartition

MAX_BATCH_RECORDS: Final = 500
MAX_WAITING_BATCHES: Final = 4  # of one topic, before no more are fetched


class RecordBatch(NamedTuple):
    """Consecutive records of one partition; `records` are `aiokafka.ConsumerRecord`s with ascending offsets."""

    cluster: str
    partition: TopicPartition
    records: Sequence[Any]

    @property
    def next_offset(self) -> int:
        return int(self.records[-1].offset) + 1


class OffsetRange(NamedTuple):
    """What a partition holds: from offset `begin` to before `end`; `committed` by the group, if it ever was."""

    begin: int
    end: int
    committed: int | None


class BatchReader(Protocol):
    """Processes batches. An error of either call ends the process.

    `is_waiting`: for something other than Kafka; then it is no fault when nothing moves.
    """

    @property
    def is_waiting(self) -> bool: ...

    def starting_offsets(
        self, cluster: str, ranges: Mapping[TopicPartition, OffsetRange]
    ) -> Coroutine[Any, Any, Mapping[TopicPartition, int]]:
        """The offset of each partition from which to read on. From now on these partitions are assigned to this process, and no others."""

    def process(self, batch: RecordBatch) -> Coroutine[Any, Any, None]:
        """The next batch of the same topic comes after this has returned; batches of other topics do not wait for it."""


class BatchSource(Protocol):
    """A Kafka client that reads topics for a `BatchReader`, as one member of a consumer group.

    It counts nothing: after each assignment the reader decides where to read on. `processed`: the offset after the last batch that the
    reader processed, of each partition.
    """

    @property
    def processed(self) -> Mapping[TopicPartition, int]: ...

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call the reader on `loop`, which does not run yet. Blocks; returns or raises when reading has failed for good."""

    def wake(self) -> None:
        """There may be new records. For the embedded broker, which cannot wake a fetch that waits. From any thread."""

    @property
    def assigned(self) -> frozenset[TopicPartition] | None:
        """The partitions that are assigned to this process; None while it is no member of the group."""

    @property
    def has_joined(self) -> bool:
        """Whether this process is a member, and no rebalance is in progress."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Record where the group's next member reads on. Raises one of UNAVAILABLE_ERRORS, or that the assignment has changed."""

    def end_offsets(self, timeout: float) -> Mapping[TopicPartition, int]:
        """The offset after the newest record of each assigned partition. Blocks; from another thread than the event loop's.

        Raises one of UNAVAILABLE_ERRORS.
        """

    def leave(self, timeout: float) -> None:
        """Leave the group, so that the next member need not wait for the session timeout. Blocks; from any thread."""
