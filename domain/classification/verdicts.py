"""The verdict on a result: whether it is clear, needs review by a person, or lies outside the domain of its model."""

from collections.abc import Mapping

import msgspec

from domain.classification.events import Verdict


class ReviewRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a result of a model version needs review.

    A confidence below `below` (0 to 1) does; `below_for` replaces it for some labels. With `every_label` each label is judged by its own
    score, since several can apply. With `outside`, a number outside of these two needs review.
    """

    below: float
    below_for: dict[str, float] = {}
    every_label: bool = False
    outside: tuple[float, float] | None = None

    def with_threshold(self, threshold: float) -> "ReviewRules":
        """For a caller who gave `threshold`, which replaces those of all labels unless it is the default of the version."""
        return self if threshold == self.below else msgspec.structs.replace(self, below=threshold, below_for={})

    def threshold_of(self, label: str) -> float:
        return self.below_for.get(label, self.below)


def verdict_on(
    label: str, confidence: float, *, scores: Mapping[str, float], value: float | None, out_of_domain: bool, rules: ReviewRules
) -> Verdict:
    """`scores` are by label. `value` is the number of a regression, which has no confidence; None for other results."""
    if out_of_domain:
        return Verdict.OUT_OF_DOMAIN
    return Verdict.NEEDS_REVIEW if _needs_review(label, confidence, scores, value, rules) else Verdict.CLEAR


def _needs_review(label: str, confidence: float, scores: Mapping[str, float], value: float | None, rules: ReviewRules) -> bool:
    if value is not None:
        return rules.outside is not None and not rules.outside[0] <= value <= rules.outside[1]
    if rules.every_label:
        return any(max(score, 1 - score) < rules.threshold_of(one) for one, score in scores.items())
    return confidence < rules.threshold_of(label)
