"""The records that are exchanged with external classifiers: one for each image to classify, and one for each answer."""

from collections.abc import Collection
from typing import Annotated, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Meta

MAX_ANSWER_BYTES: Final = 16 * 1024


class RefusedAnswer(Exception):
    """A record is no answer to a job. The message says why."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a classifier said of an image. Further fields are ignored. `confidence` is from 0 to 1."""

    classification_id: UUID
    image_id: UUID
    label: str
    confidence: Annotated[float, Meta(ge=0, le=1)]
    model_name: str | None = None


ANSWER: Final = msgspec.json.Decoder(Answer)


class Request(NamedTuple):
    """The record that asks for the classification of one image."""

    key: bytes
    value: bytes


def request_for(image: UUID, *, job: UUID, dataset: UUID | None, model_name: str) -> Request:
    value = {
        "classification_id": str(job),
        "dataset_id": str(dataset) if dataset else None,
        "image_id": str(image),
        "model_name": model_name,
    }
    return Request(str(image).encode(), msgspec.json.encode(value))


def read_answer(value: bytes | None) -> Answer:
    """Decode an answer. Raises RefusedAnswer."""
    if value is None:
        raise RefusedAnswer("the record is empty")
    if len(value) >= MAX_ANSWER_BYTES:
        raise RefusedAnswer(f"the record has {len(value):,} bytes: at most {MAX_ANSWER_BYTES - 1:,} are read")
    try:
        return ANSWER.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedAnswer(f"the record is no answer: {error}") from None


def require_fitting(answer: Answer, *, model_name: str, labels: Collection[str]) -> None:
    """Raises RefusedAnswer for an answer of another model, and for a label that the model version does not declare."""
    if answer.model_name not in {None, model_name}:
        raise RefusedAnswer("the model_name is not that of the job")
    if answer.label not in labels:
        raise RefusedAnswer("the label is not among those of the model version")
