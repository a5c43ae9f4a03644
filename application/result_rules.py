"""What the results of a model version must be, by its kind, and when they need review. The module imports no decoder."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from domain.classification import ReviewRules, Verdict, verdict_on
from domain.model import NONE_APPLIES, OutputKind, Version

Probability = Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[float, Meta(ge=-1.7e308, le=1.7e308)]

DECIMALS: Final = 6
"""Of all numbers in results but the value of a regression."""
MAX_SUM_DIFFERENCE: Final = 1e-4
"""Maximum difference of the sum of probabilities from 1, without that of rounding them."""
MAX_ROUNDING: Final = 10.0**-DECIMALS
"""Maximum difference between two numbers that are equal but for rounding to six decimals."""
FLOAT32_ROUNDING: Final = 2.0**-24
"""Maximum relative difference between a number and the float32 that is nearest to it, unless both are next to 0."""
FLOAT32_ROUNDING_AT_0: Final = 2.0**-150


class ResultRules(msgspec.Struct, frozen=True, kw_only=True):
    """`threshold` is the score from which a label of `multi_label` applies; `range` are the numbers that a regression may give."""

    kind: OutputKind
    labels: tuple[str, ...]
    review: ReviewRules
    threshold: float = 0.5
    range: tuple[float, float] = (0.0, 1.0)

    def with_threshold(self, threshold: float) -> "ResultRules":
        """For a caller who gave `threshold`, below which a confidence needs review."""
        return msgspec.structs.replace(self, review=self.review.with_threshold(threshold))

    def judged_scores(self, scores: Sequence[float]) -> Mapping[str, float]:
        """By label, without the label that follows from the others."""
        return {label: score for label, score in zip(self.labels, scores, strict=True) if not (self.has_none and label == NONE_APPLIES)}

    def verdict_on(self, label: str, confidence: float, scores: Sequence[float], *, value: float | None, out_of_domain: bool) -> Verdict:
        """The verdict on a result. `scores` are in the order of the labels; `value` is the number of a regression."""
        judged = self.judged_scores(scores)
        return verdict_on(label, confidence, scores=judged, value=value, out_of_domain=out_of_domain, rules=self.review)

    @property
    def has_none(self) -> bool:
        """Whether the last label is that of an image to which none applies."""
        return self.kind is OutputKind.MULTI_LABEL


def within(value: float, bounds: tuple[float, float]) -> float | None:
    """The nearest number within `bounds` if `value` lies there but for rounding to float32, otherwise None."""
    lowest, highest = bounds
    below, above = (max(FLOAT32_ROUNDING * abs(bound), FLOAT32_ROUNDING_AT_0) for bound in bounds)
    return min(max(value, lowest), highest) if lowest - below <= value <= highest + above else None


def _require_order(bounds: tuple[float, float] | None) -> None:
    if bounds is not None and bounds[0] >= bounds[1]:
        raise ValueError("needs two numbers, the lower one first")


class _OutputFields(msgspec.Struct, frozen=True):
    threshold: Probability = 0.5
    range: tuple[Number, Number] | None = None

    def __post_init__(self) -> None:
        _require_order(self.range)


class _BioscopeFields(msgspec.Struct, frozen=True):
    output: _OutputFields = _OutputFields()
    review_below_for: dict[str, Probability] = {}
    review_outside: tuple[Number, Number] | None = None

    def __post_init__(self) -> None:
        _require_order(self.review_outside)


class _ConfigFields(msgspec.Struct, frozen=True):
    bioscope: _BioscopeFields = _BioscopeFields()


class _RecordFields(msgspec.Struct, frozen=True):
    config: _ConfigFields = _ConfigFields()


_RECORD: Final = msgspec.json.Decoder(_RecordFields)


def rules_of_job(version: Version, threshold: float) -> ResultRules:
    """As `result_rules`, for a job with this threshold."""
    return result_rules(version).with_threshold(threshold)


def result_rules(version: Version) -> ResultRules:
    """Of the record of the version. Versions without a package have no rules of their own. Raises ValueError if none can be made."""
    try:
        fields = _RECORD.decode(version.record).config.bioscope if version.package else _BioscopeFields()
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the record is not JSON with rules for results: {error}") from None
    review = ReviewRules(
        below=version.review_below,
        below_for=fields.review_below_for,
        every_label=version.kind is OutputKind.MULTI_LABEL,
        outside=fields.review_outside,
    )
    rules = ResultRules(kind=version.kind, labels=version.labels, review=review, threshold=fields.output.threshold)
    match version.kind:
        case OutputKind.EXTERNAL:
            raise ValueError("external classifiers are not run here")
        case OutputKind.MULTI_LABEL if len(version.labels) < 2 or version.labels[-1] != NONE_APPLIES:
            raise ValueError(f"the last label of a multi_label model must be `{NONE_APPLIES}`")
        case OutputKind.REGRESSION:
            if fields.output.range is None or len(version.labels) != 1:
                raise ValueError("a regression needs one label and a range")
            return msgspec.structs.replace(rules, range=fields.output.range)
        case _:
            return rules
