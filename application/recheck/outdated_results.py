"""Find recorded results that were computed from other pixels than the current reader gives.

The pixels of a result are not stored. The log contains the digest of the preprocessing and the scores. With an equal digest, the tensor
was the same. Otherwise the model version of the result runs again on the stored file, and the scores are compared. The result is
outdated if a score differs by more than MAX_SCORE_DIFFERENCE.
"""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec

from application.recheck.pixel_reader import DecoderFailed, PixelReader, Prediction
from application.recheck.recorded_results import RecordedResult, RecordedResults
from domain.errors import CorruptBlob, Invalid, NotFound

MAX_SCORE_DIFFERENCE: Final = 0.001
"""More than the difference between processors and runtimes on the same tensor; less than a displayed percentage with one decimal."""


class OutdatedResult(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded result, and the answer of the same model version for the current reader's pixels."""

    id: UUID
    job: UUID
    model_name: str
    model_version: int
    label: str
    confidence: float
    label_now: str
    confidence_now: float


class NotChecked(msgspec.Struct, frozen=True, kw_only=True):
    """A result that could not be compared, named by its `job`, or (None) the image itself. `detail` is a sentence for the user."""

    job: UUID | None
    detail: str


class ResultComparison:
    """Compares the results of one image at a time. Thread-safe."""

    def __init__(self, *, results: RecordedResults, reader: PixelReader, max_difference: float = MAX_SCORE_DIFFERENCE) -> None:
        self._results, self._reader, self._max_difference = results, reader, max_difference

    def compare(self, image: UUID, data: bytes) -> Iterator[OutdatedResult | NotChecked]:
        """Outdated results, and results that cannot be compared. `data` is the file. Blocks. Raises Unavailable."""
        predictions: dict[tuple[object, ...], Prediction | str] = {}
        for recorded in self._with_other_preprocessing(image):
            asked = recorded.model, recorded.planes
            if asked not in predictions:
                predictions[asked] = self._prediction(data, recorded)
            match predictions[asked]:
                case str() as problem:
                    yield NotChecked(job=recorded.job, detail=problem)
                case prediction if self._differ(recorded.result.scores, prediction.scores):
                    yield _outdated(recorded, prediction)

    def give_up(self, image: UUID, detail: str) -> Iterator[NotChecked]:
        """The results that `compare` would check, as not checked: for an image that cannot be read. Raises Unavailable."""
        return (NotChecked(job=recorded.job, detail=detail) for recorded in self._with_other_preprocessing(image))

    def _with_other_preprocessing(self, image: UUID) -> Iterator[RecordedResult]:
        return (recorded for recorded in self._results.of(image) if self._has_other_preprocessing(recorded))

    def _has_other_preprocessing(self, recorded: RecordedResult) -> bool:
        """Also true where nothing is certain. An external classifier decodes images itself."""
        try:
            version = self._results.version(*recorded.model)
            return not version.is_external and self._reader.preprocessing(version.record) != recorded.preprocessing
        except (NotFound, Invalid):
            return True

    def _prediction(self, data: bytes, recorded: RecordedResult) -> Prediction | str:
        """The prediction, or a sentence that explains why there is none."""
        try:
            answer = self._reader.classify(data, self._results.version(*recorded.model), recorded.planes)
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
