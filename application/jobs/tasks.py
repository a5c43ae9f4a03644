"""What the scheduler asks of the inference workers, as it travels through Kafka: references, never facts."""

from enum import StrEnum
from uuid import UUID

import msgspec

from domain.values import chunk_id

MAX_INSPECT = 16  # images in one task of inspection


class Kind(StrEnum):
    CLASSIFY = "classify"
    INSPECT = "inspect"


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Classify one chunk of a job, or inspect uploaded images. A reference: what is to be done is read from the log.

    `classify`: `job` and `number` name the chunk; the answer is one ChunkJudged. Images deleted since the job was planned are left out.
    `inspect`: `image_ids` (at most INSPECT_MOST); the answer is ImageAccepted or ImageRejected for each. A task may come twice, and late:
    whoever answers second finds that the answer exists.
    """

    kind: Kind
    attempt: int = 1
    job: UUID | None = None
    number: int | None = None
    image_ids: tuple[UUID, ...] = ()

    @property
    def work(self) -> tuple[UUID, ...]:
        """What is done once it is answered: a chunk, or images."""
        if self.job is not None and self.number is not None:
            return (chunk_id(self.job, self.number),)
        return self.image_ids


class _ImageReference(msgspec.Struct, frozen=True):
    id: UUID


class _EarlierInspection(msgspec.Struct, frozen=True):
    """A task of release 0.1.0, which carried more of each image than its id."""

    images: tuple[_ImageReference, ...]


def encode(task: Task) -> bytes:
    return msgspec.json.encode(task)


def decode(data: bytes) -> Task:
    """Also reads the tasks of release 0.1.0, and takes nothing but references from them. Raises msgspec.ValidationError or DecodeError."""
    task = msgspec.json.decode(data, type=Task)
    if task.kind is Kind.CLASSIFY and (task.job is None or task.number is None):
        raise msgspec.ValidationError("a task to classify needs `job` and `number`")
    if task.kind is Kind.INSPECT and not task.image_ids:
        earlier = msgspec.json.decode(data, type=_EarlierInspection)
        return msgspec.structs.replace(task, image_ids=tuple(image.id for image in earlier.images))
    return task
