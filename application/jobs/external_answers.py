"""The port to the images that wait for external classifiers, and to the answers that came. All bridges share them."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID


class ImageKey(NamedTuple):
    """An image within a job."""

    job: UUID
    image: UUID


class ArrivedAnswer(NamedTuple):
    """An answer that fits its job. `confidence` is from 0 to 1."""

    key: ImageKey
    label: str
    confidence: float


class Arrival(StrEnum):
    """What became of an answer."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    UNEXPECTED = "unexpected"


class ExpectedImage(NamedTuple):
    """An image of a chunk in progress. It was sent `attempts` times.

    `sent_seconds_ago` is None if it was never sent. The other three are None as long as there is no answer.
    """

    key: ImageKey
    attempts: int
    sent_seconds_ago: float | None
    label: str | None
    confidence: float | None
    answered_seconds_ago: float | None


class ExternalAnswers(Protocol):
    """Stores what was sent and answered, until the job has ended. Calls block, and raise Unavailable."""

    def expect(self, job: UUID, number: int, model_name: str, images: Collection[UUID]) -> Sequence[ExpectedImage]:
        """The images of chunk `number` are to be classified. Returns what is known of each, in any order."""

    def mark_sent(self, attempts: Mapping[ImageKey, int]) -> None:
        """Each image was sent just now, for the attempt of this number, from 1. An attempt that was stored before counts no second time."""

    def take(self, answers: Sequence[ArrivedAnswer], *, model_names: Collection[str]) -> Mapping[ImageKey, Arrival]:
        """Store the first answer to each image, unless its chunk is done. Each key may occur once. `model_names` answered just now."""

    def answered(self, keys: Collection[ImageKey]) -> Sequence[ExpectedImage]:
        """Those of the images that have an answer."""

    def last_answers(self, model_names: Collection[str]) -> Mapping[str, float]:
        """How many seconds ago each of the models answered last; without those that never did."""

    def finish(self, job: UUID, number: int) -> None:
        """The chunk is recorded: nothing waits for its images any more."""

    def jobs(self) -> set[UUID]:
        """All jobs of which anything is stored."""

    def forget(self, jobs: Collection[UUID]) -> None:
        """Delete everything of these jobs."""
