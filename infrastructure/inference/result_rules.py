"""What the results of a model version must be, by its kind, and when they need review. The module imports no decoder."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from domain.classification import ReviewRules
from domain.model import OutputKind, Version

NONE_APPLIES: Final = "none"
"""The label of an image of a `multi_label` model to which no label applies."""


class ResultRules(msgspec.Struct, frozen=True, kw_only=True):
    """`threshold` is the score from which a label of `multi_label` applies; `range` are the numbers that a regression may give."""

    kind: OutputKind
    labels: tuple[str, ...]
    review: ReviewRules
    threshold: float = 0.5
    range: tuple[float, float] = (0.0, 1.0)

    def judged_scores(self, scores: Sequence[float]) -> Mapping[str, float]:
        """By label, without the label that follows from the others."""
        return {label: score for label, score in zip(self.labels, scores, strict=True) if not (self.has_none and label == NONE_APPLIES)}

    @property
    def has_none(self) -> bool:
        """Whether the last label is that of an image to which none applies."""
        return self.kind is OutputKind.MULTI_LABEL


class _OutputFields(msgspec.Struct, frozen=True):
    threshold: float = 0.5
    range: tuple[float, float] | None = None


class _BioscopeFields(msgspec.Struct, frozen=True):
    output: _OutputFields = _OutputFields()
    review_below_for: dict[str, float] = {}
    review_outside: tuple[float, float] | None = None


class _ConfigFields(msgspec.Struct, frozen=True):
    bioscope: _BioscopeFields = _BioscopeFields()


class _RecordFields(msgspec.Struct, frozen=True):
    config: _ConfigFields = _ConfigFields()


def result_rules(version: Version) -> ResultRules:
    """Of the record of the version. Versions without a package have no rules of their own. Raises msgspec.DecodeError."""
    fields = msgspec.json.decode(version.record, type=_RecordFields).config.bioscope if version.package else _BioscopeFields()
    return ResultRules(
        kind=version.kind,
        labels=version.labels,
        review=ReviewRules(
            below=version.review_below,
            below_for=fields.review_below_for,
            every_label=version.kind is OutputKind.MULTI_LABEL,
            outside=fields.review_outside,
        ),
        threshold=fields.output.threshold,
        range=fields.output.range or (0.0, 1.0),
    )
