"""An active administrator remains, whatever is done concurrently to accounts: Postgres and the in-memory twin."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from random import Random
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application import accounts
from domain import user
from domain.access import Actor, Role
from domain.errors import ConcurrencyConflict, LastAdministrator, NotFound
from domain.user import Status
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import ADMINISTRATORS
from tests.contracts.conftest import ROOT
from tests.given import actor, command
from tests.simulation.clients import NoSessions, Passwords
from tests.twins.event_store import MemoryRecorder

OPERATOR = actor(None, kind="system")
TOKENS = NoSessions()
numbers = count(1)


def registered(log, role=Role.ADMIN, **names):
    """The id of somebody new with that role."""
    name = f"person{next(numbers)}"
    about = {"email": f"{name}@example.org", "username": name, "first_name": "Ada", "last_name": "Byron"} | names
    return accounts.register(
        **about, password="correct horse battery 9", role=role, command=command(OPERATOR), log=log, passwords=Passwords()
    ).id


def updated(log, account, by, **changes):
    ports = {"passwords": Passwords(), "tokens": TOKENS}
    return accounts.update(account, profile={}, **changes, command=command(by), log=log, **ports)


WAYS = {
    "demote": lambda log, account, by: accounts.change_role(account, Role.ANALYST, command=command(by), log=log),
    "demote by the API": lambda log, account, by: updated(log, account, by, role=Role.VIEWER, status=Status.ACTIVE),
    "suspend": lambda log, account, by: updated(log, account, by, status=Status.SUSPENDED),
    "delete": lambda log, account, by: accounts.delete(account, command=command(by), log=log, tokens=TOKENS),
    "erase": lambda log, account, by: accounts.erase(account, command=command(by), log=log, tokens=TOKENS),
}
BACK = {
    "promote": lambda log, account, by: accounts.change_role(account, Role.ADMIN, command=command(by), log=log),
    "activate": lambda log, account, by: updated(log, account, by, status=Status.ACTIVE),
}


def done(way, log, account, by=OPERATOR):
    """Whether it was done; refused to the last administrator, and after each other's changes, it changes nothing."""
    try:
        (WAYS | BACK)[way](log, account, by)
    except (LastAdministrator, NotFound, ConcurrencyConflict):
        return False
    return True


def active_administrators(log):
    return {account for account in log.administrators() if log.load(account, user.evolve).is_active_admin}


def fewest_over_time(log):
    """The smallest number of active administrators after any event since the first one was registered."""
    states, fewest = {}, None
    for recorded in log.read(0, 100_000):
        states[recorded.stream] = user.evolve(states.get(recorded.stream), log.decode(recorded))
        active = sum(state is not None and state.is_active_admin for state in states.values())
        fewest = active if fewest is None else min(fewest, active)
    return fewest


class DecidedTogether:
    """The log, on which a first append waits until the other one has decided too."""

    def __init__(self, log, barrier):
        self._log, self._barrier, self._met = log, barrier, False

    def __getattr__(self, name):
        return getattr(self._log, name)

    def append(self, *arguments, **keywords):
        if not self._met:
            self._met = True
            self._barrier.wait(10)
        return self._log.append(*arguments, **keywords)


@pytest.mark.parametrize("way", WAYS)
def test_the_last_active_administrator_stays(log, way):
    first, second = registered(log), registered(log)
    registered(log, Role.RESEARCHER)
    assert done(way, log, second)
    head = log.head()
    with pytest.raises(LastAdministrator, match="make another user an administrator first"):
        WAYS[way](log, first, OPERATOR)
    assert log.head() == head
    assert active_administrators(log) == {first}


@pytest.mark.parametrize("way", ["demote by the API", "suspend"])
def test_the_last_active_administrator_stays_whatever_they_ask_themselves(log, way):
    alone = registered(log)
    with pytest.raises(LastAdministrator):
        WAYS[way](log, alone, Actor(id=alone, role=Role.ADMIN))
    assert active_administrators(log) == {alone}


def test_a_suspended_or_deleted_administrator_is_no_other_one(log):
    first, second, third = registered(log), registered(log), registered(log)
    assert done("suspend", log, second)
    assert done("delete", log, third)
    assert not done("demote", log, first)
    assert done("activate", log, second)
    assert done("demote", log, first)
    assert active_administrators(log) == {second}


def test_what_takes_no_rights_needs_no_other_administrator(log):
    alone = registered(log)
    assert updated(log, alone, OPERATOR, role=Role.ADMIN, status=Status.ACTIVE).position == 0
    ports = {"command": command(OPERATOR), "log": log, "passwords": Passwords(), "tokens": TOKENS}
    assert accounts.update(alone, profile={"phone": "1"}, **ports).version == 2
    assert accounts.reset_password(alone, "another horse battery 9", **ports | {"command": command(OPERATOR)}).version == 3


@pytest.mark.parametrize("ways", list(product(WAYS, WAYS)), ids=" and ".join)
def test_two_administrators_that_end_each_other_at_once_do_not_both_succeed(log, ways):
    first, second = registered(log), registered(log)
    barrier = threading.Barrier(2)
    attempts = [
        (ways[0], DecidedTogether(log, barrier), second, Actor(id=first, role=Role.ADMIN)),
        (ways[1], DecidedTogether(log, barrier), first, Actor(id=second, role=Role.ADMIN)),
    ]
    with ThreadPoolExecutor(2) as threads:
        succeeded = list(threads.map(lambda attempt: done(*attempt), attempts))
    assert sorted(succeeded) == [False, True]
    assert active_administrators(log) == {first if succeeded[0] else second}


def test_under_many_at_once_an_administrator_remains_at_every_moment(log):
    people = [registered(log) for _ in range(4)]

    def act(seed):
        chance = Random(seed)
        return sum(done(chance.choice(["demote", "suspend", "promote", "activate"]), log, chance.choice(people)) for _ in range(40))

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(act, range(6))) > 40
    assert fewest_over_time(log) >= 1


@given(st.lists(st.tuples(st.sampled_from([*WAYS, *BACK]), st.integers(0, 2)), max_size=30))
def test_of_any_commands_exactly_those_are_refused_that_would_leave_no_administrator(steps):
    log = RecorderEventStore(MemoryRecorder(ROOT), ROOT)
    people = [registered(log), registered(log, Role.VIEWER), registered(log)]
    for way, number in steps:
        before, account = active_administrators(log), people[number]
        closed = log.load(account, user.evolve)
        try:
            (WAYS | BACK)[way](log, account, OPERATOR)
            refused = False
        except LastAdministrator:
            refused = True
        except NotFound:
            assert closed.deleted
            continue
        assert refused == (before == {account} and way in WAYS)
    assert fewest_over_time(log) >= 1


def test_whoever_was_ever_an_administrator_is_found_and_nobody_else(log):
    first, promoted = registered(log), registered(log, Role.VIEWER)
    registered(log, Role.RESEARCHER, first_name='"role":"admin"', username="admin")
    assert done("promote", log, promoted)
    third = registered(log)
    assert done("demote", log, first)
    assert done("erase", log, third)
    assert list(log.administrators()) == [first, promoted, third]


def test_a_log_without_accounts_has_no_administrator(log):
    assert list(log.administrators()) == []


def test_administrators_are_found_by_an_index(owner_url):
    with psycopg.connect(owner_url) as connection:
        connection.execute("set enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"explain {ADMINISTRATORS}"))
    assert "using events_0000_administrators" in plan


def test_an_account_that_is_not_there_takes_nothing_away(log):
    registered(log)
    for way in ("demote", "suspend"):
        with pytest.raises(NotFound):
            WAYS[way](log, uuid4(), OPERATOR)
