"""The contract of known addresses: Postgres and the in-memory twin; and what only the database guarantees."""

import os
import threading
from uuid import uuid4

import psycopg
import pytest

from application import accounts
from domain.access import Role
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.security.keys import RootKey
from infrastructure.security.known_addresses import PostgresKnownAddresses
from tests.given import actor, command
from tests.simulation.clients import NoSessions, Passwords
from tests.twins.known_addresses import MemoryKnownAddresses

ROOT = RootKey(os.urandom(32))
DAY = 86400
HOME, ELSEWHERE = "203.0.113.7", "2001:db8::/64"
COUNT = "select count(*) from ops.known_addresses"


@pytest.fixture
def owner(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        yield connection


class InPostgres:
    """`later` lets days pass, `account` makes an account that has a password."""

    def __init__(self, url, owner):
        self.known, self._owner = PostgresKnownAddresses(url, ROOT, days=30), owner

    def later(self, days):
        self._owner.execute("update ops.known_addresses set seen_at = seen_at - make_interval(days => %s)", (days,))

    def account(self):
        user = uuid4()
        self._owner.execute("insert into es.secrets values ('password', %s, 'hash')", (user,))
        return user


class InMemory:
    def __init__(self):
        self._now = 0.0
        self.known = MemoryKnownAddresses(days=30, clock=lambda: self._now)

    def later(self, days):
        self._now += days * DAY

    def account(self):
        return uuid4()


@pytest.fixture(params=["memory", "postgres"])
def world(request):
    if request.param == "memory":
        yield InMemory()
        return
    world = InPostgres(request.getfixturevalue("app_url"), request.getfixturevalue("owner"))
    yield world
    world.known.close()


def test_an_address_is_known_to_the_account_that_signed_in_from_there_and_to_no_other(world):
    ada, bob = world.account(), world.account()
    assert not world.known.knows(ada, HOME)
    world.known.remember(ada, HOME)
    assert world.known.knows(ada, HOME)
    assert not world.known.knows(ada, ELSEWHERE)
    assert not world.known.knows(bob, HOME)


def test_an_address_is_known_for_thirty_days_after_the_last_time(world):
    ada = world.account()
    world.known.remember(ada, HOME)
    world.later(29)
    assert world.known.knows(ada, HOME)
    world.known.remember(ada, HOME)
    world.later(29)
    assert world.known.knows(ada, HOME)
    world.later(1)
    assert not world.known.knows(ada, HOME)


@pytest.mark.parametrize("network", ["", "x" * 1000, "\ud800", "\0", "🧫"])
def test_any_text_is_a_network(world, network):
    ada = world.account()
    world.known.remember(ada, network)
    assert world.known.knows(ada, network)


# ---- in Postgres ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def in_postgres(app_url, owner):
    world = InPostgres(app_url, owner)
    yield world
    world.known.close()


def test_old_addresses_are_removed_with_the_next_sign_in_of_anybody(in_postgres, owner):
    ada, bob = in_postgres.account(), in_postgres.account()
    in_postgres.known.remember(ada, HOME)
    in_postgres.later(30)
    in_postgres.known.remember(bob, HOME)
    assert owner.execute("select user_id from ops.known_addresses").fetchall() == [(bob,)]


def test_an_address_that_is_seen_again_after_its_time_is_kept(in_postgres):
    ada = in_postgres.account()
    in_postgres.known.remember(ada, HOME)
    in_postgres.later(31)
    in_postgres.known.remember(ada, HOME)
    assert in_postgres.known.knows(ada, HOME)


def test_the_database_holds_no_address_and_no_digest_that_can_be_guessed(in_postgres, owner, app_url):
    in_postgres.known.remember(in_postgres.account(), HOME)
    assert HOME not in str(owner.execute("select k::text from ops.known_addresses k").fetchall())
    other = PostgresKnownAddresses(app_url, RootKey(os.urandom(32)), days=30)
    (user,) = owner.execute("select user_id from ops.known_addresses").fetchone()
    assert not other.knows(user, HOME)
    other.close()


def test_nothing_is_remembered_of_an_account_without_a_password(in_postgres, owner):
    in_postgres.known.remember(uuid4(), HOME)
    assert owner.execute(COUNT).fetchone() == (0,)


def test_of_many_sign_ins_at_once_one_address_is_kept(in_postgres, owner):
    ada = in_postgres.account()
    threads = [threading.Thread(target=in_postgres.known.remember, args=(ada, HOME)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert owner.execute(COUNT).fetchone() == (1,)


@pytest.mark.parametrize("end", [accounts.delete, accounts.erase])
def test_a_closed_or_erased_account_has_no_address_left(settings, owner, end):
    about = {
        "email": "ada@example.org",
        "username": "ada",
        "first_name": "Ada",
        "last_name": "Byron",
        "password": "correct horse battery 9",
    }
    known = PostgresKnownAddresses(settings.postgres_url, ROOT, days=30)
    with open_event_store(settings) as log:
        ada = accounts.register(**about, command=command(actor(Role.ADMIN)), log=log, passwords=Passwords()).id
        known.remember(ada, HOME)
        accounts.change_role(ada, Role.RESEARCHER, command=command(actor(Role.ADMIN)), log=log)
        assert known.knows(ada, HOME)
        end(ada, command=command(actor(Role.ADMIN)), log=log, tokens=NoSessions())
    assert owner.execute(COUNT).fetchone() == (0,)
    known.close()


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_app", "bioscope_relay", "bioscope_projector", "bioscope_inference"])
def test_only_the_api_and_commands_on_the_server_read_and_write_known_addresses(postgres, database, role):
    allowed = role in {"bioscope_api", "bioscope_app"}
    with psycopg.connect(postgres.url(user=role, database=database), autocommit=True) as connection:
        for right in ("select", "insert", "update", "delete"):
            (has,) = connection.execute("select has_table_privilege('ops.known_addresses', %s)", (right,)).fetchone()
            assert has is allowed, right
