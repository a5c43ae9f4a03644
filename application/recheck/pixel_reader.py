"""The port to the current image reader, and to models that run on its pixels."""

from typing import Protocol

import msgspec

from domain.classification import PlaneSelection
from domain.errors import DomainError
from domain.image import Inspection
from domain.model import Version


class DecoderFailed(DomainError):
    """The decoder crashed or timed out. That proves nothing about the file; another attempt may succeed."""

    code = "decoder_failed"


class UnreadableImage(msgspec.Struct, frozen=True):
    """The reader or the model rejects the file. `detail` is a sentence for the user."""

    detail: str


class DecodedImage(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded file. `thumbnail` and `preview` are JPEG files; `preview` is None if browsers can display the original."""

    inspection: Inspection
    thumbnail: bytes
    preview: bytes | None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A model's answer. `scores` are in the order of the model version's labels; all values are from 0 to 1."""

    label: str
    confidence: float
    scores: tuple[float, ...]


class PixelReader(Protocol):
    """Decodes images and runs models with the current reader. Thread-safe. Calls block."""

    version: int

    def decode(self, data: bytes) -> DecodedImage | UnreadableImage:
        """Decode a whole file. Raises DecoderFailed."""

    def preprocessing(self, record: str) -> str:
        """The digest of this release's preprocessing for a model manifest (JSON text). Raises Invalid."""

    def classify(self, data: bytes, version: Version, planes: PlaneSelection | None) -> Prediction | UnreadableImage:
        """Run a model version on `planes` of a file, or on those that it chooses.

        Raises DecoderFailed, and NotFound or CorruptBlob if the weights are missing or damaged.
        """
