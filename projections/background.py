"""What goes on beside the projector, on a thread and a loop of its own: scheduling, telling who waits, chores. It holds nothing up."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import psycopg
import structlog

from application import tasks
from application.job_scheduler import Scheduler
from application.poll_interval import PollInterval
from application.topics import DEAD_LETTERS
from application.work_queue import OutgoingTask
from domain.errors import Unavailable
from projections.engine.batches import BatchResult, PoisonEvent
from projections.live_notifier import LiveNotifier

log = structlog.get_logger()

SCHEDULER_POLL_INTERVAL_SECONDS = 0.25  # seconds after which the scheduler looks, though nothing woke it; longer while no work is open
COALESCE_SECONDS = 0.01  # seconds between two looks: what happens meanwhile is seen together
RETRY_DELAY_SECONDS = 1.0  # seconds after a failure
HOUSEKEEPING_INTERVAL_SECONDS = 3600.0  # seconds
STOP_TIMEOUT_SECONDS = 5.0  # seconds that what is under way may take to end

Send = Callable[[str, bytes, bytes], Awaitable[None]]
"""`send(topic, key, value)` returns when Kafka has it. Raises when that failed, or takes too long."""


class BackgroundTasks:
    """`applied` may be called from any thread, returns at once, and raises nothing."""

    def __init__(self, scheduler: Scheduler, notifier: LiveNotifier, send: Send, *, chores: Sequence[Callable[[], None]] = ()) -> None:
        self._scheduler, self._notifier, self._send, self._chores = scheduler, notifier, send, chores
        self._loop = asyncio.new_event_loop()
        self._woken, self._told = asyncio.Event(), asyncio.Event()
        self._news: BatchResult | None = None
        self._both = self._loop.create_task(self._all())
        self._thread = threading.Thread(target=self._run, name="aside", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End what is under way; then another process may lead."""
        self._loop.call_soon_threadsafe(self._both.cancel)
        self._thread.join(STOP_TIMEOUT_SECONDS)
        self._scheduler.close()

    def applied(self, applied: BatchResult) -> None:
        self._loop.call_soon_threadsafe(self._hear, applied)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._both)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._schedule_always())
            group.create_task(self._notify_always())
            group.create_task(self._housekeep_always())

    def _hear(self, applied: BatchResult) -> None:
        self._news = self._news.merge(applied) if self._news else applied
        self._told.set()
        if applied.wakes_scheduler:
            self._woken.set()

    async def _notify_always(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            news, self._news = self._news, None
            if news is not None:
                await self._notifier.tell(news)
                await self._post(news.letters)

    async def _post(self, letters: Sequence[PoisonEvent]) -> None:
        """For whoever watches the topic; what counts stands in the table of dead letters."""
        for letter in letters:
            try:
                await self._send(DEAD_LETTERS, letter.stream.bytes, msgspec.json.encode(letter))
            except Exception as error:
                log.warning("a dead letter could not be sent", position=letter.position, error=type(error).__name__)

    async def _housekeep_always(self) -> None:
        """What nobody needs any more is removed now and then; while something is away that can wait for the next time."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_SECONDS)
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

    async def _schedule_always(self) -> None:
        interval = PollInterval(SCHEDULER_POLL_INTERVAL_SECONDS)
        while True:
            try:
                await self._schedule()
                if not self._scheduler.is_idle:
                    interval.shorten()
                await self._until_woken(interval.take())
            except (psycopg.Error, Unavailable) as error:
                log.warning("the scheduler waits for the database", error=type(error).__name__)
                await self._rest()
            except Exception:
                log.exception("the scheduler failed, and tries again")
                await self._rest()

    async def _schedule(self) -> None:
        given = await asyncio.to_thread(self._scheduler.tick)
        if given:
            sent = await self._sent(given)
            await asyncio.to_thread(self._scheduler.dispatched, sent)

    async def _sent(self, given: Sequence[OutgoingTask]) -> list[OutgoingTask]:
        """Those that Kafka has; the others are tried again."""
        sends = (self._send(outgoing.topic, outgoing.task.work[0].bytes, tasks.encode(outgoing.task)) for outgoing in given)
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failed:
            log.warning("tasks could not be sent", count=len(failed), error=type(failed[0]).__name__)
        return [outgoing for outgoing, outcome in zip(given, outcomes, strict=True) if outcome is None]

    async def _until_woken(self, seconds: float) -> None:
        await asyncio.sleep(COALESCE_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

    async def _rest(self) -> None:
        await asyncio.to_thread(self._scheduler.close)
        await asyncio.sleep(RETRY_DELAY_SECONDS)
