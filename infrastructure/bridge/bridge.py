"""The bridge: sends the images of chunks to an external classifier, waits for its answers, and records them chunk by chunk."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID, uuid5

import structlog

from application.jobs.chunk_results import record_chunk_results
from application.jobs.external_answers import ArrivedAnswer, ExternalAnswers
from application.jobs.tasks import Task
from application.ports import Command, EventStore
from domain.access import Actor
from domain.errors import Unavailable
from domain.values import chunk_id, system_actor
from infrastructure.bridge.external_jobs import ExternalJobs
from infrastructure.bridge.gathered_chunk import GatheredChunk, no_answer
from infrastructure.bridge.open_chunks import OpenChunk, OpenChunks
from infrastructure.bridge.request_sender import RequestSender
from infrastructure.bridge.waiting_images import BridgeLimits, WaitingImage
from infrastructure.observability.metrics import EXTERNAL_IMAGES
from infrastructure.retry import Retry

log = structlog.get_logger()

ACTOR: Final = Actor(id=system_actor("inference"), kind="system")


class BridgeIntervals(NamedTuple):
    """Seconds between checks whether jobs have ended and images were deleted, between removals of stored answers, and after errors."""

    check_seconds: float = 2.0
    forget_seconds: float = 30.0
    retry_delay_seconds: float = 1.0


DEFAULT_INTERVALS: Final = BridgeIntervals()


class Bridge:
    """Handles tasks of external jobs. A repeated task is harmless, since results are recorded once and first answers are kept.

    All bridges share `answers`, so an answer to a chunk may arrive at another bridge, and another one may continue the chunk.
    """

    def __init__(
        self,
        *,
        log: EventStore,
        jobs: ExternalJobs,
        answers: ExternalAnswers,
        requests: RequestSender,
        retry: Retry,
        worker: str,
        limits: BridgeLimits,
        intervals: BridgeIntervals = DEFAULT_INTERVALS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log, self._jobs, self._answers, self._requests, self._retry = log, jobs, answers, requests, retry
        self._worker, self._limits, self._intervals, self._clock, self._now = worker, limits, intervals, clock, now
        self._chunks = OpenChunks(limits, clock)
        self._waiting = self._chunks.waiting
        self._changed, self._was_sent, self._has_news = asyncio.Event(), asyncio.Event(), asyncio.Event()

    # ---- one chunk ----
    async def handle(self, _topic: str, task: Task) -> None:
        """Get answers to the task's chunk and record them, unless it has results or its job has ended. Raises Unavailable."""
        assert task.job is not None
        assert task.number is not None
        gathered = await self._retry(self._gathered, task.job, task.number)
        opened = None if gathered is None else self._chunks.add(gathered)
        if opened is None:
            return
        try:
            await self._begin(opened)
            await opened.ended.wait()
            if not opened.dropped:
                await self._record(opened)
        finally:
            self._chunks.remove(opened)
            self._changed.set()

    def _gathered(self, job: UUID, number: int) -> GatheredChunk | None:
        """The chunk without any outcome. None if nothing is to be done."""
        chunk = self._jobs.open_chunk(job, number)
        if chunk is None:
            return None
        found = self._jobs.find(job)
        if found is None:
            log.warning("task refused: the job is not external", job=str(job), chunk=number)
            return None
        return GatheredChunk(chunk, found.version)

    async def _begin(self, opened: OpenChunk) -> None:
        """Settle what is known already, and let the other images wait."""
        for image, failure in (await self._retry(self._jobs.unclassifiable, opened.open_images)).items():
            opened.settle(image, failure)
        job = opened.job
        expected = await self._retry(self._answers.expect, job.id, opened.number, job.model_name, opened.open_images)
        self._chunks.wait_for(opened, expected, partitions=await self._requests.partitions())
        self._changed.set()

    async def _record(self, opened: OpenChunk) -> None:
        job, number, answers = opened.job.id, opened.number, opened.gathered.results(worker=self._worker)
        command = Command(id=uuid5(chunk_id(job, number), "judged"), actor=ACTOR, at=self._now(), correlation_id=job)
        recorded = await self._retry(record_chunk_results, opened.gathered.chunk, answers, command=command, log=self._log)
        await self._retry(self._answers.finish, job, number)
        results, failures = len(answers.results), len(answers.failures)
        EXTERNAL_IMAGES.labels("classified").inc(results)
        EXTERNAL_IMAGES.labels("failed").inc(failures)
        log.info("external chunk recorded", job=str(job), chunk=number, images=results, failures=failures, written=recorded)

    # ---- answers ----
    def deliver(self, answers: Iterable[ArrivedAnswer]) -> bool:
        """Answers were stored. False if another bridge waits for any of them."""
        foreign = [answer for answer in answers if not self._chunks.answer(answer)]
        self._changed.set()
        return not foreign

    def notice_answers(self) -> None:
        """Another bridge may have stored answers that this one waits for. Returns at once."""
        self._has_news.set()

    async def _read_news(self) -> None:
        """Read the answers that other bridges stored."""
        now = self._clock()
        self._chunks.settle_answered(await self._retry(self._answers.answered, list(self._waiting.keys)))
        for model_name, seconds_ago in (await self._retry(self._answers.last_answers, self._waiting.model_names)).items():
            self._waiting.show_life(model_name, now - max(0.0, seconds_ago))
        self._changed.set()

    # ---- sending ----
    async def send_always(self) -> None:
        """Send what the window admits, whenever something has changed, and give up what stays without an answer."""
        while True:
            self._changed.clear()
            try:
                await self._give_up_overdue()
                was_sent = await self._send_next()
            except Unavailable as unavailable:
                log.warning("images wait to be sent", reason=unavailable.detail)
                await asyncio.sleep(self._intervals.retry_delay_seconds)
                continue
            if not was_sent:
                await self._until_changed_or_overdue()

    async def _give_up_overdue(self) -> None:
        overdue_at = self._waiting.next_overdue_at()
        if overdue_at is None or overdue_at > self._clock():
            return
        await self._read_news()
        for image in self._waiting.give_up(self._clock()):
            self._chunks.fail(image.key, no_answer(attempts=self._limits.attempts, lease_seconds=self._limits.lease_seconds))

    async def _send_next(self) -> bool:
        """Whether anything was sent. Raises Unavailable."""
        images = self._waiting.to_send(self._clock())
        if not images:
            return False
        self._waiting.mark_sent(images, self._clock())
        self._was_sent.set()
        outcomes = await asyncio.gather(*map(self._request, images), return_exceptions=True)
        self._waiting.mark_unsent(image for image, error in zip(images, outcomes, strict=True) if error is not None)
        sent = {image.key: image.attempts for image, error in zip(images, outcomes, strict=True) if error is None}
        await self._retry(self._answers.mark_sent, sent)
        EXTERNAL_IMAGES.labels("sent").inc(len(sent))
        for error in outcomes:
            if error is not None:
                raise error
        return True

    async def _request(self, image: WaitingImage) -> None:
        job = self._chunks.job_of(image.key)
        if job is not None:
            await self._requests.send(image.key.image, job)

    async def _until_changed_or_overdue(self) -> None:
        overdue_at = self._waiting.next_overdue_at()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if overdue_at is None else max(0.0, overdue_at - self._clock())):
                await self._changed.wait()

    async def until_out(self) -> None:
        """Return while an answer may come."""
        while not self._waiting.are_out:
            self._was_sent.clear()
            await self._was_sent.wait()

    # ---- checks ----
    async def check_always(self) -> None:
        """Drop chunks whose job has ended, settle images that were deleted, and read the answers that other bridges stored."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._intervals.check_seconds):
                    await self._has_news.wait()
            is_due = not self._has_news.is_set()
            self._has_news.clear()
            if self._chunks.jobs:
                await _or_later(self._check() if is_due else self._read_news())

    async def _check(self) -> None:
        await self._read_news()
        self._chunks.drop(await self._retry(self._jobs.ended, self._chunks.jobs))
        waiting = list(self._waiting.keys)
        unclassifiable = await self._retry(self._jobs.unclassifiable, {key.image for key in waiting})
        for key in waiting:
            if key.image in unclassifiable:
                self._chunks.fail(key, unclassifiable[key.image])
        self._changed.set()

    async def forget_always(self) -> None:
        """Remove the stored answers of jobs that have ended."""
        while True:
            await _or_later(self._forget_ended())
            await asyncio.sleep(self._intervals.forget_seconds)

    async def _forget_ended(self) -> None:
        ended = await self._retry(self._jobs.ended, await self._retry(self._answers.jobs))
        if ended:
            await self._retry(self._answers.forget, ended)


async def _or_later(work: Awaitable[None]) -> None:
    try:
        await work
    except Unavailable as unavailable:
        log.warning("a check is repeated later", reason=unavailable.detail)
