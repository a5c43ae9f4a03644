"""The answer in force under a policy: which label wins, and when a result needs review."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.classification import Verdict
from domain.derivation import Answer, applying_labels, derive
from domain.model import NONE_APPLIES, OutputKind
from domain.policy import PolicyRules

LABELS = ("common", "rare", "other")
SOFTMAX, MULTI_LABEL, NUMBER, EXTERNAL = OutputKind.SOFTMAX, OutputKind.MULTI_LABEL, OutputKind.REGRESSION, OutputKind.EXTERNAL
SCORES = {"common": 0.7, "rare": 0.25, "other": 0.05}
COMMON = Answer("common", 0.7, Verdict.CLEAR)

ANY_NUMBER = st.one_of(st.floats(0, 1), st.sampled_from([nan, inf, -inf, -1.0, 2.0]))
SOME_LABELS = st.sampled_from([*LABELS, NONE_APPLIES, "unknown"])
ANY_RULES = st.builds(
    PolicyRules,
    review_below=st.none() | ANY_NUMBER,
    review_below_for=st.dictionaries(SOME_LABELS, ANY_NUMBER, max_size=3),
    label_at=st.dictionaries(SOME_LABELS, ANY_NUMBER, max_size=4),
    applies_at=st.none() | ANY_NUMBER,
    applies_at_for=st.dictionaries(SOME_LABELS, ANY_NUMBER, max_size=3),
    review_outside=st.none() | st.tuples(ANY_NUMBER, ANY_NUMBER),
)
ANSWERS = st.builds(Answer, SOME_LABELS, st.floats(0, 1), st.sampled_from(Verdict))
ANY_SCORES = st.dictionaries(SOME_LABELS, ANY_NUMBER)
KINDS = st.sampled_from(OutputKind)
VALUES = st.none() | ANY_NUMBER


def derived(rules, *, answer=COMMON, kind=SOFTMAX, scores=SCORES, value=None):
    return derive(answer, kind=kind, scores=scores, value=value, rules=rules)


@given(ANSWERS, KINDS, ANY_SCORES, VALUES)
def test_without_rules_the_answer_is_that_of_the_model(answer, kind, scores, value):
    assert derive(answer, kind=kind, scores=scores, value=value, rules=PolicyRules()) == answer


@given(ANSWERS, KINDS, ANY_SCORES, VALUES, ANY_RULES)
def test_any_rules_give_an_answer_and_give_it_again(answer, kind, scores, value, rules):
    once = derive(answer, kind=kind, scores=scores, value=value, rules=rules)
    assert derive(once, kind=kind, scores=scores, value=value, rules=rules) == once
    assert once.label == answer.label or once.label in scores
    assert 0 <= once.confidence <= 1


@given(ANSWERS, KINDS, st.lists(st.tuples(SOME_LABELS, ANY_NUMBER), unique_by=lambda one: one[0]), ANY_RULES, st.randoms())
def test_the_order_of_the_labels_does_not_matter(answer, kind, scores, rules, random):
    mixed = random.sample(scores, len(scores))
    assert derive(answer, kind=kind, scores=dict(mixed), value=None, rules=rules) == derive(
        answer, kind=kind, scores=dict(scores), value=None, rules=rules
    )


@given(KINDS, ANY_SCORES, VALUES, ANY_RULES)
def test_an_answer_out_of_the_domain_stays(kind, scores, value, rules):
    answer = Answer("common", 0.9, Verdict.OUT_OF_DOMAIN)
    assert derive(answer, kind=kind, scores=scores, value=value, rules=rules) is answer


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_confidence_below_the_threshold_needs_review_and_no_other(confidence, threshold):
    answer = Answer("common", confidence, Verdict.CLEAR)
    found = derived(PolicyRules(review_below=threshold), answer=answer, scores={})
    assert found == Answer("common", confidence, Verdict.NEEDS_REVIEW if confidence < threshold else Verdict.CLEAR)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"review_below": 0.8}, ("common", 0.7, "needs_review")),
        ({"review_below": 0.8, "review_below_for": {"common": 0.6}}, ("common", 0.7, "clear")),
        ({"review_below_for": {"rare": 0.9}}, ("common", 0.7, "clear")),
        ({"label_at": {"rare": 0.3}}, ("common", 0.7, "clear")),
        ({"label_at": {"rare": 0.25}}, ("rare", 0.25, "needs_review")),
        ({"label_at": {"rare": 0.25}, "review_below": 0.2}, ("rare", 0.25, "clear")),
        ({"label_at": {"rare": 0.2, "common": 0.5}}, ("common", 0.7, "clear")),
        ({"label_at": {"rare": 0.1, "common": 0.5}, "review_below_for": {"rare": 0.2}}, ("rare", 0.25, "clear")),
        ({"label_at": {"common": 0.9}}, ("rare", 0.25, "needs_review")),
        ({"label_at": {"common": 0.9, "rare": 0.9, "other": 0.9}}, ("common", 0.7, "needs_review")),
        ({"label_at": {"common": 0.9, "rare": 0.9, "other": 0.9}, "review_below": 0.1}, ("common", 0.7, "needs_review")),
        ({"label_at": {"absent": 0.01}, "review_below_for": {"absent": 1.0}}, ("common", 0.7, "clear")),
        ({"applies_at": 0.99, "review_outside": (0.0, 1.0)}, ("common", 0.7, "clear")),
    ],
)
def test_a_model_that_chooses_one_label(rules, expected):
    label, confidence, verdict = expected
    assert derived(PolicyRules(**rules)) == Answer(label, confidence, Verdict(verdict))


def test_of_equal_labels_the_first_in_the_alphabet_wins():
    found = derived(PolicyRules(label_at={"rare": 0.2, "other": 0.2}), scores={"common": 0.5, "rare": 0.25, "other": 0.25})
    assert found.label == "other"


MULTI_LABEL_SCORES = {"common": 0.7, "rare": 0.4, "other": 0.1, NONE_APPLIES: 0.3}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"applies_at": 0.6}, ("common", 0.7, "clear")),
        ({"applies_at": 0.8}, (NONE_APPLIES, 0.3, "needs_review")),
        ({"applies_at": 0.8, "review_below": 0.1}, (NONE_APPLIES, 0.3, "clear")),
        ({"applies_at": 0.6, "applies_at_for": {"rare": 0.2}}, ("rare", 0.4, "needs_review")),
        ({"applies_at": 0.6, "applies_at_for": {"rare": 0.2}, "review_below": 0.6}, ("rare", 0.4, "clear")),
        ({"review_below": 0.65}, ("common", 0.7, "needs_review")),
        ({"review_below": 0.65, "review_below_for": {"rare": 0.5}}, ("common", 0.7, "clear")),
        ({"review_below_for": {"rare": 0.9}}, ("common", 0.7, "needs_review")),
        ({"label_at": {"rare": 0.1}}, ("common", 0.7, "clear")),
    ],
)
def test_a_model_whose_labels_can_apply_together(rules, expected):
    label, confidence, verdict = expected
    assert derived(PolicyRules(**rules), kind=MULTI_LABEL, scores=MULTI_LABEL_SCORES) == Answer(label, confidence, Verdict(verdict))


def test_an_image_to_which_no_label_applied_gets_one_that_reaches_its_score():
    scores = {"common": 0.4, "rare": 0.35, NONE_APPLIES: 0.6}
    found = derived(
        PolicyRules(applies_at=0.3, review_below=0.5), answer=Answer(NONE_APPLIES, 0.6, Verdict.CLEAR), kind=MULTI_LABEL, scores=scores
    )
    assert found == Answer("common", 0.4, Verdict.CLEAR)


@pytest.mark.parametrize(("value", "verdict"), [(3.0, "clear"), (0.0, "clear"), (9.1, "needs_review"), (nan, "needs_review")])
def test_a_number_needs_review_outside_of_the_bounds(value, verdict):
    rules = PolicyRules(review_outside=(0.0, 9.0), review_below=1.0, label_at={"other": 0.0001})
    found = derived(rules, answer=Answer("cells", 0.0, Verdict.CLEAR), kind=NUMBER, scores={"cells": 0.3}, value=value)
    assert found == Answer("cells", 0.0, Verdict(verdict))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"review_below": 0.8}, ("common", 0.7, "needs_review")),
        ({"label_at": {"rare": 0.01}}, ("common", 0.7, "clear")),
        ({"label_at": {"common": 0.5}}, ("common", 0.7, "clear")),
        ({"label_at": {"common": 0.9}, "review_below": 0.1}, ("common", 0.7, "needs_review")),
    ],
)
def test_of_an_external_classifier_only_the_confidence_is_known(rules, expected):
    label, confidence, verdict = expected
    assert derived(PolicyRules(**rules), kind=EXTERNAL, scores={}) == Answer(label, confidence, Verdict(verdict))


@pytest.mark.parametrize("wrong", [nan, inf, -0.1, 1.5])
def test_a_score_that_is_no_probability_counts_as_unknown(wrong):
    rules = PolicyRules(label_at={"rare": 0.2})
    assert derived(rules, scores={"common": 0.7, "rare": wrong}) == COMMON


SEVERAL = {NONE_APPLIES: 0.05, "round": 0.9, "flat": 0.6, "long": 0.3}


@pytest.mark.parametrize(
    ("answer", "threshold", "rules", "labels"),
    [
        (Answer("round", 0.9, Verdict.CLEAR), None, None, ("round",)),
        (Answer("round", 0.9, Verdict.CLEAR), 0.5, None, ("round", "flat")),
        (Answer("round", 0.9, Verdict.CLEAR), 0.6, PolicyRules(review_below=0.9), ("round", "flat")),
        (Answer("round", 0.9, Verdict.CLEAR), 0.5, PolicyRules(applies_at=0.2), ("round", "flat", "long")),
        (Answer("long", 0.3, Verdict.CLEAR), 0.5, PolicyRules(applies_at=0.8, applies_at_for={"long": 0.1}), ("round", "long")),
        (Answer("round", 0.9, Verdict.OUT_OF_DOMAIN), 0.5, PolicyRules(applies_at=0.2), ("round", "flat")),
        (Answer("flat", 0.6, Verdict.NEEDS_REVIEW), 0.95, None, ("flat",)),
        (Answer(NONE_APPLIES, 0.05, Verdict.CLEAR), 0.01, None, (NONE_APPLIES,)),
    ],
)
def test_all_labels_apply_that_reach_their_score_and_always_that_of_the_answer(answer, threshold, rules, labels):
    assert applying_labels(answer, scores=SEVERAL, label_threshold=threshold, rules=rules) == labels
