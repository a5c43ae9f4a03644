"""What the pool's children answer. Light: the parent imports it, and no decoder."""

import msgspec


class Seen(msgspec.Struct, frozen=True, tag=True):
    """`scores` follow the record's labels; all numbers to six decimals. `signals` say how foreign the image looked, by name."""

    label: str
    confidence: float
    out_of_domain: bool
    scores: tuple[float, ...]
    signals: dict[str, float]


class Unseen(msgspec.Struct, frozen=True, tag=True):
    """No result: `reason` is a code, `detail` a sentence for the user."""

    reason: str
    detail: str


class Inspected(msgspec.Struct, frozen=True, tag=True):
    """An image whose every pixel was decoded; the fields are those of `infrastructure.imaging.Inspection`."""

    width: int
    height: int
    bands: int
    dtype: str
    pages: int
    axes: str
    pixel_size_um: float | None
    thumbnail: bytes
    preview: bytes | None


class Judged(msgspec.Struct, frozen=True):
    """`answers` follow the images; the rest says what made them. `seconds` of work."""

    answers: list[Seen | Unseen]
    preprocessing: str
    runtime: str
    provider: str
    decoder: str
    seconds: float
