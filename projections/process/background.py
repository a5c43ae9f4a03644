"""Background tasks of the projector process: scheduling, live notifications, housekeeping.

They run on a thread and event loop of their own, so that they never delay the projector.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import psycopg
import structlog

from application.jobs import tasks
from application.jobs.job_scheduler import Scheduler
from application.jobs.topics import DEAD_LETTERS
from application.jobs.work_queue import OutgoingTask
from application.poll_interval import PollInterval
from domain.errors import Unavailable
from projections.engine.batches import BatchResult, PoisonEvent
from projections.process.live_notifier import LiveNotifier

log = structlog.get_logger()

Send = Callable[[str, bytes, bytes], Awaitable[None]]
"""`send(topic, key, value)` returns when Kafka has it. Raises when that failed, or takes too long."""


class BackgroundLimits(NamedTuple):
    """The scheduler polls each `poll_interval_seconds`, and ever less often while no work is open. `coalesce_seconds`: between two ticks,
    so that what happens meanwhile is handled together. `stop_timeout_seconds`: for the current step at the end."""

    poll_interval_seconds: float = 0.25
    coalesce_seconds: float = 0.01
    retry_delay_seconds: float = 1.0
    housekeeping_interval_seconds: float = 3600.0
    stop_timeout_seconds: float = 5.0


DEFAULT_LIMITS: Final = BackgroundLimits()


class BackgroundTasks:
    """`on_applied` may be called from any thread, returns at once, and raises nothing."""

    def __init__(
        self,
        scheduler: Scheduler,
        notifier: LiveNotifier,
        send: Send,
        *,
        chores: Sequence[Callable[[], None]] = (),
        limits: BackgroundLimits = DEFAULT_LIMITS,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._scheduler, self._notifier, self._send, self._chores, self._limits = scheduler, notifier, send, chores, limits
        self._loop = loop or asyncio.new_event_loop()
        self._scheduler_woken, self._has_result = asyncio.Event(), asyncio.Event()
        self._result: BatchResult | None = None
        self._all = self._loop.create_task(self._run_all())
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the current step; then another process may lead."""
        self._loop.call_soon_threadsafe(self._all.cancel)
        self._thread.join(self._limits.stop_timeout_seconds)
        self._scheduler.close()

    def on_applied(self, result: BatchResult) -> None:
        self._loop.call_soon_threadsafe(self._add_result, result)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._all)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _run_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._schedule_always())
            group.create_task(self._notify_always())
            group.create_task(self._housekeep_always())

    def _add_result(self, result: BatchResult) -> None:
        self._result = self._result.merge(result) if self._result else result
        self._has_result.set()
        if result.wakes_scheduler:
            self._scheduler_woken.set()

    # ---- notifications ----
    async def _notify_always(self) -> None:
        while True:
            await self._has_result.wait()
            self._has_result.clear()
            result, self._result = self._result, None
            if result is not None:
                await self._notifier.notify(result)
                await self._send_dead_letters(result.dead_letters)

    async def _send_dead_letters(self, dead_letters: Sequence[PoisonEvent]) -> None:
        """For monitoring of the topic; the table of dead letters is authoritative."""
        for letter in dead_letters:
            try:
                await self._send(DEAD_LETTERS, letter.stream.bytes, msgspec.json.encode(letter))
            except Exception as error:
                log.warning("a dead letter could not be sent", position=letter.position, error=type(error).__name__)

    # ---- housekeeping ----
    async def _housekeep_always(self) -> None:
        """A chore that fails is tried again with the next ones."""
        while True:
            await asyncio.sleep(self._limits.housekeeping_interval_seconds)
            for chore in self._chores:
                await self._do(chore)

    async def _do(self, chore: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(chore)
        except Unavailable as unavailable:
            log.warning("housekeeping was put off", reason=unavailable.detail)
        except psycopg.Error as error:
            log.warning("housekeeping was put off", reason=type(error).__name__)
        except Exception:
            log.exception("housekeeping failed")

    # ---- scheduling ----
    async def _schedule_always(self) -> None:
        interval = PollInterval(self._limits.poll_interval_seconds)
        while True:
            try:
                await self._schedule()
                if not self._scheduler.is_idle:
                    interval.shorten()
                await self._wait_for_wake_up(interval.take())
            except (psycopg.Error, Unavailable) as error:
                log.warning("the scheduler waits for the database", error=type(error).__name__)
                await self._back_off()
            except Exception:
                log.exception("the scheduler failed, and tries again")
                await self._back_off()

    async def _schedule(self) -> None:
        outgoing = await asyncio.to_thread(self._scheduler.tick)
        if outgoing:
            sent = await self._send_tasks(outgoing)
            await asyncio.to_thread(self._scheduler.dispatched, sent)

    async def _send_tasks(self, outgoing: Sequence[OutgoingTask]) -> list[OutgoingTask]:
        """Return the tasks that Kafka has; the scheduler gives the others again."""
        sends = (self._send(one.topic, one.task.work[0].bytes, tasks.encode(one.task)) for one in outgoing)
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failed:
            log.warning("tasks could not be sent", count=len(failed), error=type(failed[0]).__name__)
        return [one for one, outcome in zip(outgoing, outcomes, strict=True) if outcome is None]

    async def _wait_for_wake_up(self, seconds: float) -> None:
        await asyncio.sleep(self._limits.coalesce_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._scheduler_woken.wait()
        self._scheduler_woken.clear()

    async def _back_off(self) -> None:
        """Give up the lead for a while."""
        await asyncio.to_thread(self._scheduler.close)
        await asyncio.sleep(self._limits.retry_delay_seconds)
