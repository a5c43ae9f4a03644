"""The port to the reader of pixels of this release, and to the models that see through it."""

from typing import Protocol

import msgspec

from domain.errors import DomainError
from domain.image import Inspection
from domain.model import Version


class DecoderFailed(DomainError):
    """The decoder broke down or took too long. It says nothing about the file: another try may succeed."""

    code = "decoder_failed"


class UnreadableImage(msgspec.Struct, frozen=True):
    """The reader or the model refuses the file; `detail` is a sentence for the user."""

    detail: str


class DecodedImage(msgspec.Struct, frozen=True, kw_only=True):
    """`thumbnail` and `preview` are JPEGs; there is no preview where browsers show the original."""

    inspection: Inspection
    thumbnail: bytes
    preview: bytes | None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """`scores` follow the labels of the model version."""

    label: str
    confidence: float
    scores: tuple[float, ...]


class PixelReader(Protocol):
    """Calls block. May be shared by threads."""

    version: int

    def decode(self, data: bytes) -> DecodedImage | UnreadableImage:
        """Raises DecoderFailed."""

    def preprocessing(self, record: str) -> str:
        """The digest of the preprocessing that a model record asks for, as this release does it. Raises Invalid."""

    def classify(self, data: bytes, version: Version) -> Prediction | UnreadableImage:
        """Raises DecoderFailed, and NotFound or CorruptBlob where the weights are missing or damaged."""
