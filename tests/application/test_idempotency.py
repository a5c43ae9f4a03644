"""A repeat under one key is answered as the first time, whatever happened in between."""

import os
from uuid import uuid4

import pytest

from application import classifications, datasets
from application.commands import idempotent
from domain.access import Role
from domain.errors import KeyReused
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from tests.given import actor, command
from tests.projections.laboratory import Laboratory
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(os.urandom(32))
DIGEST = b"payload"


@pytest.fixture
def lab():
    return Laboratory(RecorderEventStore(MemoryRecorder(ROOT), ROOT), None)


def answered(lab, key, by, act, *, digest=DIGEST):
    asked = command(by, id=key, digest=digest)
    return idempotent(lab.log, asked, lambda: act(asked))


def test_a_repeat_names_the_version_that_its_command_made(lab):
    ada = lab.user()
    lab.model()
    image = lab.image(ada, lab.dataset(ada))
    asked = {"dataset_id": None, "image_id": image, "model_name": "shapes", "threshold": None, "known_models": []}
    key = uuid4()
    first, again = (answered(lab, key, ada, lambda it: classifications.run(**asked, command=it, log=lab.log)) for _ in range(2))
    assert (first.version, first.replayed) == (2, False)
    assert (again.id, again.version, again.position, again.replayed) == (first.id, first.version, first.position, True)


def test_a_repeat_of_a_change_is_answered_though_it_would_be_refused_now(lab):
    ada = lab.user()
    lab.model()
    job, key = lab.job(ada, dataset=lab.dataset(ada)), uuid4()
    first, again = (answered(lab, key, ada, lambda it: classifications.cancel(job, command=it, log=lab.log)) for _ in range(2))
    assert (again.id, again.version, again.position) == (first.id, first.version, first.position) == (job, 2, lab.log.head())


def test_a_repeat_that_is_decided_beside_its_first_names_its_version_too(lab):
    """Both were under way before one of them was in the log."""
    ada = actor(Role.RESEARCHER)
    cells, key = lab.dataset(ada), uuid4()
    first = datasets.describe(cells, name="first", command=command(ada, id=key, digest=DIGEST), log=lab.log)
    lab.change(cells, datasets.dataset, lambda it: datasets.dataset.describe(it, name="in between", by=ada.id, at=lab.now))
    again = datasets.describe(cells, name="first", command=command(ada, id=key, digest=DIGEST), log=lab.log)
    assert (again.version, again.position, again.replayed) == (first.version, first.position, True)


def test_another_request_under_a_used_key_is_refused(lab):
    ada, key = lab.user(), uuid4()
    answered(lab, key, ada, lambda it: datasets.create(name="cells", description=None, command=it, log=lab.log))
    with pytest.raises(KeyReused):
        answered(lab, key, ada, lambda it: datasets.create(name="worms", description=None, command=it, log=lab.log), digest=b"other")
