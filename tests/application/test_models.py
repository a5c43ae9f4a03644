"""Models: versions are added, and go into production."""

import pytest

from application import models
from domain import model, user
from domain.access import Role
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.model import Version
from domain.values import model_id
from tests.given import NOW, actor, command

ADMIN = actor(Role.ADMIN)
SHAPES = {"name": "shapes", "description": "Round or flat", "size": 10, "labels": ("round", "flat"), "review_below": 0.5, "record": "{}"}


@pytest.fixture
def add(log):
    def add(sha256="a" * 64, *, by=ADMIN, **changes):
        about = SHAPES | {"sha256": sha256} | changes
        name, description = about.pop("name"), about.pop("description")
        version = Version(number=1, **about)
        return models.add_version(name=name, description=description, version=version, command=command(by), log=log)

    return add


def registered(log):
    """Somebody with an account, and no right but that of a viewer."""
    ada = actor(Role.VIEWER)
    names = {"email": "ada@example.org", "username": "ada", "first_name": "Ada", "last_name": "Byron"}
    log.append(command(ada), user.register(ada.id, **names, role=Role.VIEWER, by=ada.id, at=NOW))
    return ada


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


def test_only_administrators_add_versions_and_promoters(log, add):
    with pytest.raises(Forbidden):
        add(by=actor())
    add()
    for change in (models.add_promoter, models.remove_promoter):
        with pytest.raises(Forbidden):
            change(name="shapes", user_id=ADMIN.id, command=command(), log=log)


def test_administrators_and_promoters_of_the_model_move_aliases_and_retire(log, add):
    ada = registered(log)
    add()
    moved = {"name": "shapes", "alias": "stable", "number": 1, "reason": "Validated", "log": log}
    with pytest.raises(Forbidden, match="right to promote versions of the model shapes"):
        models.move_alias(**moved, command=command(ada))
    models.add_promoter(name="shapes", user_id=ada.id, command=command(ADMIN), log=log)
    models.move_alias(**moved, command=command(ada))
    models.remove_promoter(name="shapes", user_id=ada.id, command=command(ADMIN), log=log)
    with pytest.raises(Forbidden):
        models.retire(name="shapes", reason="Old", command=command(ada), log=log)
    models.retire(name="shapes", reason="Old", command=command(ADMIN), log=log)
    changes = models.history("shapes", maximum=10, actor=ada, log=log)
    assert [(one.type, one.by, one.reason) for one in changes[2:]] == [
        ("ModelPromoterAdded", ADMIN.id, None),
        ("ModelAliasMoved", ada.id, "Validated"),
        ("ModelPromoterRemoved", ADMIN.id, None),
        ("ModelRetired", ADMIN.id, "Old"),
    ]


def test_a_promoter_is_an_account_that_exists(log, add):
    add()
    with pytest.raises(NotFound, match="User not found"):
        models.add_promoter(name="shapes", user_id=ADMIN.id, command=command(ADMIN), log=log)


def test_nothing_of_a_retired_model_changes(log, add):
    ada = registered(log)
    add()
    models.retire(name="shapes", reason="Old", command=command(ADMIN), log=log)
    given = {"name": "shapes", "command": command(ADMIN), "log": log}
    for change in (
        lambda: models.move_alias(alias="production", number=1, **given),
        lambda: models.retire(reason="Again", **given),
        lambda: models.add_promoter(user_id=ada.id, **given),
        lambda: models.remove_promoter(user_id=ada.id, **given),
    ):
        with pytest.raises(Conflict, match="Model shapes is retired"):
            change()
    assert state(log).version == 3


@pytest.mark.parametrize("reason", ["", " ", "x" * 1001, "a\x00b"])
def test_a_reason_is_a_text_of_1_to_1000_characters(log, add, reason):
    add()
    with pytest.raises(Invalid, match="reason"):
        models.retire(name="shapes", reason=reason, command=command(ADMIN), log=log)


def test_a_history_comes_in_pages(log, add):
    add()
    for sha256 in ("b", "c"):
        add(sha256 * 64)
    whole = models.history("shapes", maximum=10, actor=ADMIN, log=log)
    assert [(one.number, one.alias) for one in whole] == [
        (1, None), (1, "production"), (2, None), (2, "candidate"), (3, None), (3, "candidate"),
    ]  # fmt: skip
    first = models.history("shapes", maximum=2, actor=ADMIN, log=log)
    assert [*first, *models.history("shapes", after=first[-1].position, maximum=10, actor=ADMIN, log=log)] == whole
    assert models.history("shapes", after=whole[-1].position, maximum=10, actor=ADMIN, log=log) == []
    with pytest.raises(NotFound):
        models.history("unknown", maximum=10, actor=ADMIN, log=log)


def test_a_version_is_promoted_once(log, add):
    add()
    add("b" * 64)
    assert models.move_alias(alias="production", name="shapes", number=2, command=command(ADMIN), log=log).position
    assert state(log).aliases == {"production": 2}
    assert models.move_alias(alias="production", name="shapes", number=2, command=command(ADMIN), log=log).position == 0
    for name, number in (("shapes", 3), ("unknown", 1)):
        with pytest.raises(NotFound):
            models.move_alias(alias="production", name=name, number=number, command=command(ADMIN), log=log)


def test_a_promoter_of_one_model_promotes_no_other(log, add):
    ada = registered(log)
    add()
    add(name="others")
    models.add_promoter(name="shapes", user_id=ada.id, command=command(ADMIN), log=log)
    for refused in (
        lambda: models.move_alias(name="others", alias="stable", number=1, command=command(ada), log=log),
        lambda: models.retire(name="others", reason=None, command=command(ada), log=log),
    ):
        with pytest.raises(Forbidden):
            refused()
