"""The answers of a child that checks a model package, and the checks of their plausibility. The module imports no runtime.

The package may have compromised the child, so its answers are limited by these types and by `check_answer` before they are used.
"""

from collections.abc import Callable
from math import isfinite
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from domain.errors import DomainError
from domain.model import OutputKind, Version
from domain.values import printable
from infrastructure.inference.result_rules import result_rules

MAX_RECORD_LENGTH: Final = 1024**2
MAX_CHECK_SECONDS: Final = 600.0

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
ModelName = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}\Z")]
Sentence = Annotated[str, Meta(min_length=1, max_length=1000)]
Place = Annotated[str, Meta(max_length=500)]
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
    labels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=300)]
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
    """A package that was refused: a `code` of docs/models/format.md, a sentence, and where in the package."""

    code: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=64)]
    detail: Sentence
    file: Place = ""
    field: Place = ""


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


def check_answer(answer: CheckedPackage | RefusedPackage, check_version: Callable[[Version], None]) -> None:
    """Raises ValueError for values that no honest check can give. `check_version` raises DomainError for an unusable version."""
    if isinstance(answer, RefusedPackage):
        _require("a text", holds=all(text == printable(text) for text in (answer.detail, answer.file, answer.field)))
        return
    numbers = (answer.load_seconds, answer.run_seconds, answer.largest_difference or 0.0, answer.tolerance or 0.0)
    _require("a number", holds=all(isfinite(number) and number >= 0 for number in numbers))
    _require("a duration", holds=max(answer.load_seconds, answer.run_seconds) <= MAX_CHECK_SECONDS)
    _require("the test", holds=(answer.largest_difference is None) == (answer.tolerance is None))
    _require("the difference", holds=(answer.largest_difference or 0.0) <= (answer.tolerance or 0.0) or answer.largest_difference is None)
    _require("the labels in words", holds=answer.label_texts.keys() <= set(answer.labels))
    _require("a text", holds=all(text == printable(text) for text in (answer.release, answer.runtime, answer.provider)))
    version = version_of(answer, package=answer.sha256)
    try:
        result_rules(version)
        check_version(version)
    except (ValueError, DomainError) as error:
        raise ValueError(f"the version is not usable: {error}") from None


def _require(what: str, *, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{what} is not plausible")
