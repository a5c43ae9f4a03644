"""Fixtures for all tests: real servers, fresh databases, fitting settings."""

import gc
import os
import shutil
import signal
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.broker import Broker
from infrastructure.embedded.postgres.server import APP_ROLE, Postgres
from infrastructure.embedded.redis import Redis
from infrastructure.embedded.supervisor import PROCESSES, ensure_root_key
from infrastructure.postgres.schema import migrate
from tests.kafka.fixture import kafka_url

__all__ = ["kafka_url"]

hypothesis.register_profile("counts", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.load_profile("counts")  # a busy machine is no failure
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and commands would break lines
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background has it ignored, also by children

TEMPLATE = "template_bioscope"
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 * 1024**3
numbers = count(1)


def pytest_collection_finish():
    """Whatever was imported stays: a collection need not walk over it, and tests are short."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_folder(tmp_path_factory):
    """In memory, where there is room: each test has a database of its own, of some 400 files."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        with TemporaryDirectory(dir=MEMORY, prefix="bioscope-tests-") as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("postgres")


@pytest.fixture(scope="session")
def postgres(postgres_folder):
    """One Postgres for the whole run."""
    with Postgres(postgres_folder, roles=[APP_ROLE, *(process.database_role for process in PROCESSES)]) as server:
        with psycopg.connect(server.url(user="postgres", database="postgres"), autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}")
        migrate(server.url(user="postgres", database=TEMPLATE))
        yield server


@pytest.fixture
def database(postgres):
    """The name of a database of this test's own, migrated."""
    name = f"test_{next(numbers)}"
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE} strategy file_copy")  # takes less CPU time than the default
        yield name
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def owner_url(postgres, database):
    return postgres.url(user="postgres", database=database)


@pytest.fixture
def app_url(postgres, database):
    return postgres.url(user="bioscope_app", database=database)


@pytest.fixture
def broker_url(tmp_path_factory):
    """An embedded broker of this test's own."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def settings(tmp_path, owner_url, app_url, broker_url, redis_url):
    """Of a system whose servers are this test's own."""
    given = Settings(
        data=tmp_path / "data",
        port=0,
        postgres_url=app_url,
        postgres_owner_url=owner_url,
        kafka_url=broker_url,
        redis_url=redis_url,
        kafka_fetch_wait=0.003,
        kafka_groups=False,
    )
    ensure_root_key(given)
    return given
