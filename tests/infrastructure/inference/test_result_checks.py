"""What a compromised child could answer: results that are not of their kind are refused by the parent."""

import msgspec
import pytest

from application.result_rules import result_rules
from domain.model import OutputKind, Version
from infrastructure.inference.package_answers import CheckedPackage, check_answer
from infrastructure.inference.predictions import BatchPrediction, ModelPrediction, check_batch

LABELS = {
    OutputKind.SOFTMAX: ("a", "b"),
    OutputKind.LOGITS: ("a", "b"),
    OutputKind.MULTI_LABEL: ("a", "b", "none"),
    OutputKind.REGRESSION: ("cells",),
}
GOOD = {
    OutputKind.SOFTMAX: {"label": "b", "confidence": 0.7, "scores": (0.3, 0.7)},
    OutputKind.LOGITS: {"label": "b", "confidence": 0.7, "scores": (0.3, 0.7)},
    OutputKind.MULTI_LABEL: {"label": "b", "confidence": 0.9, "scores": (0.8, 0.9, 0.1)},
    OutputKind.REGRESSION: {"label": "cells", "confidence": 0.0, "scores": (0.25,), "value": 50.0},
}
BIOSCOPE = {
    OutputKind.MULTI_LABEL: {"output": {"threshold": 0.6}},
    OutputKind.REGRESSION: {"output": {"range": [0, 200]}, "review_outside": [10, 190]},
    OutputKind.SOFTMAX: {"review_below_for": {"a": 0.9}},
}


def record_of(kind):
    return msgspec.json.encode({"config": {"bioscope": BIOSCOPE.get(kind, {})}}).decode()


def rules_of(kind):
    about = {"sha256": "ab" * 32, "size": 1, "labels": LABELS[kind], "review_below": 0.5, "record": record_of(kind)}
    return result_rules(Version(number=1, package="cd" * 32, kind=kind, **about))


def check(kind, **changes):
    """Whether the answer is taken. Raises ValueError otherwise."""
    answer = ModelPrediction(**{"out_of_domain": False, "signals": {}} | GOOD[kind] | changes)
    batch = BatchPrediction(answers=[answer], preprocessing="p", runtime="r", provider="x", decoder="d", seconds=0.1)
    check_batch(batch, images=1, rules=rules_of(kind))
    return True


@pytest.mark.parametrize("kind", GOOD)
def test_a_result_of_its_kind_is_taken(kind):
    assert check(kind)


@pytest.mark.parametrize("kind", [OutputKind.SOFTMAX, OutputKind.LOGITS])
@pytest.mark.parametrize(
    "changes",
    [
        {"scores": (0.3, 0.8), "confidence": 0.8},
        {"scores": (0.3, 0.7, 0.0)},
        {"label": "a"},
        {"label": "a", "confidence": 0.3},
        {"label": "c"},
        {"confidence": 0.9},
        {"value": 1.0},
        {"scores": (1.7, -0.7), "label": "a", "confidence": 1.7},
    ],
)
def test_probabilities_that_are_none_are_refused(kind, changes):
    with pytest.raises(ValueError, match="not plausible"):
        check(kind, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": (0.8, 0.9, 0.5)},
        {"scores": (0.8, 0.9)},
        {"label": "a", "confidence": 0.8},
        {"label": "none", "confidence": 0.1},
        {"scores": (0.1, 0.5, 0.5), "confidence": 0.5},
        {"confidence": 1.0},
        {"value": 0.9},
    ],
)
def test_a_label_that_does_not_follow_from_the_scores_is_refused(changes):
    with pytest.raises(ValueError, match="not plausible"):
        check(OutputKind.MULTI_LABEL, **changes)


def test_no_label_applies_below_the_threshold_of_the_manifest():
    assert check(OutputKind.MULTI_LABEL, label="none", confidence=0.45, scores=(0.1, 0.55, 0.45))


@pytest.mark.parametrize(
    "changes",
    [
        {"value": None},
        {"value": 201.0, "scores": (1.0,)},
        {"value": -1.0, "scores": (0.0,)},
        {"value": float("nan")},
        {"value": float("inf")},
        {"scores": (0.5,)},
        {"confidence": 0.25},
        {"scores": (0.25, 0.75)},
        {"label": "nuclei"},
    ],
)
def test_a_number_that_its_manifest_does_not_permit_is_refused(changes):
    with pytest.raises(ValueError, match="not plausible"):
        check(OutputKind.REGRESSION, **changes)


def test_the_rules_of_review_come_from_the_record():
    assert rules_of(OutputKind.SOFTMAX).review.below_for == {"a": 0.9}
    assert rules_of(OutputKind.REGRESSION).review.outside == (10.0, 190.0)
    assert rules_of(OutputKind.MULTI_LABEL).review.every_label
    assert dict(rules_of(OutputKind.MULTI_LABEL).judged_scores((0.8, 0.9, 0.1))) == {"a": 0.8, "b": 0.9}


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (OutputKind.SOFTMAX, "no JSON"),
        (OutputKind.SOFTMAX, "[]"),
        (OutputKind.SOFTMAX, '{"config": 5}'),
        (OutputKind.SOFTMAX, '{"config": {"bioscope": {"review_below_for": {"a": 7}}}}'),
        (OutputKind.REGRESSION, "{}"),
        (OutputKind.REGRESSION, '{"config": {"bioscope": {"output": {"range": [2, 2]}}}}'),
        (OutputKind.REGRESSION, '{"config": {"bioscope": {"output": {"range": [0, 1e309]}}}}'),
        (OutputKind.MULTI_LABEL, '{"config": {"bioscope": {"output": {"threshold": -1}}}}'),
    ],
)
def test_a_record_without_usable_rules_is_refused_where_the_package_is_checked(kind, record):
    with pytest.raises(ValueError, match=r"the record is not JSON with rules|needs one label and a range"):
        check_answer(checked(kind, record=record))


@pytest.mark.parametrize(
    ("kind", "labels"), [(OutputKind.MULTI_LABEL, ("a", "b")), (OutputKind.MULTI_LABEL, ("none",)), (OutputKind.REGRESSION, ("a", "b"))]
)
def test_labels_that_results_of_the_kind_cannot_have_are_refused(kind, labels):
    with pytest.raises(ValueError, match=r"must be `none`|needs one label"):
        check_answer(checked(kind, labels=labels))


@pytest.mark.parametrize("kind", GOOD)
def test_an_honest_answer_is_taken(kind):
    assert check_answer(checked(kind)) is None


def test_a_version_that_another_program_answers_for_is_not_run():
    with pytest.raises(ValueError, match="external classifiers are not run here"):
        check_answer(msgspec.structs.replace(checked(OutputKind.SOFTMAX), kind=OutputKind.EXTERNAL))


def checked(kind, **changes):
    about = {"model": "letters", "description": "", "release": "1", "sha256": "ab" * 32, "size": 1, "digest": "cd" * 32, "kind": kind}
    measured = {"largest_difference": None, "tolerance": None, "load_seconds": 0.1, "run_seconds": 0.1, "memory_bytes": 1, "nodes": 1}
    made = {"opset": 17, "files": 3, "package_size": 9, "runtime": "onnxruntime", "provider": "CPUExecutionProvider"}
    rules = {"labels": LABELS[kind], "label_texts": {}, "review_below": 0.5, "record": record_of(kind)}
    return CheckedPackage(**about | measured | made | rules | changes)


def test_a_version_without_a_package_has_no_rules_of_its_own():
    version = Version(number=1, sha256="ab" * 32, size=1, labels=("a", "b"), review_below=0.5, record="not even JSON")
    assert result_rules(version).review.below == 0.5
