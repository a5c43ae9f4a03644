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
from application.jobs.external_answers import ArrivedAnswer, ExpectedImage, ExternalAnswers, ImageKey
from application.jobs.tasks import Task
from application.ports import Command, EventStore
from domain.access import Actor
from domain.classification import Classification
from domain.errors import Unavailable
from domain.values import chunk_id, system_actor
from infrastructure.bridge.external_jobs import ExternalJobs
from infrastructure.bridge.gathered_chunk import Failure, GatheredChunk, Reply, no_answer
from infrastructure.bridge.request_sender import RequestSender, partition_of
from infrastructure.bridge.waiting_images import BridgeLimits, WaitingImage, WaitingImages
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


class OpenChunk:
    """A chunk in progress. `ended` is set when all its images have an outcome, or when it was `dropped`: its job has ended."""

    def __init__(self, gathered: GatheredChunk) -> None:
        self.gathered = gathered
        self.ended = asyncio.Event()
        self.dropped = False

    @property
    def job(self) -> Classification:
        return self.gathered.chunk.job

    @property
    def keys(self) -> list[ImageKey]:
        return [ImageKey(self.job.id, image.id) for image in self.gathered.chunk.images]

    def settle(self, image: UUID, outcome: Reply | Failure) -> None:
        if self.gathered.settle(image, outcome) and self.gathered.is_complete:
            self.ended.set()

    def drop(self) -> None:
        self.dropped = True
        self.ended.set()


class Bridge:
    """Handles tasks of external jobs. A repeated task is harmless, since results are recorded once and first answers are kept.

    All bridges share `answers`, so a chunk may be answered through another bridge, and continued by another one.
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
        self._waiting = WaitingImages(limits)
        self._chunks: dict[tuple[UUID, int], OpenChunk] = {}
        self._chunk_of: dict[ImageKey, OpenChunk] = {}
        self._changed, self._was_sent, self._has_news = asyncio.Event(), asyncio.Event(), asyncio.Event()

    # ---- one chunk ----
    async def handle(self, _topic: str, task: Task) -> None:
        """Get answers to the task's chunk and record them, unless it has results or its job has ended. Raises Unavailable."""
        assert task.job is not None
        assert task.number is not None
        gathered = await self._retry(self._open, task.job, task.number)
        if gathered is None or (task.job, task.number) in self._chunks:
            return
        opened = OpenChunk(gathered)
        self._chunks[task.job, task.number] = opened
        self._chunk_of |= dict.fromkeys(opened.keys, opened)
        try:
            await self._begin(opened)
            await opened.ended.wait()
            if not opened.dropped:
                await self._record(opened)
        finally:
            self._close(opened)

    def _open(self, job: UUID, number: int) -> GatheredChunk | None:
        chunk = self._jobs.open_chunk(job, number)
        found = None if chunk is None else self._jobs.find(job)
        if chunk is None:
            return None
        if found is None:
            log.warning("task refused: the job is not external", job=str(job), chunk=number)
            return None
        return GatheredChunk(chunk, found.version)

    async def _begin(self, opened: OpenChunk) -> None:
        """Settle what is known already, and let the other images wait."""
        chunk = opened.gathered.chunk
        for image, failure in (await self._retry(self._jobs.unclassifiable, [one.id for one in chunk.images])).items():
            opened.settle(image, failure)
        images = [image.id for image in opened.gathered.open_images]
        expected = await self._retry(self._answers.expect, opened.job.id, chunk.number, opened.job.model_name, images)
        self._waiting.partitions = await self._requests.partitions()
        self._settle_answered(expected)
        unanswered = {image.id for image in opened.gathered.open_images}
        self._waiting.add(self._waiting_image(one, opened.job) for one in expected if one.key.image in unanswered)
        self._changed.set()

    def _waiting_image(self, expected: ExpectedImage, job: Classification) -> WaitingImage:
        return WaitingImage(
            key=expected.key,
            owner=job.created_by,
            model_name=job.model_name,
            partition=partition_of(expected.key.image, self._waiting.partitions),
            urgent=job.image_id is not None,
            attempts=expected.attempts,
            sent_at=None if expected.sent_seconds_ago is None else self._clock() - max(0.0, expected.sent_seconds_ago),
        )

    async def _record(self, opened: OpenChunk) -> None:
        chunk, answers = opened.gathered.chunk, opened.gathered.results(worker=self._worker)
        command = Command(
            id=uuid5(chunk_id(opened.job.id, chunk.number), "judged"), actor=ACTOR, at=self._now(), correlation_id=opened.job.id
        )
        recorded = await self._retry(record_chunk_results, chunk, answers, command=command, log=self._log)
        await self._retry(self._answers.finish, opened.job.id, chunk.number)
        EXTERNAL_IMAGES.labels("classified").inc(len(answers.results))
        EXTERNAL_IMAGES.labels("failed").inc(len(answers.failures))
        log.info(
            "external chunk recorded",
            job=str(opened.job.id),
            chunk=chunk.number,
            images=len(answers.results),
            failures=len(answers.failures),
            written=recorded,
        )

    def _close(self, opened: OpenChunk) -> None:
        del self._chunks[opened.job.id, opened.gathered.chunk.number]
        for key in opened.keys:
            del self._chunk_of[key]
            self._waiting.discard(key)
        self._changed.set()

    # ---- answers ----
    def deliver(self, answers: Iterable[ArrivedAnswer]) -> bool:
        """Answers were stored. False if another bridge waits for any of them."""
        now = self._clock()
        unknown = [answer for answer in answers if not self._settle(answer, now)]
        self._changed.set()
        return not unknown

    def notice_answers(self) -> None:
        """Another bridge may have stored answers that this one waits for. Returns at once."""
        self._has_news.set()

    def _settle(self, answer: ArrivedAnswer, now: float) -> bool:
        opened = self._chunk_of.get(answer.key)
        if opened is None:
            return False
        sent_at = self._waiting.sent_at(answer.key)
        self._waiting.answer(answer.key, now)
        opened.settle(answer.key.image, Reply(answer.label, answer.confidence, now if sent_at is None else sent_at, now))
        return True

    def _settle_answered(self, found: Iterable[ExpectedImage]) -> None:
        """Settle images whose answer was stored before, or by another bridge."""
        now = self._clock()
        for one in found:
            opened = self._chunk_of.get(one.key)
            if opened is not None and one.label is not None and one.confidence is not None:
                answered_at = now - max(0.0, one.answered_seconds_ago or 0.0)
                sent_at = answered_at if one.sent_seconds_ago is None else now - one.sent_seconds_ago
                self._waiting.answer(one.key, now)
                opened.settle(one.key.image, Reply(one.label, one.confidence, min(sent_at, answered_at), answered_at))

    async def _read_news(self) -> None:
        """Read from the store what other bridges heard."""
        now = self._clock()
        self._settle_answered(await self._retry(self._answers.answered, list(self._waiting.keys)))
        for model_name, seconds_ago in (await self._retry(self._answers.last_answers, list(self._waiting.model_names))).items():
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
        if not self._is_overdue():
            return
        await self._read_news()
        for image in self._waiting.give_up(self._clock()):
            failure = no_answer(attempts=self._limits.attempts, lease_seconds=self._limits.lease_seconds)
            self._chunk_of[image.key].settle(image.key.image, failure)

    async def _send_next(self) -> bool:
        """Whether anything was sent. Raises Unavailable."""
        images = self._waiting.to_send(self._clock())
        if not images:
            return False
        self._waiting.mark_sent(images, self._clock())
        self._was_sent.set()
        outcomes = await asyncio.gather(*map(self._request, images), return_exceptions=True)
        failed = [image for image, outcome in zip(images, outcomes, strict=True) if outcome is not None]
        self._waiting.mark_unsent(failed)
        sent = [image.key for image, outcome in zip(images, outcomes, strict=True) if outcome is None]
        await self._retry(self._answers.mark_sent, sent)
        EXTERNAL_IMAGES.labels("sent").inc(len(sent))
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return True

    async def _request(self, image: WaitingImage) -> None:
        opened = self._chunk_of.get(image.key)
        if opened is not None:
            await self._requests.send(image.key.image, opened.job)

    async def _until_changed_or_overdue(self) -> None:
        overdue_at = self._waiting.next_overdue_at()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if overdue_at is None else max(0.0, overdue_at - self._clock())):
                await self._changed.wait()

    def _is_overdue(self) -> bool:
        overdue_at = self._waiting.next_overdue_at()
        return overdue_at is not None and overdue_at <= self._clock()

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
            if self._chunks:
                await self._or_later(self._check() if is_due else self._read_news())

    async def _check(self) -> None:
        await self._read_news()
        ended = await self._retry(self._jobs.ended, {job for job, _ in self._chunks})
        for opened in [opened for (job, _), opened in self._chunks.items() if job in ended]:
            opened.drop()
        waiting = list(self._waiting.keys)
        unclassifiable = await self._retry(self._jobs.unclassifiable, {key.image for key in waiting})
        for key in waiting:
            if key.image in unclassifiable and key in self._chunk_of:
                self._waiting.discard(key)
                self._chunk_of[key].settle(key.image, unclassifiable[key.image])
        self._changed.set()

    async def forget_always(self) -> None:
        """Remove the stored answers of jobs that have ended."""
        while True:
            await self._or_later(self._forget_ended())
            await asyncio.sleep(self._intervals.forget_seconds)

    async def _forget_ended(self) -> None:
        ended = await self._retry(self._jobs.ended, await self._retry(self._answers.jobs))
        if ended:
            await self._retry(self._answers.forget, ended)

    async def _or_later(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Unavailable as unavailable:
            log.warning("a check is repeated later", reason=unavailable.detail)
