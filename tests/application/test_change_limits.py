"""The limit of changes to one stream."""

import os
from uuid import uuid4

import pytest

from application import datasets
from application.limits.change_limits import ChangeLimit
from domain import dataset
from domain.access import Role
from domain.errors import NotFound, TooMany, VersionMismatch
from domain.values import system_actor
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.given import actor, command
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(os.urandom(32))
ADA, BOB = actor(Role.ADMIN), actor(Role.ADMIN)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return RecorderEventStore(MemoryRecorder(ROOT), ROOT, changes=ChangeLimit(limits=LocalRateLimiter(clock=clock), per_minute=3))


def created(log, by=ADA):
    return datasets.create(name="cells", description=None, command=command(by), log=log).id


def renamed(log, dataset_id, name, by=ADA, **more):
    return datasets.describe(dataset_id, name=name, command=command(by), log=log, **more)


def test_of_everybodys_changes_to_one_thing_a_minute_takes_so_many(log, clock):
    cells = created(log)
    for number, by in enumerate((ADA, BOB, ADA)):
        renamed(log, cells, f"cells {number}", by)
    head = log.head()
    with pytest.raises(TooMany, match="This was changed 3 times within a minute; try again in 60 s") as refused:
        renamed(log, cells, "cells 3", BOB)
    assert refused.value.retry_after == 60
    assert log.head() == head
    clock.now = 60
    assert renamed(log, cells, "cells 3", BOB).version == 5


def test_new_things_and_other_things_are_not_limited(log):
    versions = [renamed(log, created(log), "other").version for _ in range(10)]
    assert versions == [2] * 10


def test_what_fails_or_changes_nothing_does_not_count(log):
    cells = created(log)
    for _ in range(10):
        renamed(log, cells, "cells")
        with pytest.raises(VersionMismatch):
            renamed(log, cells, "other", expected=7)
        with pytest.raises(NotFound):
            log.append(command(ADA), *_renaming(log, cells), guards=(datasets.open_guard(uuid4()),))
    for number in range(3):
        renamed(log, cells, f"cells {number}")


def test_what_our_own_processes_append_is_not_limited(log):
    cells, system = created(log), actor(None, id=system_actor("tests"), kind="system")
    for number in range(10):
        log.append(command(system), *_renaming(log, cells, f"cells {number}"))
    assert log.load(cells, dataset.evolve).name == "cells 9"


def test_a_command_about_several_things_counts_for_each(log):
    cells, tissue = created(log), created(log)
    for number in range(3):
        renamed(log, cells, f"cells {number}")
    with pytest.raises(TooMany):
        log.append(command(ADA), *_renaming(log, tissue), *_renaming(log, cells))
    for number in range(3):
        renamed(log, tissue, f"tissue {number}")


def _renaming(log, dataset_id, name="other"):
    return dataset.describe(log.load(dataset_id, dataset.evolve), name=name, by=ADA.id, at=command().at)
