"""A command that is repeated with the same key gets the first answer, whatever happened in between."""

import os
from uuid import uuid4

import pytest

from application import classifications, datasets
from application.classifications import ImageSelection
from application.commands import idempotent
from domain.access import Role
from domain.errors import KeyReused
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from tests.given import actor, command
from tests.rigs.scenario import Scenario
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(os.urandom(32))
DIGEST = b"payload"


@pytest.fixture
def scenario():
    return Scenario(RecorderEventStore(MemoryRecorder(ROOT), ROOT), None)


def answered(scenario, key, by, act, *, digest=DIGEST):
    asked = command(by, id=key, digest=digest)
    return idempotent(scenario.log, asked, lambda: act(asked))


def test_a_repeat_names_the_version_that_its_command_made(scenario):
    ada = scenario.user()
    scenario.model()
    image = scenario.image(ada, scenario.dataset(ada))
    asked = {"selection": ImageSelection(image_id=image), "model_name": "shapes", "threshold": None, "known_models": []}
    key = uuid4()
    first, again = (answered(scenario, key, ada, lambda it: classifications.run(**asked, command=it, log=scenario.log)) for _ in range(2))
    assert (first.version, first.replayed) == (2, False)
    assert (again.id, again.version, again.position, again.replayed) == (first.id, first.version, first.position, True)


def test_a_repeat_of_a_change_is_answered_though_it_would_be_refused_now(scenario):
    ada = scenario.user()
    scenario.model()
    job, key = scenario.job(ada, dataset=scenario.dataset(ada)), uuid4()
    first, again = (answered(scenario, key, ada, lambda it: classifications.cancel(job, command=it, log=scenario.log)) for _ in range(2))
    assert (again.id, again.version, again.position) == (first.id, first.version, first.position) == (job, 2, scenario.log.head())


def test_a_repeat_that_is_decided_beside_its_first_names_its_version_too(scenario):
    """Both were under way before one of them was in the log."""
    ada = actor(Role.RESEARCHER)
    cells, key = scenario.dataset(ada), uuid4()
    first = datasets.describe(cells, name="first", command=command(ada, id=key, digest=DIGEST), log=scenario.log)
    scenario.change(cells, datasets.dataset, lambda it: datasets.dataset.describe(it, name="in between", by=ada.id, at=scenario.now))
    again = datasets.describe(cells, name="first", command=command(ada, id=key, digest=DIGEST), log=scenario.log)
    assert (again.version, again.position, again.replayed) == (first.version, first.position, True)


def test_another_request_under_a_used_key_is_refused(scenario):
    ada, key = scenario.user(), uuid4()
    answered(scenario, key, ada, lambda it: datasets.create(name="cells", description=None, command=it, log=scenario.log))
    with pytest.raises(KeyReused):
        answered(
            scenario, key, ada, lambda it: datasets.create(name="worms", description=None, command=it, log=scenario.log), digest=b"other"
        )
