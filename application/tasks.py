"""What the scheduler asks of the inference workers, as it travels through Kafka: references, never pixels."""

from enum import StrEnum
from uuid import UUID

import msgspec

from domain.classification import PlannedImage
from domain.values import chunk_id

BULK = "bioscope.inference-tasks"
URGENT = "bioscope.inference-urgent"
DEAD_LETTERS = "bioscope.dead-letters"
GIVEN_OUT = "bioscope_given_out"  # notified in Postgres once Kafka has tasks

SCHEDULING = 0x7363686564  # the advisory lock of whoever schedules
INSPECT_MOST = 16  # images in one task of inspection


class Kind(StrEnum):
    CLASSIFY = "classify"
    INSPECT = "inspect"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Classify one chunk of a job, or inspect uploaded images.

    `classify`: all fields are set; the answer is one ChunkJudged for (`job`, `number`). Images deleted since the job was planned
    are left out, and need no answer. `inspect`: only `images` (at most INSPECT_MOST) and `attempt`; the answer is ImageAccepted or
    ImageRejected for each. A task may come twice, and late: whoever answers second finds that the answer exists.
    """

    kind: Kind
    images: tuple[PlannedImage, ...]
    attempt: int = 1
    job: UUID | None = None
    number: int | None = None
    dataset: UUID | None = None
    model_id: UUID | None = None
    model_name: str = ""
    model_version: int = 0
    model_sha256: str = ""
    threshold: float = 0.0

    @property
    def work(self) -> tuple[UUID, ...]:
        """What is done once it is answered: a chunk, or images."""
        if self.job is not None and self.number is not None:
            return (chunk_id(self.job, self.number),)
        return tuple(image.id for image in self.images)


def encode(task: Task) -> bytes:
    return msgspec.json.encode(task)


def decode(data: bytes) -> Task:
    """Raises msgspec.ValidationError or DecodeError."""
    return msgspec.json.decode(data, type=Task)
