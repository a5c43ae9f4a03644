"""Models as they were: the same as a fold of the whole log, from a bounded number of events."""

from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application import models
from application.history import past_models
from application.history.past_models import EVENTS_PER_CHECKPOINT, PastModels
from domain import dataset, model
from domain.access import Actor, Role
from domain.errors import Forbidden, NotFound
from domain.model import Version
from domain.values import model_id
from infrastructure.eventstore.event_store import RecorderEventStore
from tests.application.conftest import ROOT
from tests.given import NOW, actor, command
from tests.twins.event_store import MemoryRecorder

ADMIN = actor(Role.ADMIN)
VERSIONS = 3


def new_log():
    return RecorderEventStore(MemoryRecorder(ROOT), ROOT)


def with_versions(log, name="shapes"):
    for number in range(VERSIONS):
        version = Version(number=1, sha256=f"{number:064x}", size=1, labels=("a", "b"), review_below=0.5, record="{}")
        models.add_version(name=name, description="", version=version, command=command(ADMIN), log=log)


def move(log, number, alias="production", name="shapes"):
    return models.move_alias(name=name, alias=alias, number=number, reason="better", command=command(ADMIN), log=log).position


def history_of(log, moves):
    """The positions of alternating moves of the alias `production`, with the version that each put there."""
    with_versions(log)
    return {move(log, number): number for number, _ in zip(alternating(), range(moves), strict=False)}


def alternating():
    return (2 + index % 2 for index in count())


class Counted:
    """A log that counts the events that were decoded."""

    def __init__(self, log):
        self._log, self.decoded = log, 0

    def decode(self, recorded):
        self.decoded += 1
        return self._log.decode(recorded)

    def __getattr__(self, name):
        return getattr(self._log, name)


@given(moves=st.lists(st.tuples(st.integers(1, VERSIONS), st.sampled_from(["production", "stable"])), max_size=30), asked=st.data())
def test_a_model_is_at_each_position_what_a_fold_of_the_log_gives(moves, asked):
    log, step = new_log(), past_models.EVENTS_PER_CHECKPOINT
    past_models.EVENTS_PER_CHECKPOINT = 4
    try:
        with_versions(log)
        for number, alias in moves:
            move(log, number, alias)
        past = PastModels(log)
        for until in asked.draw(st.lists(st.integers(1, log.head()), max_size=10)):
            assert past.at("shapes", until=until, actor=ADMIN) == log.load(model_id("shapes"), model.evolve, until=until)
    finally:
        past_models.EVENTS_PER_CHECKPOINT = step


def test_a_long_history_is_not_folded_again_for_each_question():
    log = new_log()
    moved = history_of(log, 5 * EVENTS_PER_CHECKPOINT)
    counted = Counted(log)
    past = PastModels(counted)
    past.at("shapes", until=log.head(), actor=ADMIN)
    whole = counted.decoded
    assert whole > len(moved)
    for position, number in list(moved.items())[:: EVENTS_PER_CHECKPOINT // 2]:
        counted.decoded = 0
        assert past.at("shapes", until=position, actor=ADMIN).aliases["production"] == number
        assert counted.decoded <= EVENTS_PER_CHECKPOINT


def test_what_is_appended_later_is_found():
    log = new_log()
    history_of(log, EVENTS_PER_CHECKPOINT)
    past = PastModels(log)
    before = past.at("shapes", until=log.head(), actor=ADMIN)
    position = move(log, 1)
    assert past.at("shapes", until=position, actor=ADMIN).aliases["production"] == 1
    assert past.at("shapes", until=position - 1, actor=ADMIN) == before


def test_checkpoints_of_another_log_are_not_used():
    log, other = new_log(), new_log()
    history_of(log, EVENTS_PER_CHECKPOINT)
    moved = history_of(other, EVENTS_PER_CHECKPOINT + 1)
    past = PastModels(log)
    past.at("shapes", until=log.head(), actor=ADMIN)
    past._log = other
    for position in (min(moved), max(moved)):
        assert past.at("shapes", until=position, actor=ADMIN) == other.load(model_id("shapes"), model.evolve, until=position)


def test_a_model_is_found_by_its_name_and_its_id_and_only_once_it_exists():
    log = new_log()
    cells = dataset.create(model_id("cells"), name="cells", description=None, by=ADMIN.id, at=NOW)
    log.append(command(ADMIN), cells)
    with_versions(log)
    past = PastModels(log)
    assert past.at("shapes", until=2, actor=ADMIN) == past.at(str(model_id("shapes")), until=2, actor=ADMIN)
    for name, until in (("shapes", 1), ("unknown", 2), ("cells", 2), (str(model_id("cells")), 2), ("\x00", 2), ("", 2)):
        with pytest.raises(NotFound, match="There was no model"):
            past.at(name, until=until, actor=ADMIN)
    with pytest.raises(Forbidden):
        past.at("shapes", until=2, actor=Actor(id=ADMIN.id, kind="service"))


def test_versions_are_shown_with_who_added_them():
    log = new_log()
    with_versions(log)
    uploaded = Version(number=1, sha256="f" * 64, size=1, labels=("a", "b"), review_below=0.5, record="{}", package="e" * 64)
    known = log.load(model_id("shapes"), model.evolve)
    check, later = actor().id, NOW + timedelta(days=1)
    added = {"name": "shapes", "description": "", "version": uploaded, "check": check, "by": ADMIN.id, "at": later}
    log.append(command(ADMIN), *model.add_version(model_id("shapes"), known, **added))
    additions = PastModels(log).at("shapes", until=log.head(), actor=ADMIN).additions
    assert additions[1] == model.Addition(NOW, None)
    assert additions[4] == model.Addition(later, ADMIN.id)
