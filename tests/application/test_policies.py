"""Policies: who may set them, what is refused, and which one was in force when."""

from uuid import uuid4

import pytest

from application import classifications, policies
from application.policies import StoredAnswer
from domain import policy
from domain.access import Grant, Role
from domain.classification import Verdict
from domain.derivation import Answer
from domain.errors import Conflict, Forbidden, Invalid, NotFound, VersionMismatch
from domain.model import OutputKind
from domain.policy import PolicyRules, PolicyScope, policy_id
from domain.values import model_id
from tests.given import add_model, command
from tests.rigs.scenario import Scenario

JOB, DATASET, MODEL = PolicyScope.JOB, PolicyScope.DATASET, PolicyScope.MODEL
RULES = PolicyRules(review_below=0.8)
SHAPES = model_id("shapes")


@pytest.fixture
def scenario(log):
    return Scenario(log, None)


@pytest.fixture
def ada(scenario):
    scenario.model()
    return scenario.user(name="ada")


@pytest.fixture
def cells(scenario, ada):
    return scenario.dataset(ada, "cells")


@pytest.fixture
def job(scenario, ada, cells):
    return scenario.job(ada, dataset=cells)


@pytest.fixture
def set_policy(log):
    def set_policy(scope, target, *, by, rules=RULES, reason="Too many false alarms", expected=None):
        asked = {"rules": rules, "reason": reason, "known_models": ["shapes"], "expected": expected}
        return policies.set_policy(scope, target, **asked, command=command(by), log=log)

    return set_policy


@pytest.fixture
def withdraw(log):
    def withdraw(scope, target, *, by, expected=None):
        return policies.withdraw(scope, target, reason="Not needed", expected=expected, command=command(by), log=log)

    return withdraw


def test_equal_rules_change_nothing_and_if_match_is_the_version_of_the_policy(ada, job, set_policy):
    first = set_policy(JOB, job, by=ada)
    assert (first.id, first.version) == (policy_id(JOB, job), 1)
    again = set_policy(JOB, job, by=ada, reason="Once more")
    assert (again.version, again.position) == (1, 0)
    with pytest.raises(VersionMismatch):
        set_policy(JOB, job, by=ada, rules=PolicyRules(review_below=0.9), expected=2)
    assert set_policy(JOB, job, by=ada, rules=PolicyRules(review_below=0.9), expected=1).version == 2


def test_editors_with_the_role_researcher_set_policies_of_a_job_and_its_dataset(scenario, ada, cells, job, set_policy, withdraw):
    bob, eve, zoe = scenario.user(name="bob"), scenario.user(Role.ANALYST, name="eve"), scenario.user(name="zoe")
    scenario.share(ada, cells, bob, Grant.ANALYST)
    scenario.share(ada, cells, eve, Grant.EDITOR)
    for scope, target in ((JOB, job), (DATASET, cells)):
        for act in (set_policy, withdraw):
            with pytest.raises(Forbidden):
                act(scope, target, by=bob)
            with pytest.raises(Forbidden):
                act(scope, target, by=eve)
            with pytest.raises(NotFound):
                act(scope, target, by=zoe)
    scenario.share(ada, cells, bob, Grant.EDITOR)
    for scope, target in ((JOB, job), (DATASET, cells)):
        assert set_policy(scope, target, by=bob).position
        assert withdraw(scope, target, by=bob).position


def test_administrators_and_promoters_set_the_policy_of_a_model(scenario, ada, set_policy):
    with pytest.raises(Forbidden):
        set_policy(MODEL, SHAPES, by=ada)
    assert set_policy(MODEL, SHAPES, by=scenario.user(Role.ADMIN, name="root")).position


@pytest.mark.parametrize("scope", list(PolicyScope))
def test_a_policy_of_nothing_is_not_found(scenario, scope, set_policy, log):
    admin = scenario.user(Role.ADMIN, name="root")
    with pytest.raises(NotFound):
        set_policy(scope, uuid4(), by=admin)
    with pytest.raises(NotFound):
        set_policy(scope, admin.id, by=admin)
    with pytest.raises(NotFound):
        policies.history(scope, uuid4(), actor=admin, log=log)


def test_a_deleted_job_or_dataset_gets_no_policy(scenario, ada, cells, job, set_policy):
    scenario.delete_job(ada, job)
    with pytest.raises(NotFound):
        set_policy(JOB, job, by=ada)
    scenario.delete_dataset(ada, cells)
    with pytest.raises(NotFound):
        set_policy(DATASET, cells, by=ada)


def test_a_job_that_is_deleted_meanwhile_gets_no_policy(scenario, ada, job, set_policy, log):
    append = log.append

    def deleted_before(given, *events, **beside):
        log.append = append
        scenario.delete_job(ada, job)
        return append(given, *events, **beside)

    log.append = deleted_before
    with pytest.raises(NotFound, match="in the meantime"):
        set_policy(JOB, job, by=ada)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"label_at": {"square": 0.2}}, "does not exist here: 'square'. Labels: flat, round"),
        ({"review_below_for": {"square": 0.2}}, "Labels: flat, round"),
        ({"applies_at": 0.2}, "use label_at"),
        ({"review_outside": (0, 1)}, "gives a number"),
        ({}, "at least one rule"),
    ],
)
def test_rules_that_no_result_could_follow_are_refused(ada, cells, job, rules, message, set_policy):
    for scope, target in ((JOB, job), (DATASET, cells)):
        with pytest.raises(Invalid, match=message):
            set_policy(scope, target, by=ada, rules=PolicyRules(**rules))


def test_a_confidence_is_no_rule_for_a_model_that_gives_a_number(scenario, log, set_policy):
    admin, count = scenario.user(Role.ADMIN, name="eve"), model_id("count")
    about = {"sha256": "b" * 64, "size": 1, "review_below": 0.0, "record": "{}", "kind": OutputKind.REGRESSION, "digest": "b" * 64}
    add_model(name="count", labels=("cells",), **about, command=command(admin), log=log)
    for rules in ({"review_below": 0.0}, {"review_below_for": {"cells": 0.5}}):
        with pytest.raises(Invalid, match="use review_outside"):
            set_policy(MODEL, count, by=admin, rules=PolicyRules(**rules))
    assert set_policy(MODEL, count, by=admin, rules=PolicyRules(review_outside=(1.0, 8.0))).position


def test_rules_are_checked_before_they_are_set_with_the_same_rights(scenario, log, ada, cells, job):
    bob = scenario.user(name="bob")
    scenario.share(ada, cells, bob, Grant.ANALYST)
    asked = {"rules": RULES, "known_models": ["shapes"], "log": log}
    assert policies.check(JOB, job, actor=ada, **asked).labels == {"round", "flat"}
    with pytest.raises(Forbidden):
        policies.check(JOB, job, actor=bob, **asked)
    with pytest.raises(Invalid):
        policies.check(JOB, job, actor=ada, **asked | {"rules": PolicyRules()})


def test_label_at_is_refused_where_labels_can_apply_together(scenario, log, set_policy):
    admin = scenario.user(Role.ADMIN, name="root")
    about = {"sha256": "b" * 64, "size": 1, "review_below": 0.5, "record": "{}", "kind": OutputKind.MULTI_LABEL, "digest": "b" * 64}
    add_model(name="marks", labels=("ring", "none"), **about, command=command(admin), log=log)
    with pytest.raises(Invalid, match="use applies_at"):
        set_policy(MODEL, model_id("marks"), by=admin, rules=PolicyRules(label_at={"ring": 0.2}))
    assert set_policy(MODEL, model_id("marks"), by=admin, rules=PolicyRules(applies_at=0.2)).position


def test_a_policy_is_withdrawn_once(ada, job, set_policy, withdraw):
    with pytest.raises(NotFound):
        withdraw(JOB, job, by=ada)
    set_policy(JOB, job, by=ada)
    with pytest.raises(VersionMismatch):
        withdraw(JOB, job, by=ada, expected=2)
    assert withdraw(JOB, job, by=ada, expected=1).version == 2
    with pytest.raises(Conflict):
        withdraw(JOB, job, by=ada)


def test_the_history_tells_which_rules_were_in_force_when_and_why(log, ada, job, set_policy, withdraw):
    first, last = set_policy(JOB, job, by=ada).position, withdraw(JOB, job, by=ada).position
    changes = policies.history(JOB, job, actor=ada, log=log)
    assert [(one.position, one.rules, one.reason) for one in changes] == [
        (first, RULES, "Too many false alarms"),
        (last, None, "Not needed"),
    ]
    assert [one.position for one in policies.history(JOB, job, until=first, actor=ada, log=log)] == [first]
    assert [one.position for one in policies.history(JOB, job, after=first, actor=ada, log=log)] == [last]
    assert policies.policy_at(JOB, job, until=first, actor=ada, log=log).rules == RULES
    assert policies.policy_at(JOB, job, until=last, actor=ada, log=log).rules is None
    with pytest.raises(NotFound):
        policies.policy_at(JOB, job, until=first - 1, actor=ada, log=log)


def test_only_readers_of_the_dataset_read_the_history(scenario, log, job, ada, set_policy):
    set_policy(JOB, job, by=ada)
    with pytest.raises(NotFound):
        policies.history(JOB, job, actor=scenario.user(name="zoe"), log=log)


def test_the_policy_of_the_job_precedes_that_of_the_dataset_and_this_one_that_of_the_model(
    scenario, log, ada, cells, job, set_policy, withdraw
):
    admin = scenario.user(Role.ADMIN, name="root")

    def in_force():
        found = policies.policy_in_force(job, cells, SHAPES, until=log.head(), log=log)
        return found and found.scope

    assert in_force() is None
    for scope, target in ((MODEL, SHAPES), (DATASET, cells), (JOB, job)):
        set_policy(scope, target, by=admin)
        assert in_force() is scope
    for scope, target, then in ((JOB, job, DATASET), (DATASET, cells, MODEL), (MODEL, SHAPES, None)):
        withdraw(scope, target, by=admin)
        assert in_force() is then


def test_an_answer_is_derived_under_the_policy_of_any_time(scenario, log, ada, cells, job, set_policy):
    image = scenario.image(ada, cells)
    scenario.plan(job, [image])
    scenario.judge(job, 0, [image], confidence=0.75)
    said = Answer("round", 0.75, Verdict.CLEAR)
    scores = {"round": 0.75, "flat": 0.25}
    result = StoredAnswer(
        job=job, dataset=cells, model_name="shapes", model_version=1, position=log.head(), answer=said, scores=scores, value=None
    )
    strict = set_policy(JOB, job, by=ada).position
    flat = set_policy(JOB, job, by=ada, rules=PolicyRules(label_at={"flat": 0.2}, review_below=0.1)).position
    assert policies.answer_at(result, until=result.position, log=log) == (said, None)
    answer, found = policies.answer_at(result, until=strict, log=log)
    assert (answer.verdict, found.rules) == (Verdict.NEEDS_REVIEW, RULES)
    chosen, found = policies.answer_at(result, until=flat, log=log)
    assert chosen == Answer("flat", 0.25, Verdict.CLEAR)
    assert policies.labels_under(result, chosen, found, log=log) == ("flat",)
    with pytest.raises(NotFound):
        policies.answer_at(result, until=result.position - 1, log=log)


def test_a_policy_of_a_hidden_job_is_read_by_nobody(scenario, log, ada, job, set_policy):
    set_policy(JOB, job, by=ada)
    classifications.delete(job, command=command(ada), log=log)
    assert log.load(policy_id(JOB, job), policy.evolve).rules == RULES
    with pytest.raises(NotFound):
        classifications.readable_job(log, job, ada, Grant.VIEWER)
    with pytest.raises(NotFound):
        policies.history(JOB, job, actor=ada, log=log)
