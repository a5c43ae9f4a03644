"""The event log on Postgres, and its in-memory twin."""

import os

import pytest

from infrastructure.eventstore.event_store import EventLog
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(os.urandom(32))


@pytest.fixture(params=["memory", "postgres"])
def log(request):
    if request.param == "memory":
        yield EventLog(MemoryRecorder(ROOT), ROOT)
        return
    log = EventLog(PostgresRecorder(request.getfixturevalue("app_url"), ROOT), ROOT)
    yield log
    log.close()
