"""Models: versions and aliases."""

from uuid import uuid4

import msgspec
import pytest

from domain import model, values
from domain.access import Role
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from tests.given import LATER, NOW, actor, state_after

ME = uuid4()
MODEL = values.model_id("pbc8")


def version(sha256="aa"):
    return model.Version(number=0, sha256=sha256, size=1, labels=("a", "b"), review_below=0.5, record="{}")


def test_the_first_version_of_a_model_goes_into_production_and_a_later_one_becomes_the_candidate():
    name = values.model_id("pbc8")
    first = model.add_version(name, None, name="pbc8", description="", version=version(), by=ME, at=NOW)
    state = state_after(model.evolve, first)
    second = model.add_version(name, state, name="pbc8", description="", version=version("bb"), by=ME, at=LATER)
    both = state_after(model.evolve, [*first, *second])
    assert (both.production.sha256, both.numbered(both.aliases["candidate"]).sha256) == ("aa", "bb")
    assert model.add_version(name, state, name="pbc8", description="", version=version(), by=ME, at=LATER) == []


def a_model(versions=("aa",)):
    state = None
    for sha256 in versions:
        for event in model.add_version(MODEL, state, name="pbc8", description="", version=version(sha256), by=ME, at=NOW):
            state = model.evolve(state, event)
    return state


def test_a_model_has_a_limited_number_of_versions():
    full = a_model([f"{number:02x}" for number in range(model.MAX_VERSIONS)])
    about = {"name": "pbc8", "description": "", "by": ME, "at": LATER}
    with pytest.raises(Invalid, match=f"at most {model.MAX_VERSIONS}: give the model another name"):
        model.add_version(MODEL, full, version=version("new"), **about)
    assert model.add_version(MODEL, full, version=version("00"), **about) == [], "a known version"


def test_an_alias_moves_once_to_a_version_that_exists():
    both = a_model(("aa", "bb"))
    moved = model.move_alias(both, alias="production", number=2, by=ME, at=LATER)
    after = state_of(both, moved)
    assert after.aliases == {"production": 2}, "a version in production is no candidate any more"
    assert model.move_alias(after, alias="production", number=2, by=ME, at=LATER) == []
    with pytest.raises(NotFound):
        model.move_alias(both, alias="production", number=3, by=ME, at=LATER)


def test_a_model_is_retired_once_and_keeps_its_versions():
    retired = model.evolve(a_model(), model.retire(a_model(), by=ME, at=LATER))
    assert (retired.retired, len(retired.versions)) == (True, 1)
    with pytest.raises(Conflict):
        model.retire(retired, by=ME, at=LATER)


def state_of(state, events):
    for event in events:
        state = model.evolve(state, event)
    return state


@pytest.mark.parametrize(
    ("record", "unit"),
    [
        ('{"config": {"bioscope": {"output": {"kind": "regression", "unit": "cells"}}}}', "cells"),
        ('{"config": {"bioscope": {"output": {"unit": null}}}}', ""),
        ('{"config": {"bioscope": {"output": null}}}', ""),
        ('{"config": {"bioscope": {"output": {"unit": 7}}}}', ""),
        ("{}", ""),
        ("[", ""),
        ('{"other": %s}' % ("[" * 100_000 + "]" * 100_000), ""),
    ],
    ids=range(7),
)
def test_a_version_has_the_unit_that_its_manifest_states(record, unit):
    assert msgspec.structs.replace(version(), record=record).unit == unit


@pytest.mark.parametrize(
    ("record", "kind", "threshold"),
    [
        ('{"config": {"bioscope": {"output": {"threshold": 0.7}}}}', "multi_label", 0.7),
        ("{}", "multi_label", 0.5),
        ('{"config": {"bioscope": {"output": {"threshold": 0.7}}}}', "softmax", None),
    ],
)
def test_a_version_has_a_threshold_if_several_of_its_labels_may_apply(record, kind, threshold):
    assert msgspec.structs.replace(version(), record=record, kind=model.OutputKind(kind)).label_threshold == threshold


# ---- the version of a job ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("wanted", "number"), [("production", 1), ("candidate", 2), ("1", 1), ("2", 2), ("02", 2)])
def test_a_version_is_selected_by_number_or_alias(wanted, number):
    assert model.select_version(a_model(("aa", "bb")), wanted).number == number


@pytest.mark.parametrize("wanted", ["3", "0", "-1", "9" * 30, "1.0", "stable", "Production", "", " 1", "\u0661"])
def test_a_name_of_no_version_is_refused_with_those_that_exist(wanted):
    with pytest.raises(Invalid, match=r"Versions: 1, 2\. Aliases: candidate \(version 2\), production \(version 1\)") as refused:
        model.select_version(a_model(("aa", "bb")), wanted)
    assert refused.value.errors[0]["loc"] == ["body", "model_version"]


def test_a_model_without_a_version_in_production_says_what_to_do():
    added = model.add_version(MODEL, None, name="pbc8", description="", version=version(), alias="candidate", by=ME, at=NOW)
    with_candidate = msgspec.structs.replace(state_after(model.evolve, added), aliases={"candidate": 1})
    with pytest.raises(Invalid, match=r"no version in production.*candidate \(version 1\).*ask an administrator or a promoter"):
        model.select_version(with_candidate, "production")


def test_only_researchers_run_a_version_that_is_not_in_production():
    both = a_model(("aa", "bb"))
    in_production, candidate = both.versions
    for role in (Role.ANALYST, Role.RESEARCHER, Role.ADMIN):
        model.require_runner(both, in_production, actor(role))
    for runner in (actor(Role.RESEARCHER), actor(Role.ADMIN), actor(None, kind="system")):
        model.require_runner(both, candidate, runner)
    for runner in (actor(Role.VIEWER), actor(Role.ANALYST), actor(None, kind="service")):
        with pytest.raises(Forbidden, match="Version 2 of the model pbc8 is not in production"):
            model.require_runner(both, candidate, runner)
