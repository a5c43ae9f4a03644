"""The outcomes of a chunk's images, gathered until all are there, and the results that are recorded of them."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from application.jobs.chunk_results import ChunkAnswers, PlannedChunk
from domain.classification import EXTERNAL_RUNTIME, ImageFailure, ImageResult, PlannedImage, Provenance, ReviewRules, verdict_on
from domain.model import Version

UNKNOWN: Final = "unknown"
"""What only the operator of a classifier knows."""


class Reply(NamedTuple):
    """The answer to one image. Both times are in seconds on one clock."""

    label: str
    confidence: float
    sent_at: float
    answered_at: float


class Failure(NamedTuple):
    """Why an image has no answer: a stable `reason`, and a sentence for the user."""

    reason: str
    detail: str


IMAGE_DELETED: Final = Failure("image_deleted", "The image was deleted before it was classified.")
IMAGE_REJECTED: Final = Failure("image_rejected", "The image was rejected after the job was planned, so it was not sent to the classifier.")


def no_answer(*, attempts: int, lease_seconds: float) -> Failure:
    return Failure(
        "no_answer",
        f"The external classifier did not answer: the image was sent {attempts} times, and nothing came within {lease_seconds:g} s."
        " Check that the classifier runs and can read the image, then retry the job",
    )


class GatheredChunk:
    """A chunk in progress. The first outcome of an image counts."""

    def __init__(self, chunk: PlannedChunk, version: Version) -> None:
        self.chunk, self._version = chunk, version
        self._planned = {image.id for image in chunk.images}
        self._outcomes: dict[UUID, Reply | Failure] = {}

    @property
    def open_images(self) -> Sequence[PlannedImage]:
        return [image for image in self.chunk.images if image.id not in self._outcomes]

    @property
    def is_complete(self) -> bool:
        return len(self._outcomes) == len(self._planned)

    def settle(self, image: UUID, outcome: Reply | Failure) -> bool:
        """False if the image has an outcome already, or does not belong to the chunk."""
        if image not in self._planned or image in self._outcomes:
            return False
        self._outcomes[image] = outcome
        return True

    def settle_all(self, images: Iterable[UUID], outcome: Failure) -> None:
        for image in images:
            self.settle(image, outcome)

    def results(self, *, worker: str) -> ChunkAnswers:
        """What is recorded, in the order of the plan. Nothing is known of the weights but the declaration."""
        review = ReviewRules(below=self.chunk.job.threshold)
        results = tuple(
            _result(image, outcome, review) for image in self.chunk.images if isinstance(outcome := self._outcomes.get(image.id), Reply)
        )
        failures = tuple(
            ImageFailure(image_id=image.id, reason=outcome.reason, detail=outcome.detail)
            for image in self.chunk.images
            if isinstance(outcome := self._outcomes.get(image.id), Failure)
        )
        provenance = self._provenance(worker) if results else None
        return ChunkAnswers(results=results, failures=failures, labels=self._version.labels, provenance=provenance)

    def _provenance(self, worker: str) -> Provenance:
        replies = [outcome for outcome in self._outcomes.values() if isinstance(outcome, Reply)]
        seconds = max(reply.answered_at for reply in replies) - min(reply.sent_at for reply in replies)
        return Provenance(
            model_sha256=self._version.sha256,
            preprocessing=UNKNOWN,
            runtime=EXTERNAL_RUNTIME,
            provider=UNKNOWN,
            decoder=UNKNOWN,
            cpu=UNKNOWN,
            worker=worker,
            seconds=round(seconds, 6),
        )


def _result(image: PlannedImage, reply: Reply, review: ReviewRules) -> ImageResult:
    verdict = verdict_on(reply.label, reply.confidence, scores={}, value=None, out_of_domain=False, rules=review)
    return ImageResult(image_id=image.id, sha256=image.sha256, label=reply.label, confidence=reply.confidence, verdict=verdict, scores=())
