"""A log and its read models on the real Postgres."""

import os

import psycopg
import pytest

from infrastructure.event_store import EventLog
from infrastructure.keys import RootKey
from infrastructure.recorder import PostgresRecorder
from projections import read_models
from projections.projector import Projector
from projections.read_models import PostgresModels
from projections.worker import LogDecoder
from tests.projections.laboratory import Laboratory


@pytest.fixture(scope="session")
def root():
    return RootKey(os.urandom(32))


@pytest.fixture
def log(app_url, root):
    log = EventLog(PostgresRecorder(app_url, root), root)
    yield log
    log.close()


@pytest.fixture
def projector(app_url, log):
    projector = Projector(lambda: PostgresModels(read_models.connect(app_url)), LogDecoder(log), discarded=log.discarded)
    yield projector
    projector.close()


@pytest.fixture
def laboratory(log, projector):
    return Laboratory(log, projector)


@pytest.fixture
def connection(app_url):
    with psycopg.connect(app_url, autocommit=True, options="-c search_path=read -c timezone=UTC") as connection:
        yield connection
