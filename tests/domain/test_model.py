"""Models: versions and aliases."""

from uuid import uuid4

import msgspec
import pytest

from domain import model, values
from domain.errors import Conflict, NotFound
from tests.given import LATER, NOW, state_after

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
    ],
)
def test_a_version_has_the_unit_that_its_manifest_states(record, unit):
    assert msgspec.structs.replace(version(), record=record).unit == unit
