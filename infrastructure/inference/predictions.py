"""The answers of child processes, and the checks of their plausibility. The module imports no decoder, since the parent uses it.

A file or a model may have compromised a child. Its answers are limited by these types and checked by `check_batch` and
`check_inspected` before they are used.
"""

from collections.abc import Sequence
from math import fsum, isfinite
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from application.result_rules import MAX_ROUNDING, MAX_SUM_DIFFERENCE, ResultRules
from domain.image import Inspection
from domain.model import NONE_APPLIES, OutputKind
from domain.values import ImageWarning, printable
from infrastructure.images.validation.limits import ImageLimits

MAX_WARNINGS: Final = 64
MAX_SIGNALS: Final = 16
MAX_THUMBNAIL_BYTES: Final = 1024**2
MAX_PREVIEW_BYTES: Final = 24 * 1024**2
MAX_SENTENCE_LENGTH: Final = 1000
JPEG_START: Final = b"\xff\xd8\xff"

Code = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=64)]
Sentence = Annotated[str, Meta(min_length=1, max_length=MAX_SENTENCE_LENGTH)]


class ModelPrediction(msgspec.Struct, frozen=True, tag=True):
    """The prediction for one image. `scores` are in the order of the version's labels. All numbers but `value` have six decimals.

    `signals` are measures by name of how far the image is outside the model's domain. `warnings` lists parts of the file that were
    ignored, assumed or converted. `value` is the number of a regression.
    """

    label: str
    confidence: float
    out_of_domain: bool
    scores: tuple[float, ...]
    signals: Annotated[dict[Code, float], Meta(max_length=MAX_SIGNALS)]
    warnings: Annotated[tuple[ImageWarning, ...], Meta(max_length=MAX_WARNINGS)] = ()
    value: float | None = None


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


def check_batch(batch: BatchPrediction, *, images: int, rules: ResultRules) -> None:
    """Raises ValueError unless each image has an answer whose numbers are a result of its kind."""
    _require("the number of answers", holds=len(batch.answers) == images)
    _require("the duration", holds=isfinite(batch.seconds) and batch.seconds >= 0)
    _check_texts(batch.preprocessing, batch.runtime, batch.provider, batch.decoder)
    for answer in batch.answers:
        if isinstance(answer, ModelPrediction):
            _check_prediction(answer, rules)
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


def _check_prediction(prediction: ModelPrediction, rules: ResultRules) -> None:
    _require("the labels", holds=len(prediction.scores) == len(rules.labels) and prediction.label in rules.labels)
    _require("the scores", holds=all(0 <= score <= 1 for score in prediction.scores))
    _require("a value", holds=(prediction.value is not None) == (rules.kind is OutputKind.REGRESSION))
    match rules.kind:
        case OutputKind.REGRESSION:
            _check_number(prediction, rules.range)
        case OutputKind.MULTI_LABEL:
            _check_applying_label(prediction, rules)
        case _:
            _check_probabilities(prediction, rules.labels)
    _require("a signal", holds=all(map(isfinite, prediction.signals.values())))
    _check_warnings(prediction.warnings)


def _check_probabilities(prediction: ModelPrediction, labels: Sequence[str]) -> None:
    allowed = MAX_SUM_DIFFERENCE + MAX_ROUNDING * len(labels)
    _require("the sum of the scores", holds=abs(fsum(prediction.scores) - 1) <= allowed)
    _require("the confidence", holds=prediction.confidence == prediction.scores[labels.index(prediction.label)] == max(prediction.scores))


def _check_applying_label(prediction: ModelPrediction, rules: ResultRules) -> None:
    *own, none = prediction.scores
    highest = max(own)
    _require("the score of no label", holds=abs(none - (1 - highest)) <= MAX_ROUNDING)
    _require("the confidence", holds=prediction.confidence == prediction.scores[rules.labels.index(prediction.label)])
    if prediction.label == NONE_APPLIES:
        _require("the label", holds=highest <= rules.threshold + MAX_ROUNDING)
    else:
        _require("the label", holds=prediction.confidence == highest >= rules.threshold - MAX_ROUNDING)


def _check_number(prediction: ModelPrediction, bounds: tuple[float, float]) -> None:
    lowest, highest = bounds
    value = prediction.value
    _require("the number", holds=value is not None and lowest <= value <= highest)
    assert value is not None
    place = (value - lowest) / (highest - lowest)
    _require("the place of the number", holds=abs(prediction.scores[0] - place) <= MAX_ROUNDING)
    _require("the confidence", holds=prediction.confidence == 0)


def _check_warnings(warnings: Sequence[ImageWarning]) -> None:
    for warning in warnings:
        _require("a warning", holds=warning.code.isidentifier() and 1 <= len(warning.detail) <= MAX_SENTENCE_LENGTH)
        _check_texts(warning.code, warning.detail)


def _check_texts(*texts: str) -> None:
    _require("a text", holds=all(text == printable(text) for text in texts))


def _require(what: str, *, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{what} is not plausible")
