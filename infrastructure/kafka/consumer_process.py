"""The consumer process: starts reading, is watched by a watchdog, and leaves its consumer group when it ends."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol

import structlog
from aiokafka import TopicPartition

from infrastructure.configuration.settings import Settings
from infrastructure.kafka.batches import BatchReader, BatchSource, OffsetRange, RecordBatch
from infrastructure.kafka.faust_source import FaustBatchSource
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS, all_topics, create_topics_when_reachable, is_answering, limit_client_logs
from infrastructure.observability.heartbeat import HEARTBEAT
from infrastructure.process_lifecycle import exit_within, signal_ready

log = structlog.get_logger()


class ConsumerLimits(NamedTuple):
    """`hung_after_seconds`: maximum time without progress while the broker answers; a first join can take 11.

    `stop_timeout_seconds`: time from SIGTERM; containers are killed after 10.
    """

    hung_after_seconds: float = 20.0
    end_offsets_timeout_seconds: float = 5.0
    leave_timeout_seconds: float = 0.5
    join_check_interval_seconds: float = 0.1
    stop_timeout_seconds: float = 8.0


DEFAULT_LIMITS: Final = ConsumerLimits()


class SourceFactory(Protocol):
    """Creates the client that delivers batches: `FaustBatchSource` or `AiokafkaBatchSource`."""

    def __call__(
        self, brokers: str, topics: Sequence[str], reader: BatchReader, *, group: str, grouped: bool, fetch_wait: float
    ) -> BatchSource: ...


async def _no_preparation() -> None:
    return None


class ConsumerProcess:
    """Reads `topics` for `reader` as a member of `group`, until SIGTERM (exit code 0) or an error (exit code 1)."""

    def __init__(
        self,
        settings: Settings,
        *,
        group: str,
        topics: Sequence[str],
        reader: BatchReader,
        name: str,
        source: SourceFactory = FaustBatchSource,
        limits: ConsumerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._brokers, self._reader, self.name, self._limits = settings.kafka_url, reader, name, limits
        self._topics = all_topics(settings)
        guarded = _GuardedReader(reader, self._process)
        self._source = source(
            settings.kafka_url, topics, guarded, group=group, grouped=settings.kafka_groups, fetch_wait=settings.kafka_fetch_wait
        )
        self._tasks = set[asyncio.Task[Any]]()
        self._is_stopping = False

    def wake(self) -> None:
        """Fetch now, because there may be new records. For the embedded broker, which does not end a waiting fetch."""
        self._source.wake()

    def owns(self, topic: str) -> bool | None:
        """Whether the topic's first partition is assigned to this process; None while it is not a member of the group."""
        assigned = self._source.assigned
        return None if assigned is None else TopicPartition(topic, 0) in assigned

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit the group's offsets. Raises one of UNAVAILABLE_ERRORS, or a KafkaError if the assignment has changed."""
        await self._source.commit(offsets)

    def run(
        self,
        *companions: Callable[[], Coroutine[Any, Any, None]],
        finish: Callable[[], Awaitable[None]],
        prepared: Callable[[], Awaitable[object]] = _no_preparation,
    ) -> NoReturn:
        """Run until SIGTERM or an error.

        `companions` run from the start, even without a broker; if one ends or raises, the process ends. `finish` completes work in
        progress on SIGTERM. The process reports ready when `prepared` has returned and the group is joined, or without the group if no
        broker answers, since everything else works without one.
        """
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self._start(loop, self._stop(finish)))
        self._start(loop, HEARTBEAT.beat_always())
        for companion in companions:
            self._start(loop, self._or_leave(companion(), may_end=False))
        self._start(loop, self._or_leave(self._report_ready(prepared)))
        loop.run_until_complete(self._or_leave(create_topics_when_reachable(self._brokers, self._topics)))
        limit_client_logs()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            self._source.run(loop)
        except BaseException:  # any error ends this process
            log.exception("reading failed", process=self.name)
        self.leave(1)

    def leave(self, code: int) -> NoReturn:
        """Leave the group, so that the next member need not wait for the session timeout, and exit. Thread-safe."""
        with contextlib.suppress(Exception):
            self._source.leave(self._limits.leave_timeout_seconds)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # ---- on the event loop ----
    async def _process(self, batch: RecordBatch) -> None:
        if self._is_stopping:
            await asyncio.Event().wait()  # forever: the process is ending
        await self._or_leave(self._reader.process(batch))

    def _start(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks.add(loop.create_task(work))

    async def _or_leave(self, work: Awaitable[Any], *, may_end: bool = True) -> None:
        """End the process if `work` raises, or ends although it must not."""
        try:
            await work
            if may_end or self._is_stopping:
                return
            log.error("companion task ended", process=self.name)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("cannot continue", process=self.name)
        self.leave(1)

    async def _report_ready(self, prepared: Callable[[], Awaitable[object]]) -> None:
        await prepared()
        while not self._source.has_joined and await asyncio.to_thread(is_answering, self._brokers):  # noqa: ASYNC110 - Faust has no event
            await asyncio.sleep(self._limits.join_check_interval_seconds)
        signal_ready()

    async def _stop(self, finish: Callable[[], Awaitable[None]]) -> NoReturn:
        self._is_stopping = True
        exit_within(self._limits.stop_timeout_seconds)
        try:
            await finish()
        except Exception:
            log.exception("shutdown failed", process=self.name)
        self.leave(0)

    # ---- the watchdog's thread ----
    def _watch(self) -> NoReturn:
        """End the process if the client hangs: the broker answers, but there is no group, or no progress with unprocessed records."""
        healthy_at, before = time.monotonic(), dict[TopicPartition, int]()
        while True:
            time.sleep(self._limits.hung_after_seconds / 5)  # each check requests end offsets from the broker
            processed = dict(self._source.processed)
            if self._reader.is_waiting or self._is_healthy(processed, before) or not is_answering(self._brokers):
                healthy_at = time.monotonic()
            before = processed
            if time.monotonic() - healthy_at > self._limits.hung_after_seconds:
                log.critical("no progress although the broker answers", process=self.name, seconds=self._limits.hung_after_seconds)
                self.leave(1)

    def _is_healthy(self, processed: Mapping[TopicPartition, int], before: Mapping[TopicPartition, int]) -> bool:
        """Whether the client made progress or has processed everything."""
        if not self._source.has_joined:
            return False
        if processed != before:
            return True
        try:
            ends = self._source.end_offsets(self._limits.end_offsets_timeout_seconds)
        except UNAVAILABLE_ERRORS:
            return False
        return all(processed.get(partition, 0) >= end for partition, end in ends.items())


class _GuardedReader:
    """A reader whose errors end the process."""

    def __init__(self, reader: BatchReader, process: Callable[[RecordBatch], Awaitable[None]]) -> None:
        self._reader, self._process = reader, process

    @property
    def is_waiting(self) -> bool:
        return self._reader.is_waiting

    async def starting_offsets(self, cluster: str, ranges: Mapping[TopicPartition, OffsetRange]) -> Mapping[TopicPartition, int]:
        return await self._reader.starting_offsets(cluster, ranges)

    async def process(self, batch: RecordBatch) -> None:
        await self._process(batch)
