"""Tasks out of their topics: some at a time, each lane for itself, told as done in order."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from faust.types import TP

from application import tasks
from application.tasks import Task
from application.topics import DEAD_LETTERS
from domain.errors import Unavailable, UpgradePending
from infrastructure.kafka.faust_batches import OffsetRange, RecordBatch
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS

log = structlog.get_logger()

COMMIT_INTERVAL_SECONDS: Final = 0.5  # seconds
UPGRADE_RETRY_DELAY_SECONDS: Final = 5.0  # seconds between two tries of a task that waits for an upgrade
RETRY_DELAY_SECONDS: Final = 1.0  # seconds between two tries, while something is away
FINISH_TIMEOUT_SECONDS: Final = 1.0  # seconds that tasks under way may take when we are told to end
LAST_COMMIT_TIMEOUT_SECONDS: Final = 0.5  # seconds that Kafka may then take to hear what is done: away, it would be asked for ever
MAX_KEPT_BYTES: Final = 65_536  # bytes of a record that is no task: a dead letter must be small enough for its topic

Handle = Callable[[str, Task], Awaitable[None]]
Send = Callable[[str, bytes, bytes], Awaitable[None]]
Commit = Callable[[dict[TP, int]], Awaitable[None]]


async def _nothing_is_away() -> bool:
    return False


class UndecodableTask(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is no task, as its dead letter tells it."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: str  # its beginning, in base64


class OffsetTracker:
    """Which records of a partition are done, up to which one without a hole."""

    def __init__(self, place: int) -> None:
        self.place = place
        self._begun: dict[int, bool] = {}
        self._newest = place - 1

    def begin(self, offset: int) -> bool:
        """False for one that was begun before."""
        if offset <= self._newest:
            return False
        self._begun[offset], self._newest = False, offset
        return True

    def end(self, offset: int) -> None:
        if offset in self._begun:
            self._begun[offset] = True
        while self._begun and self._begun[first := next(iter(self._begun))]:
            del self._begun[first]
            self.place = first + 1


class TaskConsumer:
    """The reader of the tasks' topics. `abreast`: how many tasks of each topic are worked on at once.

    A task is tried again while what it needs is away, for `patience` seconds, and as long as `is_away` says that all tasks lack it.
    Then, or when something is broken, it is let go: the scheduler gives it out again. A task that waits for an upgrade is kept: given
    out again and again, it would be given up.
    """

    waits = False  # tasks are taken at once, whatever becomes of them

    def __init__(
        self,
        handle: Handle,
        *,
        send: Send,
        abreast: Mapping[str, int],
        patience: float = 0.0,
        is_away: Callable[[], Awaitable[bool]] = _nothing_is_away,
    ) -> None:
        self._handle, self._send, self._patience, self._is_away = handle, send, patience, is_away
        self._rooms = {topic: asyncio.Semaphore(number) for topic, number in abreast.items()}
        self._cluster = ""
        self._done: dict[TP, OffsetTracker] = {}
        self._told: dict[TP, int] = {}
        self._under_way = set[asyncio.Task[None]]()
        self._held: list[Task] = []

    def held(self) -> list[UUID]:
        """The work that is waited for or done here."""
        return [work for task in self._held for work in task.work]

    async def starting_offsets(self, cluster: str, spans: Mapping[TP, OffsetRange]) -> dict[TP, int]:
        places = {
            tp: span.begin if span.committed is None else min(max(span.committed, span.begin), span.end) for tp, span in spans.items()
        }
        known = self._done if cluster == self._cluster else {}
        self._cluster, self._told = cluster, dict(places)
        self._done = {tp: done if (done := known.get(tp)) and done.place >= place else OffsetTracker(place) for tp, place in places.items()}
        return places

    async def take(self, frame: RecordBatch) -> None:
        for record in frame.records:
            done = self._done.setdefault(frame.partition, OffsetTracker(record.offset))
            if done.begin(record.offset):
                work = asyncio.create_task(self._answer(frame.partition, record, done))
                self._under_way.add(work)
                work.add_done_callback(self._under_way.discard)

    async def commit_always(self, commit: Commit) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_SECONDS)
            await self._commit(commit)

    async def finish(self, commit: Commit) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=FINISH_TIMEOUT_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_COMMIT_TIMEOUT_SECONDS):
                await self._commit(commit)

    async def _answer(self, tp: TP, record: Any, done: OffsetTracker) -> None:
        try:
            task = tasks.decode(record.value)
        except (msgspec.MsgspecError, TypeError) as error:
            await self._bury(tp, record, error)
        else:
            self._held.append(task)
            try:
                while await self._waits_for_upgrade(tp.topic, task):
                    pass
            finally:
                self._held.remove(task)
        done.end(record.offset)

    async def _waits_for_upgrade(self, topic: str, task: Task) -> bool:
        """Whether it is to be tried again, after a rest that makes room for others: it waits until this process or another is upgraded."""
        try:
            async with self._rooms[topic]:
                await self._handled(topic, task)
        except UpgradePending as needed:
            log.warning("task waits for an upgrade", reason=needed.detail, job=str(task.job))
            await asyncio.sleep(UPGRADE_RETRY_DELAY_SECONDS)
            return True
        return False

    async def _handled(self, topic: str, task: Task) -> None:
        about = {"kind": task.kind, "job": str(task.job), "number": task.number, "attempt": task.attempt}
        now = asyncio.get_running_loop().time
        until = now() + self._patience
        while True:
            try:
                await self._handle(topic, task)
            except UpgradePending:
                raise
            except Unavailable as away:
                if now() >= until and await self._is_away():
                    until = now() + self._patience
                if now() < until:
                    await asyncio.sleep(RETRY_DELAY_SECONDS)
                    continue
                log.warning("task let go: what it needs stays away", reason=away.detail, **about)
            except Exception:
                log.exception("task failed", **about)
            return

    async def _bury(self, tp: TP, record: Any, error: Exception) -> None:
        dead = UndecodableTask(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.offset,
            reason=f"{type(error).__name__}: {error}",
            value=base64.b64encode((record.value or b"")[:MAX_KEPT_BYTES]).decode(),
        )
        log.error("not a task", topic=dead.topic, partition=dead.partition, offset=dead.offset, reason=dead.reason)
        while True:
            try:
                return await self._send(DEAD_LETTERS, record.key or b"", msgspec.json.encode(dead))
            except UNAVAILABLE_ERRORS:
                await asyncio.sleep(RETRY_DELAY_SECONDS)

    async def _commit(self, commit: Commit) -> None:
        moved = {tp: done.place for tp, done in self._done.items() if done.place > self._told.get(tp, 0)}
        if not moved:
            return
        try:
            await commit(moved)
        except Exception as error:  # away, or the partitions are another's now: whoever reads them begins a little earlier
            log.debug("not told what is done", error=type(error).__name__)
        else:
            self._told |= moved
