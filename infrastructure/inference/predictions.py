"""The answers of child processes, and the checks of their plausibility. The module imports no decoder, since the parent uses it.

A file or a model may have compromised a child. Its answers are limited by these types and checked by `check_batch` and
`check_inspected` before they are used.
"""

from collections.abc import Sequence
from math import fsum, isfinite
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from domain.image import Inspection
from domain.values import ImageWarning, printable
from infrastructure.images.validation.limits import ImageLimits

MAX_WARNINGS: Final = 64
MAX_SIGNALS: Final = 16
MAX_THUMBNAIL_BYTES: Final = 1024**2
MAX_PREVIEW_BYTES: Final = 24 * 1024**2
MAX_SENTENCE_LENGTH: Final = 1000
MAX_SUM_DIFFERENCE: Final = 1e-4
"""Maximum difference of the sum of scores from 1, since scores are rounded to six decimals."""
JPEG_START: Final = b"\xff\xd8\xff"

Code = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=64)]
Sentence = Annotated[str, Meta(min_length=1, max_length=MAX_SENTENCE_LENGTH)]


class ModelPrediction(msgspec.Struct, frozen=True, tag=True):
    """The prediction for one image. `scores` are in the order of the manifest's labels; all numbers have six decimals.

    `signals` are measures by name of how far the image is outside the model's domain. `warnings` lists parts of the file that were
    ignored, assumed or converted.
    """

    label: str
    confidence: float
    out_of_domain: bool
    scores: tuple[float, ...]
    signals: Annotated[dict[Code, float], Meta(max_length=MAX_SIGNALS)]
    warnings: Annotated[tuple[ImageWarning, ...], Meta(max_length=MAX_WARNINGS)] = ()


class ImageRefusal(msgspec.Struct, frozen=True, tag=True):
    """The failure of one image: `reason` is a stable code, `detail` a sentence for the user."""

    reason: Code
    detail: Sentence


class InspectedUpload(Inspection, frozen=True, kw_only=True, tag=True):
    """A completely decoded image. `thumbnail` and `preview` are JPEG files; `preview` is None if browsers can display the original."""

    dtype: Annotated[str, Meta(pattern=r"^[a-z]+[0-9]{1,3}\Z", max_length=16)]
    axes: Annotated[str, Meta(pattern=r"^[A-Z]*YXS?\Z", max_length=16)]
    warnings: Annotated[tuple[ImageWarning, ...], Meta(max_length=MAX_WARNINGS)]
    thumbnail: Annotated[bytes, Meta(max_length=MAX_THUMBNAIL_BYTES)]
    preview: Annotated[bytes, Meta(max_length=MAX_PREVIEW_BYTES)] | None


def inspection_of(found: InspectedUpload) -> Inspection:
    """The metadata, without the renditions."""
    return msgspec.convert(found, Inspection, from_attributes=True)


class BatchPrediction(msgspec.Struct, frozen=True):
    """The answers for a batch, in the order of the images, with the software that produced them. `seconds` is the processing time."""

    answers: list[ModelPrediction | ImageRefusal]
    preprocessing: Sentence
    runtime: Sentence
    provider: Sentence
    decoder: Sentence
    seconds: float


def check_batch(batch: BatchPrediction, *, images: int, labels: Sequence[str]) -> None:
    """Raises ValueError unless each image has an answer whose numbers are a valid softmax over `labels`."""
    _require("the number of answers", holds=len(batch.answers) == images)
    _require("the duration", holds=isfinite(batch.seconds) and batch.seconds >= 0)
    _check_texts(batch.preprocessing, batch.runtime, batch.provider, batch.decoder)
    for answer in batch.answers:
        if isinstance(answer, ModelPrediction):
            _check_prediction(answer, labels)
        else:
            _check_texts(answer.detail)


def check_inspected(found: InspectedUpload | ImageRefusal, limits: ImageLimits) -> None:
    """Raises ValueError for values that no image within `limits` can have."""
    if isinstance(found, ImageRefusal):
        _check_texts(found.detail)
        return
    _require("a size below 1", holds=min(found.width, found.height, found.bands, found.pages, found.reader) >= 1)
    _require("the size", holds=found.width * found.height <= limits.pixels and found.bands <= limits.bands and found.pages <= limits.pages)
    _require("the size of a pixel", holds=found.pixel_size_um is None or (isfinite(found.pixel_size_um) and found.pixel_size_um > 0))
    _require("a non-JPEG rendition", holds=found.thumbnail.startswith(JPEG_START) and (found.preview or JPEG_START).startswith(JPEG_START))
    _check_warnings(found.warnings)


def _check_prediction(prediction: ModelPrediction, labels: Sequence[str]) -> None:
    _require("the labels", holds=len(prediction.scores) == len(labels) and prediction.label in labels)
    _require(
        "the scores", holds=all(0 <= score <= 1 for score in prediction.scores) and abs(fsum(prediction.scores) - 1) <= MAX_SUM_DIFFERENCE
    )
    _require("the confidence", holds=prediction.confidence == prediction.scores[labels.index(prediction.label)] == max(prediction.scores))
    _require("a signal", holds=all(map(isfinite, prediction.signals.values())))
    _check_warnings(prediction.warnings)


def _check_warnings(warnings: Sequence[ImageWarning]) -> None:
    for warning in warnings:
        _require("a warning", holds=warning.code.isidentifier() and 1 <= len(warning.detail) <= MAX_SENTENCE_LENGTH)
        _check_texts(warning.code, warning.detail)


def _check_texts(*texts: str) -> None:
    _require("a text", holds=all(text == printable(text) for text in texts))


def _require(what: str, *, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{what} is not plausible")
