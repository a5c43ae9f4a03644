"""The consumer of tasks. It handles several at a time, separately for each lane, and commits offsets in order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import structlog
from aiokafka import TopicPartition

from application.jobs import tasks
from application.jobs.tasks import Task
from domain.errors import Unavailable, UpgradePending
from infrastructure.kafka.batches import OffsetRange, RecordBatch
from infrastructure.kafka.refused_records import Send, send_dead_letter

log = structlog.get_logger()

Handle = Callable[[str, Task], Awaitable[None]]
Commit = Callable[[Mapping[TopicPartition, int]], Awaitable[None]]


class TaskConsumerLimits(NamedTuple):
    """Delays between two attempts: `retry_delay_seconds` while a dependency is unavailable, `upgrade_retry_delay_seconds` while a task
    waits for an upgrade. At the end, tasks in progress have `finish_timeout_seconds`, and the last commit has
    `last_commit_timeout_seconds`."""

    commit_interval_seconds: float = 0.5
    retry_delay_seconds: float = 1.0
    upgrade_retry_delay_seconds: float = 5.0
    finish_timeout_seconds: float = 1.0
    last_commit_timeout_seconds: float = 0.5


DEFAULT_LIMITS: Final = TaskConsumerLimits()


async def _nothing_is_unavailable() -> bool:
    return False


class OffsetTracker:
    """Tracks which records of a partition are done. All records before `next_offset` are."""

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self._is_done: dict[int, bool] = {}
        self._newest = next_offset - 1

    def begin(self, offset: int) -> bool:
        """Mark a record as begun. False if it was begun before."""
        if offset <= self._newest:
            return False
        self._is_done[offset], self._newest = False, offset
        return True

    def end(self, offset: int) -> None:
        if offset in self._is_done:
            self._is_done[offset] = True
        while self._is_done and self._is_done[first := next(iter(self._is_done))]:
            del self._is_done[first]
            self.next_offset = first + 1


class TaskConsumer:
    """The reader of the task topics. `concurrency` is the number of tasks of each topic that are handled at once.

    While a dependency is unavailable, a task is retried for `retry_seconds`, or longer while `is_unavailable` says that all tasks lack the
    dependency. After that, or after another error, it is released, and the scheduler dispatches it again. A task that waits for an upgrade
    is kept, since repeated dispatches would make the scheduler abandon it.
    """

    is_waiting = False  # tasks are accepted at once and handled in the background

    def __init__(
        self,
        handle: Handle,
        *,
        send: Send,
        concurrency: Mapping[str, int],
        retry_seconds: float = 0.0,
        is_unavailable: Callable[[], Awaitable[bool]] = _nothing_is_unavailable,
        limits: TaskConsumerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._handle, self._send, self._retry_seconds, self._is_unavailable = handle, send, retry_seconds, is_unavailable
        self._limits = limits
        self._slots = {topic: asyncio.Semaphore(number) for topic, number in concurrency.items()}
        self._cluster = ""
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._in_progress = set[asyncio.Task[None]]()
        self._accepted: list[Task] = []

    def leased_work(self) -> list[UUID]:
        """The work items of all accepted tasks, whose leases must be renewed."""
        return [work for task in self._accepted for work in task.work]

    # ---- the port `BatchReader` ----
    async def starting_offsets(self, cluster: str, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """The committed offsets, limited to the range of the partition. Tasks in progress are not started again."""
        offsets = {partition: span.start for partition, span in ranges.items()}
        known = self._trackers if cluster == self._cluster else {}
        self._cluster, self._committed = cluster, dict(offsets)
        self._trackers = {
            partition: tracker if (tracker := known.get(partition)) and tracker.next_offset >= offset else OffsetTracker(offset)
            for partition, offset in offsets.items()
        }
        return offsets

    async def process(self, batch: RecordBatch) -> None:
        for record in batch.records:
            tracker = self._trackers.setdefault(batch.partition, OffsetTracker(record.offset))
            if tracker.begin(record.offset):
                work = asyncio.create_task(self._handle_record(batch.partition, record, tracker))
                self._in_progress.add(work)
                work.add_done_callback(self._in_progress.discard)

    # ---- commits ----
    async def commit_always(self, commit: Commit) -> None:
        while True:
            await asyncio.sleep(self._limits.commit_interval_seconds)
            await self._commit(commit)

    async def finish(self, commit: Commit) -> None:
        """Wait for tasks in progress, up to the limit, then commit."""
        if self._in_progress:
            await asyncio.wait(self._in_progress, timeout=self._limits.finish_timeout_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.last_commit_timeout_seconds):
                await self._commit(commit)

    async def _commit(self, commit: Commit) -> None:
        advanced = {
            partition: tracker.next_offset
            for partition, tracker in self._trackers.items()
            if tracker.next_offset > self._committed.get(partition, 0)
        }
        if not advanced:
            return
        try:
            await commit(advanced)
        except Exception as error:  # Kafka is unavailable, or the partitions were reassigned; a few tasks are repeated
            log.debug("offsets not committed", error=type(error).__name__)
        else:
            self._committed |= advanced

    # ---- one record ----
    async def _handle_record(self, partition: TopicPartition, record: Any, tracker: OffsetTracker) -> None:
        try:
            task = tasks.decode(record.value)
        except (msgspec.MsgspecError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            await send_dead_letter(self._send, partition, record, reason, retry_delay_seconds=self._limits.retry_delay_seconds)
        else:
            self._accepted.append(task)
            try:
                while await self._waits_for_upgrade(partition.topic, task):
                    pass
            finally:
                self._accepted.remove(task)
        tracker.end(record.offset)

    async def _waits_for_upgrade(self, topic: str, task: Task) -> bool:
        """Handle a task. True if it waits for the upgrade of a process and must be repeated; it occupies no slot while it waits."""
        try:
            async with self._slots[topic]:
                await self._handle_with_retries(topic, task)
        except UpgradePending as pending:
            log.warning("task waits for an upgrade", reason=pending.detail, job=str(task.job))
            await asyncio.sleep(self._limits.upgrade_retry_delay_seconds)
            return True
        return False

    async def _handle_with_retries(self, topic: str, task: Task) -> None:
        """Handle a task until it is done or released. Raises UpgradePending."""
        about = {"kind": task.kind, "job": str(task.job), "number": task.number, "attempt": task.attempt}
        now = asyncio.get_running_loop().time
        until = now() + self._retry_seconds
        while True:
            try:
                await self._handle(topic, task)
            except UpgradePending:
                raise
            except Unavailable as unavailable:
                if now() >= until and await self._is_unavailable():
                    until = now() + self._retry_seconds
                if now() < until:
                    await asyncio.sleep(self._limits.retry_delay_seconds)
                    continue
                log.warning("task released: a dependency stays unavailable", reason=unavailable.detail, **about)
            except Exception:
                log.exception("task failed", **about)
            return
