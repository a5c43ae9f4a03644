"""The contract of device sightings: Postgres and the in-memory twin."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.last_seen import PostgresLastSeen
from tests.contracts.conftest import ROOT
from tests.twins.last_seen import MemoryLastSeen


@pytest.fixture(params=["memory", "postgres"])
def last_seen(request):
    if request.param == "memory":
        yield MemoryLastSeen()
        return
    recorder = PostgresRecorder(request.getfixturevalue("app_url"), ROOT)
    yield PostgresLastSeen(recorder.rows)
    recorder.close()


def test_the_newest_sign_of_life_counts(last_seen):
    scope = uuid4()
    assert last_seen.of(scope) is None
    last_seen.record(scope)
    first = last_seen.of(scope)
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)
    last_seen.record(scope)
    assert last_seen.of(scope) > first
    assert last_seen.of(uuid4()) is None


def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(last_seen):
    scope, other = uuid4(), uuid4()
    last_seen.record(scope)
    last_seen.record(other)
    for _ in range(2):
        last_seen.forget(scope)
        assert last_seen.of(scope) is None
    assert last_seen.of(other) is not None


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_app", "bioscope_relay", "bioscope_projector", "bioscope_inference"])
def test_only_the_api_and_commands_on_the_server_know_when_devices_were_seen(postgres, database, role):
    allowed = role in {"bioscope_api", "bioscope_app"}
    with psycopg.connect(postgres.url(user=role, database=database), autocommit=True) as connection:
        for right in ("select", "insert", "update", "delete"):
            (has,) = connection.execute("select has_table_privilege('ops.devices_seen', %s)", (right,)).fetchone()
            assert has is allowed, right
