"""Fixtures for the tests of infrastructure."""

import shutil
import subprocess

import pytest

from infrastructure.configuration.paths import run_folder
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.supervisor import SupervisedStack
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey


@pytest.fixture
def log(settings):
    """The event log on a database of the test's own."""
    root = RootKey.read(settings.root_key_path)
    log = RecorderEventStore(PostgresRecorder(settings.postgres_url, root), root)
    yield log
    log.close()


@pytest.fixture(scope="session")
def started_once(tmp_path_factory):
    """A data folder whose first start, the slow one, is behind it."""
    data = tmp_path_factory.mktemp("started once") / "data"
    with SupervisedStack(Settings(data=data, port=0), processes=[], prepare=lambda _: None):
        pass
    shutil.rmtree(run_folder(data), ignore_errors=True)
    return data


@pytest.fixture
def used(data, started_once):
    """The data folder of this test, already started once."""
    data.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["cp", "-a", f"{started_once}/.", data], check=True)
    return data
