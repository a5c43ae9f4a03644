"""Tasks that the scheduler sends to inference workers over Kafka. A task contains references only."""

from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from domain.values import chunk_id

MAX_INSPECT = 16  # images in one inspection task


class Kind(StrEnum):
    CLASSIFY = "classify"
    INSPECT = "inspect"
    CHECK = "check"


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Classify one chunk of a job, inspect uploaded images, or check a model package. Workers read everything else from the log.

    `classify`: `job` and `number` identify the chunk. The result is one ChunkJudged; images deleted since the planning are omitted.
    `inspect`: `image_ids`, at most `MAX_INSPECT`. The result is ImageAccepted or ImageRejected for each.
    `check`: `check_id`. The result is ModelCheckPassed or ModelCheckFailed.
    A task may arrive late or twice. Only the first result is recorded.
    """

    kind: Kind
    attempt: int = 1
    job: UUID | None = None
    number: int | None = None
    image_ids: tuple[UUID, ...] = ()
    check_id: UUID | None = None

    @property
    def work(self) -> tuple[UUID, ...]:
        """The work items that the task completes: a chunk, a check, or images."""
        if self.job is not None and self.number is not None:
            return (chunk_id(self.job, self.number),)
        if self.check_id is not None:
            return (self.check_id,)
        return self.image_ids


class _ImageReference(msgspec.Struct, frozen=True):
    id: UUID


class _EarlierInspection(msgspec.Struct, frozen=True):
    """A task of release 0.1.0, which contained more of each image than its id."""

    images: tuple[_ImageReference, ...]


TASK: Final = msgspec.json.Decoder(Task)
_EARLIER_INSPECTION: Final = msgspec.json.Decoder(_EarlierInspection)


def encode(task: Task) -> bytes:
    return msgspec.json.encode(task)


def decode(data: bytes) -> Task:
    """Decode a task, including those of release 0.1.0, of which only the references are used.

    Raises msgspec.ValidationError or msgspec.DecodeError.
    """
    task = TASK.decode(data)
    if task.kind is Kind.CLASSIFY and (task.job is None or task.number is None):
        raise msgspec.ValidationError("a classify task needs `job` and `number`")
    if task.kind is Kind.CHECK and task.check_id is None:
        raise msgspec.ValidationError("a check task needs `check_id`")
    if task.kind is Kind.INSPECT and not task.image_ids:
        earlier = _EARLIER_INSPECTION.decode(data)
        return msgspec.structs.replace(task, image_ids=tuple(image.id for image in earlier.images))
    return task
