"""The event log on Postgres, and its in-memory twin."""

import os

import pytest

from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(os.urandom(32))


@pytest.fixture(params=["memory", "postgres"])
def log(request):
    if request.param == "memory":
        yield RecorderEventStore(MemoryRecorder(ROOT), ROOT)
        return
    log = RecorderEventStore(PostgresRecorder(request.getfixturevalue("app_url"), ROOT), ROOT)
    yield log
    log.close()
