"""The chunks that a bridge has in progress: which images wait for what, and which chunks are complete. Without input or output."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from uuid import UUID

from application.jobs.external_answers import ArrivedAnswer, ExpectedImage, ImageKey
from domain.classification import Classification
from infrastructure.bridge.gathered_chunk import Failure, GatheredChunk, Reply
from infrastructure.bridge.request_sender import partition_of
from infrastructure.bridge.waiting_images import BridgeLimits, WaitingImage, WaitingImages


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
    def number(self) -> int:
        return self.gathered.chunk.number

    @property
    def keys(self) -> list[ImageKey]:
        return [ImageKey(self.job.id, image.id) for image in self.gathered.chunk.images]

    @property
    def open_images(self) -> list[UUID]:
        return [image.id for image in self.gathered.open_images]

    def settle(self, image: UUID, outcome: Reply | Failure) -> None:
        if self.gathered.settle(image, outcome) and self.gathered.is_complete:
            self.ended.set()

    def drop(self) -> None:
        self.dropped = True
        self.ended.set()


class OpenChunks:
    """`waiting` are the images that have no outcome yet. `clock` is in seconds."""

    def __init__(self, limits: BridgeLimits, clock: Callable[[], float]) -> None:
        self.waiting = WaitingImages(limits)
        self._clock = clock
        self._chunks: dict[tuple[UUID, int], OpenChunk] = {}
        self._chunk_of: dict[ImageKey, OpenChunk] = {}

    @property
    def jobs(self) -> set[UUID]:
        return {job for job, _ in self._chunks}

    def add(self, gathered: GatheredChunk) -> OpenChunk | None:
        """Open a chunk. Its images can be answered from now on, but wait for nothing yet. None if it is open already."""
        opened = OpenChunk(gathered)
        if (opened.job.id, opened.number) in self._chunks:
            return None
        self._chunks[opened.job.id, opened.number] = opened
        self._chunk_of |= dict.fromkeys(opened.keys, opened)
        return opened

    def remove(self, opened: OpenChunk) -> None:
        del self._chunks[opened.job.id, opened.number]
        for key in opened.keys:
            del self._chunk_of[key]
            self.waiting.discard(key)

    def job_of(self, key: ImageKey) -> Classification | None:
        opened = self._chunk_of.get(key)
        return None if opened is None else opened.job

    def wait_for(self, opened: OpenChunk, expected: Collection[ExpectedImage], *, partitions: int) -> None:
        """Settle the images that were answered before, and let the others wait."""
        self.waiting.partitions = partitions
        self.settle_answered(expected)
        unanswered = set(opened.open_images)
        self.waiting.add(self._waiting_image(one, opened.job) for one in expected if one.key.image in unanswered)

    def answer(self, answer: ArrivedAnswer) -> bool:
        """An answer was stored just now. False if no chunk here has the image."""
        opened, now = self._chunk_of.get(answer.key), self._clock()
        if opened is None:
            return False
        sent_at = self.waiting.sent_at(answer.key)
        self.waiting.answer(answer.key, now)
        opened.settle(answer.key.image, Reply(answer.label, answer.confidence, now if sent_at is None else sent_at, now))
        return True

    def settle_answered(self, found: Iterable[ExpectedImage]) -> None:
        """Settle images whose answer was stored before, or by another bridge."""
        now = self._clock()
        for one in found:
            opened = self._chunk_of.get(one.key)
            if opened is not None and one.label is not None and one.confidence is not None:
                answered_at = now - max(0.0, one.answered_seconds_ago or 0.0)
                sent_at = answered_at if one.sent_seconds_ago is None else min(answered_at, now - one.sent_seconds_ago)
                self.waiting.answer(one.key, now)
                opened.settle(one.key.image, Reply(one.label, one.confidence, sent_at, answered_at))

    def fail(self, key: ImageKey, failure: Failure) -> None:
        """No effect on an image that has an outcome."""
        self.waiting.discard(key)
        if key in self._chunk_of:
            self._chunk_of[key].settle(key.image, failure)

    def drop(self, jobs: Collection[UUID]) -> None:
        """These jobs have ended: their chunks record nothing."""
        for (job, _), opened in self._chunks.items():
            if job in jobs:
                opened.drop()

    def _waiting_image(self, expected: ExpectedImage, job: Classification) -> WaitingImage:
        return WaitingImage(
            key=expected.key,
            owner=job.created_by,
            model_name=job.model_name,
            partition=partition_of(expected.key.image, self.waiting.partitions),
            urgent=job.image_id is not None,
            attempts=expected.attempts,
            sent_at=None if expected.sent_seconds_ago is None else self._clock() - max(0.0, expected.sent_seconds_ago),
        )
