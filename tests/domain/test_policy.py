"""Policies: their rules are checked, an equal one is not set again, and one that was withdrawn can be set again."""

from math import inf, nan
from uuid import uuid4

import pytest

from domain import policy
from domain.errors import Conflict, Invalid
from domain.policy import PolicyRules, PolicyScope, check_rules, policy_id
from tests.given import LATER, NOW, state_after

ME, JOB, DATASET = uuid4(), uuid4(), uuid4()
RULES = PolicyRules(review_below=0.8)
LABELS = ("common", "rare")


def set_for_job(state=None, rules=RULES, reason="Too many false alarms", at=NOW):
    return policy.set_policy(state, scope=PolicyScope.JOB, target=JOB, dataset=DATASET, rules=rules, reason=reason, by=ME, at=at)


def test_the_first_policy_begins_a_stream_of_its_target():
    (event,) = set_for_job()
    assert (event.originator_id, event.originator_version) == (policy_id(PolicyScope.JOB, JOB), 1)
    state = state_after(policy.evolve, [event])
    assert (state.target_id, state.dataset_id, state.rules, state.set_by, state.set_at) == (JOB, DATASET, RULES, ME, NOW)


def test_equal_rules_are_no_event_and_others_are():
    state = state_after(policy.evolve, set_for_job())
    assert set_for_job(state, reason="Once more") == []
    (event,) = set_for_job(state, PolicyRules(review_below=0.9))
    assert event.originator_version == 2


def test_a_policy_that_was_withdrawn_has_no_rules_and_can_be_set_again():
    state = state_after(policy.evolve, set_for_job())
    withdrawn = policy.withdraw(state, reason="Not needed", by=ME, at=LATER)
    ended = policy.evolve(state, withdrawn)
    assert (ended.rules, ended.version, ended.set_at) == (None, 2, LATER)
    with pytest.raises(Conflict):
        policy.withdraw(ended, reason="Again", by=ME, at=LATER)
    assert [event.originator_version for event in set_for_job(ended)] == [3]


def test_policies_of_different_scopes_have_different_streams():
    assert len({policy_id(scope, JOB) for scope in PolicyScope}) == 3


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001, "bell\x07"])
def test_a_reason_is_needed(reason):
    with pytest.raises(Invalid):
        set_for_job(reason=reason)


@pytest.mark.parametrize(
    "rules",
    [
        {"review_below": 0},
        {"review_below": 1, "review_below_for": {"rare": 0}},
        {"label_at": {"rare": 0.01, "common": 1}},
        {"applies_at": 0.5, "applies_at_for": {"rare": 0.2}},
        {"review_outside": (-1e6, 3.5)},
    ],
)
def test_rules_that_are_accepted(rules):
    assert check_rules(PolicyRules(**rules), labels=LABELS) is None


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ({}, []),
        ({"review_below": -0.1}, ["review_below"]),
        ({"review_below": nan}, ["review_below"]),
        ({"applies_at": 0}, ["applies_at"]),
        ({"review_below_for": {"rare": 1.1}}, ["review_below_for", "rare"]),
        ({"label_at": {"rare": 0}}, ["label_at", "rare"]),
        ({"applies_at": 0.5, "applies_at_for": {"rare": 0}}, ["applies_at_for", "rare"]),
        ({"applies_at_for": {"rare": 0.2}}, ["applies_at"]),
        ({"review_outside": (2, 1)}, ["review_outside"]),
        ({"review_outside": (1, 1)}, ["review_outside"]),
        ({"review_outside": (nan, 1)}, ["review_outside"]),
        ({"review_outside": (0, inf)}, ["review_outside"]),
        ({"label_at": {"absent": 0.5}}, ["label_at", "absent"]),
    ],
)
def test_rules_that_are_refused_at_their_place(rules, path):
    with pytest.raises(Invalid) as refused:
        check_rules(PolicyRules(**rules), labels=LABELS)
    assert refused.value.errors[0]["loc"] == ["body", "rules", *path]


def test_rules_that_would_fit_no_event_are_refused():
    labels = [f"{number:05}{'x' * 95}" for number in range(1500)]
    with pytest.raises(Invalid, match="at most 131,072 bytes"):
        check_rules(PolicyRules(review_below_for=dict.fromkeys(labels, 0.5)), labels=labels)


def test_the_refusal_of_an_unknown_label_lists_the_labels_that_exist():
    with pytest.raises(Invalid, match=r"does not exist here: 'absent'\. Labels: common, rare"):
        check_rules(PolicyRules(label_at={"absent": 0.5}), labels=LABELS)
    with pytest.raises(Invalid, match="and 10 more"):
        check_rules(PolicyRules(label_at={"absent": 0.5}), labels=[f"label {number}" for number in range(60)])
