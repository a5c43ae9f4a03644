"""The contract of the uses of keys: Postgres and the in-memory twin."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from application.passwords import password_secret
from domain import user
from domain.access import Role
from infrastructure.eventstore.event_store import PostgresEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.key_uses import PostgresKeyUses
from tests.contracts.conftest import ROOT
from tests.given import NOW, command
from tests.twins.key_uses import MemoryKeyUses

SYSTEM = uuid4()


class Uses:
    """The uses, and an account whose password can be deleted."""

    def __init__(self, uses, log=None):
        self.uses, self.log, self.user = uses, log, uuid4()
        if log is not None:
            names = {"email": "ada@example.org", "username": "ada", "first_name": "A", "last_name": "B"}
            registered = user.register(self.user, **names, role=Role.VIEWER, by=self.user, at=NOW)
            log.append(command(), registered, secrets=[password_secret(self.user, b"hash")])

    def close_account(self):
        if self.log is None:
            self.uses.close_account(self.user)
            return
        deleted = user.delete(self.log.load(self.user, user.evolve), by=SYSTEM, at=NOW)
        self.log.append(command(), *deleted, secrets=[password_secret(self.user, None)])


@pytest.fixture(params=["memory", "postgres"])
def world(request):
    if request.param == "memory":
        yield Uses(MemoryKeyUses())
        return
    log = PostgresEventStore(PostgresRecorder(request.getfixturevalue("app_url"), ROOT), ROOT)
    yield Uses(PostgresKeyUses(log.recorder.rows), log)
    log.close()


def test_the_first_and_the_last_use_are_kept(world):
    key = uuid4()
    assert world.uses.of([key]) == {}
    world.uses.record(key, network="192.0.2.1", user=None)
    first = world.uses.of([key])[key]
    world.uses.record(key, network="192.0.2.2", user=None)
    last = world.uses.of([key, uuid4()])[key]
    assert abs(datetime.now(UTC) - first.first_at) < timedelta(minutes=1)
    assert (last.first_at, last.network, last.legacy_name) == (first.first_at, "192.0.2.2", None)
    assert last.last_at > first.last_at
    assert world.uses.legacy() == []


def test_the_uses_of_a_user_go_with_the_account(world):
    mine, other = uuid4(), uuid4()
    world.uses.record(mine, network="192.0.2.1", user=world.user)
    world.uses.record(other, network="192.0.2.1", user=None)
    world.close_account()
    assert set(world.uses.of([mine, other])) == {other}


def test_signed_tokens_are_listed_by_their_first_use(world):
    one, other, expiry = uuid4(), uuid4(), datetime(2026, 5, 1, tzinfo=UTC)
    for token, name in ((one, "archive"), (other, "scanner"), (one, "archive")):
        world.uses.record_legacy(token, name=name, expires_at=expiry, network="192.0.2.1")
    assert [(use.key, use.legacy_name, use.legacy_expiry) for use in world.uses.legacy()] == [
        (one, "archive", expiry),
        (other, "scanner", expiry),
    ]
