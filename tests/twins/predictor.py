"""The in-memory twin of the predictor."""

from application.ports import Prediction, PredictionFailure
from domain.classification import Verdict

READABLE = (b"\xff\xd8\xff", b"\x89PNG", b"II*\x00", b"MM\x00*")


class MemoryPredictor:
    """Behaves like `SandboxedPredictor`, but every image shows the first label, with 0.9. `calls` are the arguments of each call."""

    def __init__(self, *, confidence=0.9, is_enabled=True, lacks=()):
        self.is_enabled, self._confidence, self._lacks = is_enabled, confidence, set(lacks)
        self.calls = []

    async def predict(self, images, version, *, planes, threshold):
        self.calls.append((images, version, planes, threshold))
        return [self._answer(image, version, threshold) for image in images]

    def _answer(self, image, version, threshold):
        if version.file in self._lacks:
            return PredictionFailure("model_refused", "The model's file is missing", is_ours=True)
        if not image.startswith(READABLE):
            return PredictionFailure("damaged_image", "The file is no image")
        rest = (1 - self._confidence) / max(1, len(version.labels) - 1)
        is_clear = self._confidence >= (version.review_below if threshold is None else threshold)
        return Prediction(
            label=version.labels[0],
            confidence=self._confidence,
            verdict=Verdict.CLEAR if is_clear else Verdict.NEEDS_REVIEW,
            scores=(self._confidence, *[rest] * (len(version.labels) - 1)),
        )
