"""One process that reads topics: started, watched, and ended so that the next member need not wait."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, NoReturn, cast

import faust
import structlog
from aiokafka import AIOKafkaConsumer
from faust.exceptions import ConsumerNotStarted, NotReady
from faust.types import TP

from infrastructure.configuration.settings import Settings
from infrastructure.kafka.faust_batches import BatchConsumer, BatchReader, BatchSchema, BatchTransport, RecordBatch, batch_app
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS, is_answering, make_topics, make_topics_when_reachable, quiet_clients
from infrastructure.observability.heartbeat import HEARTBEAT
from infrastructure.process_lifecycle import exit_within, signal_ready

log = structlog.get_logger()

HUNG_AFTER_SECONDS: Final = 20.0  # seconds without progress, while the broker answers; a first join can take 11
LEAVE_TIMEOUT_SECONDS: Final = 0.5  # seconds that leaving the group may take
JOIN_CHECK_SECONDS: Final = 0.1
STOP_TIMEOUT_SECONDS: Final = 8.0  # seconds from SIGTERM; containers are killed after 10


async def _at_once() -> None:
    """For a process that needs no preparation."""


class BatchWorker(faust.Worker):
    def install_signal_handlers(self) -> None:
        """Do nothing: the member has its own."""


class ConsumerProcess:
    """Reads `topics` for `reader` as one of `group`, until SIGTERM (exit code 0) or an error (1; the supervisor starts it again).

    `beside` are coroutines that run all the time, from before there is a broker; when one ends or raises, so does the process.
    `finish` ends what is under way, on SIGTERM. The supervisor is told that this process is ready once `prepared` has returned and the
    group is joined. A broker that does not answer is not waited for, since all else works without it.
    """

    def __init__(self, settings: Settings, *, group: str, topics: Sequence[str], reader: BatchReader, name: str) -> None:
        self._brokers, self._topics, self._reader, self.name = settings.kafka_url, topics, reader, name
        self._app = batch_app(group, settings.kafka_url)
        self._transport = BatchTransport(
            self._app, reader, fetch_wait=settings.kafka_fetch_wait, grouped=settings.kafka_groups, cluster=self._cluster
        )
        self._app.transport = self._transport
        self._grouped = settings.kafka_groups
        self._tasks = set[asyncio.Task[Any]]()
        self._finishing = False

    def wake(self) -> None:
        """Something may have come: worth a look now. For the embedded broker, which cannot tell."""
        if self._transport.gate is not None:
            self._transport.gate.wake()

    @property
    def assigned(self) -> frozenset[TP] | None:
        """The partitions that are ours; None while we are no member: the broker is away, or we have not joined yet."""
        try:
            consumer = self._consumer()._thread._ensure_consumer()
        except (NotReady, ConsumerNotStarted):
            return None
        if (coordinator := consumer._coordinator) is None or (self._grouped and coordinator.generation <= 0):
            return None
        return frozenset(TP(*tp) for tp in consumer.assignment())

    def owns(self, topic: str) -> bool | None:
        """Whether its first partition is ours; None as for `assigned`."""
        assigned = self.assigned
        return None if assigned is None else TP(topic, 0) in assigned

    async def commit(self, offsets: dict[TP, int]) -> None:
        """Tell the group's next member where to read on. Raises one of AWAY, or that the partitions are no longer ours."""
        thread = self._consumer()._thread
        await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(thread._ensure_consumer().commit(cast(Any, offsets)), thread.thread_loop)
        )

    def run(
        self,
        *beside: Callable[[], Coroutine[Any, Any, None]],
        finish: Callable[[], Awaitable[None]],
        prepared: Callable[[], Awaitable[object]] = _at_once,
    ) -> NoReturn:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        for topic in self._topics:
            self._agent(topic)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self._start(loop, self._stop(finish)))
        self._start(loop, HEARTBEAT.beat_always())
        for work in beside:
            self._start(loop, self._or_leave(work(), ends=False))
        self._start(loop, self._or_leave(self._report_ready(prepared)))
        loop.run_until_complete(self._or_leave(make_topics_when_reachable(self._brokers)))
        quiet_clients()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        worker = BatchWorker(self._app, loop=loop, quiet=True, redirect_stdouts=False, override_logging=False)
        worker.spinner = None
        try:
            worker.execute_from_commandline()
        except BaseException:  # whatever it is, it ends this process
            log.exception("reading failed", process=self.name)
        self.leave(1)

    def leave(self, code: int) -> NoReturn:
        """Leave the group, so that the next member need not wait for the session's time-out, and end at once. From any thread."""
        with contextlib.suppress(Exception):
            self._on_its_loop(lambda kafka: kafka._coordinator._maybe_leave_group(), LEAVE_TIMEOUT_SECONDS)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _agent(self, topic: str) -> None:
        transport = self._transport

        async def read(frames: faust.StreamT[RecordBatch]) -> None:
            async for frame in frames:
                if self._finishing:
                    return
                await self._or_leave(self._reader.take(frame))
                transport.taken[frame.partition] = frame.next_offset

        self._app.agent(self._app.topic(topic, acks=False, schema=BatchSchema()), concurrency=1, name=topic)(read)

    def _start(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks.add(loop.create_task(work))

    async def _or_leave(self, work: Awaitable[Any], *, ends: bool = True) -> None:
        try:
            await work
            if ends or self._finishing:
                return
            log.error("what ran beside has ended", process=self.name)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("cannot go on", process=self.name)
        self.leave(1)

    async def _report_ready(self, prepared: Callable[[], Awaitable[object]]) -> None:
        await prepared()
        while not self._has_joined() and await asyncio.to_thread(is_answering, self._brokers):  # noqa: ASYNC110 - Faust offers no event
            await asyncio.sleep(JOIN_CHECK_SECONDS)
        signal_ready()

    async def _stop(self, finish: Callable[[], Awaitable[None]]) -> NoReturn:
        self._finishing = True
        exit_within(STOP_TIMEOUT_SECONDS)
        try:
            await finish()
        except Exception:
            log.exception("not ended well", process=self.name)
        self.leave(0)

    async def _cluster(self) -> str:
        return await make_topics(self._brokers)

    def _consumer(self) -> BatchConsumer:
        """Not `app.consumer`: before its time that would build one, on the wrong loop."""
        if self._app._consumer is None:
            raise NotReady
        return cast(BatchConsumer, self._app._consumer)

    def _on_its_loop(self, work: Callable[[AIOKafkaConsumer], Coroutine[Any, Any, Any]], seconds: float) -> Any:
        thread = self._consumer()._thread
        return asyncio.run_coroutine_threadsafe(work(thread._ensure_consumer()), thread.thread_loop).result(seconds)

    def _watch(self) -> NoReturn:
        """End the process when Faust hangs: no group, or records in the log and none taken, while the broker answers."""
        since, before = time.monotonic(), dict[TP, int]()
        while True:
            time.sleep(HUNG_AFTER_SECONDS / 5)  # each time the broker is asked where its partitions end
            now = dict(self._transport.taken)
            if self._reader.waits or self._healthy(now, before) or not is_answering(self._brokers):
                since = time.monotonic()
            before = now
            if time.monotonic() - since > HUNG_AFTER_SECONDS:
                log.critical("nothing moves although the broker answers", process=self.name, seconds=HUNG_AFTER_SECONDS)
                self.leave(1)

    def _has_joined(self) -> bool:
        return self.assigned is not None and self._consumer().flow_active and not self._app.rebalancing

    def _healthy(self, now: dict[TP, int], before: dict[TP, int]) -> bool:
        if not self._has_joined():
            return False
        if now != before:
            return True
        try:
            ends: dict[Any, int] = self._on_its_loop(lambda kafka: kafka.end_offsets(list(kafka.assignment())), 5.0)
        except (*UNAVAILABLE_ERRORS, NotReady):
            return False
        return all(now.get(TP(*tp), 0) >= end for tp, end in ends.items())
