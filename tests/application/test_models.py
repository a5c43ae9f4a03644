"""Models: versions are added, and go into production."""

import pytest

from application import models
from domain import model
from domain.access import Role
from domain.errors import Forbidden, Invalid, NotFound
from domain.values import model_id
from tests.given import actor, add_model, command

ADMIN = actor(Role.ADMIN)
SHAPES = {"name": "shapes", "description": "Round or flat", "size": 10, "labels": ("round", "flat"), "review_below": 0.5, "record": "{}"}


@pytest.fixture
def add(log):
    def add(sha256="a" * 64, *, by=ADMIN, **changes):
        return add_model(sha256=sha256, **SHAPES | changes, command=command(by), log=log)

    return add


def state(log):
    return log.load(model_id("shapes"), model.evolve)


def test_the_first_version_goes_into_production_and_a_later_one_is_the_candidate(log, add):
    assert [add().version, add("b" * 64).version] == [2, 4]
    assert state(log).aliases == {"production": 1, "candidate": 2}
    assert state(log).production.sha256 == "a" * 64


def test_the_same_weights_and_record_are_one_version(log, add):
    first = add()
    again = add()
    assert (again.id, again.version, again.position) == (first.id, 2, 0)
    assert add(record='{"a": 1}').position
    assert len(state(log).versions) == 2


def test_two_versions_that_are_added_at_once_are_both_added(log, add):
    append, others = log.append, ["b" * 64]

    def another_before(given, *events, **beside):
        if others:
            add(others.pop())
        return append(given, *events, **beside)

    log.append = another_before
    add()
    assert [version.sha256 for version in state(log).versions] == ["b" * 64, "a" * 64]


@pytest.mark.parametrize(
    "wrong", [{"sha256": "a"}, {"labels": ()}, {"labels": ("round", "round")}, {"labels": (" round",)}, {"review_below": 1.5}, {"name": ""}]
)
def test_a_version_that_breaks_a_rule_is_refused(add, wrong):
    with pytest.raises(Invalid):
        add(**wrong)


def test_only_administrators_add_and_promote_versions(log, add):
    with pytest.raises(Forbidden):
        add(by=actor())
    with pytest.raises(Forbidden):
        models.move_alias(alias="production", name="shapes", number=1, command=command(), log=log)


def test_a_version_is_promoted_once(log, add):
    add()
    add("b" * 64)
    assert models.move_alias(alias="production", name="shapes", number=2, command=command(ADMIN), log=log).position
    assert state(log).aliases == {"production": 2}
    assert models.move_alias(alias="production", name="shapes", number=2, command=command(ADMIN), log=log).position == 0
    for name, number in (("shapes", 3), ("unknown", 1)):
        with pytest.raises(NotFound):
            models.move_alias(alias="production", name=name, number=number, command=command(ADMIN), log=log)
