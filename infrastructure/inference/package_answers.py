"""The answers of a child that checks a model package, and the checks of their plausibility. The module imports no runtime.

The package may have compromised the child, so its answers are limited by these types and by `check_answer` before they are used.
"""

from math import isfinite
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from application.result_rules import result_rules
from domain.model import OutputKind, Version
from domain.values import printable

MAX_RECORD_LENGTH: Final = 128 * 1024
"""Less than `application.models.MAX_VERSION_BYTES`, which has room for the labels too."""
MAX_LABELS: Final = 10_000
"""As many as a package may have. `application.models.check_version` allows fewer, and refuses the others with a reason."""
MAX_CHECK_SECONDS: Final = 600.0

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
ModelName = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}\Z")]
Sentence = Annotated[str, Meta(min_length=1, max_length=1000)]
Location = Annotated[str, Meta(max_length=500)]
Count = Annotated[int, Meta(ge=0, le=2**40)]


class CheckedPackage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A package that passed. `record` is its manifest as JSON text; the other fields are those of Version and CheckReport."""

    model: ModelName
    description: Annotated[str, Meta(max_length=4000)]
    release: Annotated[str, Meta(max_length=100)]
    record: Annotated[str, Meta(max_length=MAX_RECORD_LENGTH)]
    sha256: Sha256
    size: Count
    digest: Sha256
    kind: OutputKind
    labels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_LABELS)]
    label_texts: dict[str, str]
    review_below: float
    largest_difference: float | None
    tolerance: float | None
    load_seconds: float
    run_seconds: float
    memory_bytes: Count
    nodes: Count
    opset: Count
    files: Count
    package_size: Count
    runtime: Sentence
    provider: Sentence


class RefusedPackage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A package that was refused: a `code` of docs/models/format.md, a sentence, and where in the package.

    `runtime` and `provider` are those that ran it; empty if it was refused before.
    """

    code: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=64)]
    detail: Sentence
    file: Location = ""
    field: Location = ""
    runtime: Annotated[str, Meta(max_length=1000)] = ""
    provider: Annotated[str, Meta(max_length=1000)] = ""


def version_of(found: CheckedPackage, *, package: str) -> Version:
    """The version of the package with the sha256 `package`, without a number."""
    return Version(
        number=1,
        sha256=found.sha256,
        size=found.size,
        labels=found.labels,
        review_below=found.review_below,
        record=found.record,
        digest=found.digest,
        package=package,
        kind=found.kind,
        label_texts=found.label_texts,
        release=found.release,
    )


def check_answer(answer: CheckedPackage | RefusedPackage) -> None:
    """Raises ValueError for values that no honest check can give."""
    if isinstance(answer, RefusedPackage):
        _require_printable(answer.detail, answer.file, answer.field, answer.runtime, answer.provider)
        return
    numbers = (answer.load_seconds, answer.run_seconds, answer.largest_difference or 0.0, answer.tolerance or 0.0)
    _require("a number", holds=all(isfinite(number) and number >= 0 for number in numbers))
    _require("a duration", holds=max(answer.load_seconds, answer.run_seconds) <= MAX_CHECK_SECONDS)
    _require("the test", holds=(answer.largest_difference is None) == (answer.tolerance is None))
    _require("the difference", holds=(answer.largest_difference or 0.0) <= (answer.tolerance or 0.0) or answer.largest_difference is None)
    _require("the labels in words", holds=answer.label_texts.keys() <= set(answer.labels))
    _require_printable(answer.release, answer.runtime, answer.provider, *answer.label_texts.values())
    result_rules(version_of(answer, package=answer.sha256))


def _require_printable(*texts: str) -> None:
    _require("a text", holds=all(text == printable(text) for text in texts))


def _require(what: str, *, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{what} is not plausible")
