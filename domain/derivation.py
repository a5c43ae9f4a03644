"""The derivation of the answer in force from the scores that a model gave, under the rules of a policy. Pure and total."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from math import inf

import msgspec

from domain.classification import ReviewRules, Verdict, verdict_on
from domain.model import NONE_APPLIES, OutputKind
from domain.policy import PolicyRules


class Answer(msgspec.Struct, frozen=True):
    """What is known of an image: by its model, or under the policy in force. `confidence` is the score of the label, 0 to 1."""

    label: str
    confidence: float
    verdict: Verdict


def derive(answer: Answer, *, kind: OutputKind, scores: Mapping[str, float], value: float | None, rules: PolicyRules) -> Answer:
    """The answer under `rules`, from the `answer` of the model, its `scores` by label, and the number `value` of a regression.

    An answer out of the domain of the model stays as it is. Otherwise:

    1. A number keeps its label; it needs review outside of `review_outside`.
    2. Some labels have a minimum: those of `label_at`, or where labels apply together all labels by `applies_at` and `applies_at_for`. Of
       the labels that reach theirs, the one wins that exceeds it by the highest factor; then the higher score, then the alphabet decides.
    3. If none reaches its minimum, the label of the model stays, unless it has a minimum itself. Then the label without a minimum wins
       that has the highest score; where labels apply together that is the label that none applies.
    4. The confidence is the score of the label. Below `review_below`, or that of the label, the result needs review. Where labels apply
       together, each of them must be as certain as its number, by its score or by the distance of the score from 1.
    5. Where no number is given for the label, the verdict of the model stays if its label stays, and any other label needs review. So does
       a label that stays below its minimum because no other one is known.

    Scores that are no numbers from 0 to 1 count as unknown. Without any score, as external classifiers answer, only the confidence of the
    answer's label is known. Labels that the rules name and the model does not have play no part.
    """
    if answer.verdict is Verdict.OUT_OF_DOMAIN:
        return answer
    if value is not None or kind is OutputKind.REGRESSION:
        return _of_number(answer, value, rules)
    if kind is OutputKind.MULTI_LABEL:
        return _of_labels_together(answer, _known(answer, scores), rules)
    return _of_one_label(answer, _known(answer, scores) if rules.label_at else {}, rules)


def applying_labels(
    answer: Answer, *, scores: Mapping[str, float], label_threshold: float | None, rules: PolicyRules | None = None
) -> tuple[str, ...]:
    """All labels that apply, the highest score first. That of the `answer`, which `rules` or the model gave, is always one of them.

    `label_threshold` is the score (0 to 1) from which a label of the model applies; None where labels exclude each other. `applies_at` and
    `applies_at_for` of the rules precede it, but do not change an answer out of the domain of the model.
    """
    if label_threshold is None or answer.label == NONE_APPLIES:
        return (answer.label,)
    rules = PolicyRules() if rules is None or answer.verdict is Verdict.OUT_OF_DOMAIN else rules
    default = label_threshold if rules.applies_at is None else rules.applies_at
    applying = {label for label, score in scores.items() if score >= rules.applies_at_for.get(label, default)} - {NONE_APPLIES}
    return tuple(sorted(applying | {answer.label}, key=lambda label: (-scores.get(label, answer.confidence), label)))


def _known(answer: Answer, scores: Mapping[str, float]) -> Mapping[str, float]:
    return {label: score for label, score in scores.items() if 0 <= score <= 1} or {answer.label: answer.confidence}


def _of_number(answer: Answer, value: float | None, rules: PolicyRules) -> Answer:
    if value is None or rules.review_outside is None:
        return answer
    lowest, highest = rules.review_outside
    return Answer(answer.label, answer.confidence, Verdict.CLEAR if lowest <= value <= highest else Verdict.NEEDS_REVIEW)


def _of_one_label(answer: Answer, scores: Mapping[str, float], rules: PolicyRules) -> Answer:
    label = _label(answer.label, scores, rules.label_at, scores.keys() - rules.label_at.keys()) if rules.label_at else answer.label
    if label is None:
        return Answer(answer.label, answer.confidence, Verdict.NEEDS_REVIEW)
    confidence = answer.confidence if label == answer.label else scores[label]
    threshold = rules.review_below_for.get(label, rules.review_below)
    if threshold is None:
        return answer if label == answer.label else Answer(label, confidence, Verdict.NEEDS_REVIEW)
    return Answer(label, confidence, Verdict.NEEDS_REVIEW if confidence < threshold else Verdict.CLEAR)


def _of_labels_together(answer: Answer, scores: Mapping[str, float], rules: PolicyRules) -> Answer:
    judged = {label: score for label, score in scores.items() if label != NONE_APPLIES}
    minimums = {label: least for label in judged if (least := rules.applies_at_for.get(label, rules.applies_at)) is not None}
    label = _label(answer.label, scores, minimums, scores.keys() & {NONE_APPLIES})
    if label is None:
        return Answer(answer.label, answer.confidence, Verdict.NEEDS_REVIEW)
    confidence = answer.confidence if label == answer.label else scores[label]
    review = ReviewRules(below=rules.review_below or 0.0, below_for=rules.review_below_for, every_label=True)
    verdict = verdict_on(label, confidence, scores=judged, value=None, out_of_domain=False, rules=review)
    if verdict is Verdict.CLEAR and rules.review_below is None:
        verdict = answer.verdict if label == answer.label else Verdict.NEEDS_REVIEW
    return Answer(label, confidence, verdict)


def _label(model_label: str, scores: Mapping[str, float], minimums: Mapping[str, float], others: AbstractSet[str]) -> str | None:
    """The label that wins; None if that of the model does not reach its minimum, and there are no `others`, which have none."""
    reached = [
        (-score / minimums[label] if minimums[label] > 0 else -inf, -score, label)
        for label, score in scores.items()
        if label in minimums and score >= minimums[label]
    ]
    if reached:
        return min(reached)[2]
    if model_label not in minimums:
        return model_label
    return min(others, key=lambda label: (-scores[label], label), default=None)
