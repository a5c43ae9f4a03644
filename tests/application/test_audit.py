"""The audit trail of one thing, and its state at an earlier position."""

from uuid import uuid4

import msgspec
import pytest

from application.history.audit import state_of, trail
from domain import classification, dataset
from domain.access import Grant, Role
from domain.dataset import DatasetCreated, DatasetDescribed, DatasetShared
from domain.errors import NotFound, UpgradeNeeded
from domain.values import chunk_id
from tests.older_release import without
from tests.rigs.scenario import Scenario


@pytest.fixture
def scenario(log):
    return Scenario(log, None)


@pytest.fixture
def ada(scenario):
    return scenario.user(name="ada")


@pytest.fixture
def cells(scenario, ada):
    return scenario.dataset(ada)


def types(entries):
    return [entry.type for entry in entries]


def test_a_trail_names_each_event_of_a_thing_with_its_actor(log, scenario, ada, cells):
    bob = scenario.user(name="bob")
    scenario.share(ada, cells, bob, Grant.VIEWER)
    entries = trail(cells, others=[], log=log)
    assert types(entries) == [DatasetCreated.__name__, DatasetShared.__name__]
    assert [(entry.stream, entry.version) for entry in entries] == [(cells, 1), (cells, 2)]
    assert {entry.actor["id"] for entry in entries} == {str(ada.id)}
    assert entries[-1].sentence == "ada Lab shared the dataset cells with bob Lab as viewer"
    assert entries[-1].data.user_id == bob.id


def test_events_of_other_streams_stand_at_their_places_in_the_log(log, scenario, ada, cells):
    scenario.image(ada, cells)
    uploaded = log.head()
    scenario.share(ada, cells, scenario.user(Role.VIEWER, "eve"), Grant.VIEWER)
    assert types(trail(cells, others=[uploaded], log=log)) == ["DatasetCreated", "ImageUploaded", "DatasetShared"]


def test_a_trail_comes_in_pages(log, scenario, ada, cells):
    scenario.share(ada, cells, scenario.user(name="bob"), Grant.VIEWER)
    whole = trail(cells, others=[], log=log)
    (first,) = trail(cells, others=[], log=log, maximum=1)
    assert [first, *trail(cells, others=[], log=log, after=first.position)] == whole
    assert trail(cells, others=[], log=log, after=whole[-1].position) == []


def test_the_trail_of_an_unknown_thing_is_not_found(log, cells):
    with pytest.raises(NotFound):
        trail(uuid4(), others=[], log=log)


def test_an_event_of_a_newer_release_is_shown_as_it_is_stored(log, cells):
    with without("DatasetCreated"):
        (entry,) = trail(cells, others=[], log=log)
        with pytest.raises(UpgradeNeeded):
            state_of(cells, until=log.head(), log=log)
    assert entry.type == DatasetCreated.__name__
    assert entry.data.keys() > {"name", "owner_id"}
    assert "cells" not in msgspec.json.encode(entry.data).decode(), "private fields stay sealed"


def test_a_state_is_that_of_the_position(log, scenario, ada, cells):
    created = log.head()
    scenario.change(cells, dataset, lambda it: dataset.describe(it, name="blood cells", by=ada.id, at=scenario.now))
    assert types(trail(cells, others=[], log=log))[-1] == DatasetDescribed.__name__
    assert [state_of(cells, until=until, log=log).name for until in (created, log.head())] == ["cells", "blood cells"]


def test_what_did_not_exist_yet_and_a_chunk_have_no_state(log, scenario, ada, cells):
    scenario.model()
    job = scenario.job(ada, image=scenario.image(ada, cells))
    scenario.judge(job, 0, [log.load(job, classification.evolve).image_id])
    with pytest.raises(NotFound, match="at that time"):
        state_of(cells, until=log.history(cells)[0].position - 1, log=log)
    with pytest.raises(NotFound, match="chunk of a job"):
        state_of(chunk_id(job, 0), until=log.head(), log=log)
