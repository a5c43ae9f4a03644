"""Background tasks of the projector process: scheduling, live notifications, policies, housekeeping.

They run on their own thread and event loop, so that they never delay the projector.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
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
from projections import policies
from projections.engine.batches import BatchResult, PoisonEvent
from projections.process.live_notifier import LiveNotifier

log = structlog.get_logger()

Send = Callable[[str, bytes, bytes], Awaitable[None]]
"""`send(topic, key, value)` returns when Kafka has stored the record. Raises an error if that fails or takes too long."""

ApplyPolicies = Callable[[Callable[[], bool]], None]
"""`apply_policies(stopped)` returns when all results follow the policies, or soon after `stopped()` is true. Blocks."""


class BackgroundLimits(NamedTuple):
    """The scheduler polls every `poll_interval_seconds`, and less often while there is no open work.

    Policies are applied when one was changed. `policy_interval_seconds` is when a process takes over from one that died while it did so.
    `coalesce_seconds` is the minimum time between two ticks, so that changes are handled together. `stop_timeout_seconds` limits the last
    step at the end.
    """

    poll_interval_seconds: float = 0.25
    coalesce_seconds: float = 0.01
    retry_delay_seconds: float = 1.0
    housekeeping_interval_seconds: float = 3600.0
    policy_interval_seconds: float = 15.0
    stop_timeout_seconds: float = 5.0


DEFAULT_LIMITS: Final = BackgroundLimits()


class BackgroundTasks:
    """Runs the background tasks. `on_applied` is thread-safe, returns at once and never raises."""

    def __init__(
        self,
        scheduler: Scheduler,
        notifier: LiveNotifier,
        send: Send,
        *,
        chores: Sequence[Callable[[], None]] = (),
        apply_policies: ApplyPolicies | None = None,
        limits: BackgroundLimits = DEFAULT_LIMITS,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._scheduler, self._notifier, self._send, self._chores, self._limits = scheduler, notifier, send, chores, limits
        self._apply_policies, self._stopped = apply_policies, threading.Event()
        self._loop = loop or asyncio.new_event_loop()
        self._scheduler_woken, self._has_result, self._policies_changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._result: BatchResult | None = None
        self._all = self._loop.create_task(self._run_all())
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the current step and give up the lead."""
        self._stopped.set()
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
            if self._apply_policies is not None:
                group.create_task(self._apply_policies_always(self._apply_policies))

    def _add_result(self, result: BatchResult) -> None:
        self._result = self._result.merge(result) if self._result else result
        self._has_result.set()
        if result.wakes_scheduler:
            self._scheduler_woken.set()
        if policies.TABLE.name in result.tables:
            self._policies_changed.set()

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
        """Copy dead letters to the Kafka topic, for monitoring. The table is authoritative."""
        for letter in dead_letters:
            try:
                await self._send(DEAD_LETTERS, letter.stream.bytes, msgspec.json.encode(letter))
            except Exception as error:
                log.warning("dead letter not sent", position=letter.position, error=type(error).__name__)

    # ---- housekeeping ----
    async def _housekeep_always(self) -> None:
        """Run all chores at each interval. A failed chore is tried again at the next one."""
        while True:
            await asyncio.sleep(self._limits.housekeeping_interval_seconds)
            for chore in self._chores:
                await self._do("housekeeping", chore)

    async def _do(self, what: str, act: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(act)
        except Unavailable as unavailable:
            log.warning("background task postponed", task=what, reason=unavailable.detail)
        except psycopg.Error as error:
            log.warning("background task postponed", task=what, reason=type(error).__name__)
        except Exception:
            log.exception("background task failed", task=what)

    # ---- policies ----
    async def _apply_policies_always(self, apply: ApplyPolicies) -> None:
        """Results that were stored before this process began may wait for it, too."""
        while True:
            await self._do("application of policies", partial(apply, self._stopped.is_set))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.policy_interval_seconds):
                    await self._policies_changed.wait()
            self._policies_changed.clear()

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
                log.warning("scheduler is waiting for the database", error=type(error).__name__)
                await self._back_off()
            except Exception:
                log.exception("scheduler failed, retrying")
                await self._back_off()

    async def _schedule(self) -> None:
        outgoing = await asyncio.to_thread(self._scheduler.tick)
        if outgoing:
            sent = await self._send_tasks(outgoing)
            await asyncio.to_thread(self._scheduler.dispatched, sent)

    async def _send_tasks(self, outgoing: Sequence[OutgoingTask]) -> list[OutgoingTask]:
        """Send tasks; return those that Kafka has stored. The scheduler returns the others again."""
        sends = (self._send(one.topic, one.task.work[0].bytes, tasks.encode(one.task)) for one in outgoing)
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failed:
            log.warning("tasks not sent", count=len(failed), error=type(failed[0]).__name__)
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
