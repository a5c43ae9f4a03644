"""What the pool's children answer. Light: the parent imports it, and no decoder."""

import msgspec

from domain.image import Inspection
from domain.values import ImageWarning


class Seen(msgspec.Struct, frozen=True, tag=True):
    """`scores` follow the record's labels; all numbers to six decimals. `signals` say how foreign the image looked, by name;
    `warnings` what of the file was not used, assumed or converted."""

    label: str
    confidence: float
    out_of_domain: bool
    scores: tuple[float, ...]
    signals: dict[str, float]
    warnings: tuple[ImageWarning, ...] = ()


class Unseen(msgspec.Struct, frozen=True, tag=True):
    """No result: `reason` is a code, `detail` a sentence for the user."""

    reason: str
    detail: str


class Inspected(Inspection, frozen=True, kw_only=True, tag=True):
    """An image whose every pixel was decoded. `thumbnail` and `preview` are JPEGs; there is no preview where browsers show the original."""

    thumbnail: bytes
    preview: bytes | None


def inspection_of(found: Inspected) -> Inspection:
    """Without the pictures."""
    return msgspec.convert(found, Inspection, from_attributes=True)


class Judged(msgspec.Struct, frozen=True):
    """`answers` follow the images; the rest says what made them. `seconds` of work."""

    answers: list[Seen | Unseen]
    preprocessing: str
    runtime: str
    provider: str
    decoder: str
    seconds: float
