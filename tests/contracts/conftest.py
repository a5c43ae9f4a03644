"""The event log on Postgres, and its in-memory twin."""

import os

import pytest

from infrastructure.event_store import EventLog
from infrastructure.keys import RootKey
from infrastructure.memory_store import MemoryRecorder
from infrastructure.recorder import PostgresRecorder

ROOT = RootKey(os.urandom(32))


@pytest.fixture(params=["memory", "postgres"])
def log(request):
    if request.param == "memory":
        yield EventLog(MemoryRecorder(ROOT), ROOT)
        return
    log = EventLog(PostgresRecorder(request.getfixturevalue("app_url"), ROOT), ROOT)
    yield log
    log.close()
