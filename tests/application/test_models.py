"""Models: versions are added, and go into production."""

from uuid import uuid4

import pytest

from application import model_checks, models
from domain import model
from domain.access import Role
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.model import Version
from domain.values import model_id
from tests.given import actor, add_model, command
from tests.rigs.scenario import Scenario

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


SHAPES_ID = str(model_id("shapes"))


@pytest.mark.parametrize("name", [SHAPES_ID, SHAPES_ID.replace("-", ""), f"{{{SHAPES_ID}}}", SHAPES_ID.upper()])
def test_the_name_of_a_model_is_not_the_id_of_another_one(log, add, name):
    add()
    with pytest.raises(Invalid, match="must not look like an id"):
        add("b" * 64, name=name)
    assert log.load(model_id(name), model.evolve) is None


def test_only_administrators_add_versions_and_promote_them_unless_they_are_promoters(log, add):
    with pytest.raises(Forbidden):
        add(by=actor())
    add()
    with pytest.raises(Forbidden, match="right to promote versions of the model shapes"):
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


# ---- promoters -----------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def ada(log):
    return Scenario(log, None).user()


@pytest.fixture
def promoter(log, ada, add):
    """Ada, who may promote one of two versions."""
    add()
    add("b" * 64)
    models.add_promoter(name="shapes", user_id=ada.id, command=command(ADMIN), log=log)
    return ada


def test_a_promoter_moves_aliases_and_retires_the_model(log, promoter):
    assert models.move_alias(alias="production", name="shapes", number=2, reason="Better", command=command(promoter), log=log).position
    assert state(log).aliases == {"production": 2}
    assert models.retire(name="shapes", reason="Replaced", command=command(promoter), log=log).position
    assert state(log).retired


def test_a_promoter_of_one_model_promotes_no_other(log, promoter):
    add_model(sha256="c" * 64, **SHAPES | {"name": "others"}, command=command(ADMIN), log=log)
    with pytest.raises(Forbidden):
        models.move_alias(alias="production", name="others", number=1, command=command(promoter), log=log)
    with pytest.raises(Forbidden):
        models.retire(name="others", reason=None, command=command(promoter), log=log)


def test_a_promoter_who_was_removed_promotes_no_more(log, promoter):
    assert models.remove_promoter(name="shapes", user_id=promoter.id, command=command(ADMIN), log=log).position
    assert models.remove_promoter(name="shapes", user_id=promoter.id, command=command(ADMIN), log=log).position == 0
    with pytest.raises(Forbidden):
        models.move_alias(alias="production", name="shapes", number=2, command=command(promoter), log=log)


def test_only_administrators_choose_promoters(log, promoter):
    for change in (models.add_promoter, models.remove_promoter):
        with pytest.raises(Forbidden):
            change(name="shapes", user_id=promoter.id, command=command(promoter), log=log)


def test_promoters_are_users_of_models_that_exist(log, ada, add):
    add()
    for name, user_id in (("shapes", uuid4()), ("unknown", ada.id)):
        with pytest.raises(NotFound):
            models.add_promoter(name=name, user_id=user_id, command=command(ADMIN), log=log)
    with pytest.raises(NotFound):
        models.remove_promoter(name="unknown", user_id=ada.id, command=command(ADMIN), log=log)


# ---- retirement, history and the past ------------------------------------------------------------------------------------------------
def test_nothing_of_a_retired_model_changes(log, ada, add):
    add()
    models.retire(name="shapes", reason="Replaced", command=command(ADMIN), log=log)
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
    with pytest.raises(NotFound):
        models.retire(name="unknown", reason=None, command=command(ADMIN), log=log)


@pytest.mark.parametrize("reason", ["", " ", "a" * 1001, "a\x00b"])
def test_a_reason_is_a_text_of_at_most_1000_characters(log, add, reason):
    add()
    add("b" * 64)
    with pytest.raises(Invalid):
        models.move_alias(alias="production", name="shapes", number=2, reason=reason, command=command(ADMIN), log=log)
    with pytest.raises(Invalid):
        models.retire(name="shapes", reason=reason, command=command(ADMIN), log=log)
    assert state(log).aliases == {"production": 1, "candidate": 2}


def test_the_history_of_a_model_says_who_changed_what_and_why(log, promoter):
    models.move_alias(alias="production", name="shapes", number=2, reason="Better", command=command(promoter), log=log)
    models.retire(name="shapes", reason="Replaced", command=command(promoter), log=log)
    changes = models.history("shapes", actor=actor(Role.VIEWER), log=log)
    assert [(one.type, one.number, one.alias, one.user_id, one.reason) for one in changes] == [
        ("ModelVersionAdded", 1, None, None, None),
        ("ModelAliasMoved", 1, "production", None, None),
        ("ModelVersionAdded", 2, None, None, None),
        ("ModelAliasMoved", 2, "candidate", None, None),
        ("ModelPromoterAdded", None, None, promoter.id, None),
        ("ModelAliasMoved", 2, "production", None, "Better"),
        ("ModelRetired", None, None, None, "Replaced"),
    ]
    assert [one.by for one in changes] == [ADMIN.id] * 5 + [promoter.id] * 2
    with pytest.raises(NotFound):
        models.history("unknown", actor=ADMIN, log=log)
    with pytest.raises(Forbidden):
        models.history("shapes", actor=actor(None), log=log)


def test_a_retired_model_is_still_found(log, add):
    with pytest.raises(NotFound, match="Model shapes not found"):
        models.load_model("shapes", log=log)
    add()
    models.retire(name="shapes", reason="Replaced", command=command(ADMIN), log=log)
    assert models.load_model("shapes", log=log) == state(log)


def test_a_history_comes_in_pages(log, add):
    add()
    add("b" * 64)
    whole = models.history("shapes", actor=ADMIN, log=log)
    first = models.history("shapes", maximum=3, actor=ADMIN, log=log)
    assert len(first) == 3
    assert [*first, *models.history("shapes", after=first[-1].position, actor=ADMIN, log=log)] == whole
    assert models.history("shapes", after=whole[-1].position, actor=ADMIN, log=log) == []


# ---- external classifiers -------------------------------------------------------------------------------------------------------------
VESICLES = {"name": "vesicles", "description": "", "labels": ("round", "flat"), "label_texts": {}, "review_below": 0.5}


def declare(log, *, by=None, **changes):
    return models.add_external(**VESICLES | changes, command=command(by), log=log)


def vesicles(log):
    return log.load(model_id("vesicles"), model.evolve)


def test_a_declared_version_is_the_candidate_of_its_model_and_an_equal_declaration_is_the_same_version(log):
    first = declare(log)
    assert (first.version, declare(log).position) == (2, 0)
    declare(log, review_below=0.7)
    assert (vesicles(log).numbers, vesicles(log).aliases) == ({1, 2}, {"candidate": 2})


def test_a_declaration_has_as_many_labels_as_any_version_unless_their_words_would_fit_no_event(log):
    labels = [f"{number:x>100}" for number in range(model.MAX_LABELS)]
    declare(log, labels=labels)
    assert len(vesicles(log).numbered(1).labels) == model.MAX_LABELS
    with pytest.raises(Invalid, match="labels must have at most 204,800 bytes"):
        declare(log, labels=labels, label_texts=dict.fromkeys(labels, "x" * 200))
    with pytest.raises(Invalid, match="1 to 300 different names"):
        declare(log, labels=[*labels, "one more"])


def test_an_analyst_declares_no_classifier(log):
    with pytest.raises(Forbidden):
        declare(log, by=actor(Role.ANALYST))
    assert vesicles(log) is None


def test_a_retired_model_gets_no_declared_version(log):
    declare(log)
    models.retire(name="vesicles", reason=None, command=command(ADMIN), log=log)
    with pytest.raises(Conflict, match="retired: choose another name"):
        declare(log, review_below=0.7)


def test_a_model_that_the_system_runs_gets_no_declared_version(log, add):
    add()
    with pytest.raises(Conflict, match="shapes has versions that this system runs itself: give the external classifier another name"):
        declare(log, name="shapes")
    assert [version.number for version in state(log).versions] == [1]


def test_a_declared_version_is_not_tested(log):
    declare(log)
    with pytest.raises(Conflict, match="is an external classifier: it has no package that could be tested"):
        model_checks.request_test(name="vesicles", number=1, command=command(), log=log)
