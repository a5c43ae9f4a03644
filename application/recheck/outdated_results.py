"""Which recorded results were computed from pixels other than those that the reader of this release gives.

The pixels of a result are not kept. What the log keeps are the digest of the preprocessing and the scores. With an equal digest the
tensor was the same. Otherwise the model version of the result is run again over the stored file, and the scores are compared: pixels that
change no score by more than MAX_SCORE_DIFFERENCE have changed nothing for those who read the result; any others are other pixels.
"""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec

from application.recheck.pixel_reader import DecoderFailed, PixelReader, Prediction
from application.recheck.recorded_results import RecordedResult, RecordedResults
from domain.errors import CorruptBlob, Invalid, NotFound

MAX_SCORE_DIFFERENCE: Final = 0.001
"""More than processors and runtimes differ on the same tensor, less than what changes a percentage that is shown with one decimal."""


class OutdatedResult(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded result, and what the same model version answers for the pixels of this release."""

    id: UUID
    job: UUID
    model_name: str
    model_version: int
    label: str
    confidence: float
    label_now: str
    confidence_now: float


class NotChecked(msgspec.Struct, frozen=True, kw_only=True):
    """`job` names the result that could not be compared; None means the image itself."""

    job: UUID | None
    detail: str


class ResultComparison:
    """Compares the results of one image at a time; may be shared by threads."""

    def __init__(self, *, results: RecordedResults, reader: PixelReader, max_difference: float = MAX_SCORE_DIFFERENCE) -> None:
        self._results, self._reader, self._max_difference = results, reader, max_difference

    def compare(self, image: UUID, data: bytes) -> Iterator[OutdatedResult | NotChecked]:
        """Results that were computed from other pixels, and those that cannot be compared. Raises Unavailable."""
        predictions: dict[tuple[str, int], Prediction | str] = {}
        for recorded in self._with_other_preprocessing(image):
            if recorded.model not in predictions:
                predictions[recorded.model] = self._prediction(data, recorded)
            match predictions[recorded.model]:
                case str() as problem:
                    yield NotChecked(job=recorded.job, detail=problem)
                case prediction if self._differ(recorded.result.scores, prediction.scores):
                    yield _outdated(recorded, prediction)

    def give_up(self, image: UUID, detail: str) -> Iterator[NotChecked]:
        """All results that `compare` would look at, for an image that cannot be read. Raises Unavailable."""
        return (NotChecked(job=recorded.job, detail=detail) for recorded in self._with_other_preprocessing(image))

    def _with_other_preprocessing(self, image: UUID) -> Iterator[RecordedResult]:
        return (recorded for recorded in self._results.of(image) if self._preprocessing_now(recorded) != recorded.preprocessing)

    def _preprocessing_now(self, recorded: RecordedResult) -> str | None:
        try:
            return self._reader.preprocessing(self._results.version(*recorded.model).record)
        except (NotFound, Invalid):
            return None

    def _prediction(self, data: bytes, recorded: RecordedResult) -> Prediction | str:
        """Or a sentence that says why there is none."""
        try:
            answer = self._reader.classify(data, self._results.version(*recorded.model))
        except (NotFound, CorruptBlob):
            name = f"{recorded.model_name} version {recorded.model_version}"
            return f"The file of model {name} is missing or damaged. Add the model again, then repeat this check"
        except (DecoderFailed, Invalid) as failure:
            return failure.detail
        return answer if isinstance(answer, Prediction) else answer.detail

    def _differ(self, before: tuple[float, ...], now: tuple[float, ...]) -> bool:
        return len(before) != len(now) or any(abs(a - b) > self._max_difference for a, b in zip(before, now, strict=True))


def _outdated(recorded: RecordedResult, prediction: Prediction) -> OutdatedResult:
    return OutdatedResult(
        id=recorded.id,
        job=recorded.job,
        model_name=recorded.model_name,
        model_version=recorded.model_version,
        label=recorded.result.label,
        confidence=recorded.result.confidence,
        label_now=prediction.label,
        confidence_now=prediction.confidence,
    )
