"""A log and its read models on the real Postgres."""

import os

import psycopg
import pytest

from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from projections.process.composition import projector_over
from tests.rigs.scenario import Scenario


@pytest.fixture(scope="session")
def root():
    return RootKey(os.urandom(32))


@pytest.fixture
def log(app_url, root):
    log = RecorderEventStore(PostgresRecorder(app_url, root), root)
    yield log
    log.close()


@pytest.fixture
def projector(app_url, log):
    projector = projector_over(app_url, log)
    yield projector
    projector.close()


@pytest.fixture
def scenario(log, projector):
    return Scenario(log, projector)


@pytest.fixture
def connection(app_url):
    with psycopg.connect(app_url, autocommit=True, options="-c search_path=read -c timezone=UTC") as connection:
        yield connection
