"""Overload, slow clients, and a stop under load: the short form of `make overload`."""

import asyncio

import pytest

from api.cli.client.api_client import Client
from tests.overload.__main__ import address_of_large_picture
from tests.overload.load import Load
from tests.overload.network import IPV4
from tests.overload.strangers import ALL, Strangers, User, beside
from tests.overload.trial import beside_slow_clients, drained, overloaded
from tests.system.conftest import PASSWORD, email, made_account
from tests.system.test_kills import wait_until_running, wait_until_serving


@pytest.fixture(scope="module")
def under_test(system, stack, tmp_path_factory):
    address = made_account(stack, "researcher", email("load"))
    with Client.sign_in(stack.base_url, address, PASSWORD) as client:
        load = Load(stack.base_url, client.credentials.access_token)
        return system, load, address_of_large_picture(client, tmp_path_factory.mktemp("large"))


def test_four_times_what_it_can_take_is_turned_away_politely_and_the_rest_is_served(under_test):
    system, load, _ = under_test
    told = asyncio.run(overloaded(load, system.pid("api"), seconds=5, measured=2.0, slower=6.0))
    assert told.broken == []
    assert told.statuses.get(503, 0) > 0, f"that was no overload: {told}"
    assert told.accepted > 0


def test_slow_clients_hold_nobody_up(under_test):
    _, load, large = under_test
    told = asyncio.run(beside_slow_clients(load, large, seconds=2.0))
    assert told.refused == 0
    assert told.beside_p99 < 6 * told.before_p99 + 0.5


def test_strangers_at_every_limit_fail_none_of_a_users_requests(system, stack):
    """How long they take is for `make overload` to say."""
    address = made_account(stack, "researcher", email("user"))
    strangers = Strangers(("127.0.0.1", stack.port), stack, IPV4, address)
    with User(stack.base_url, address, PASSWORD) as user:
        user.does(2.0)
        found = beside(ALL, strangers, user, system.pid("api"), seconds=5.0)
    assert found.failed == []
    assert found.normal_after is not None, f"the API grew by {found.grown / 2**20:.0f} MiB"
    assert all(found.seconds.values()), "the user did nothing"


def test_sigterm_under_load_cuts_no_request_off(under_test):
    system, load, _ = under_test
    before = system.pid("api")
    told = asyncio.run(drained(load, before, before=1.0))
    wait_until_running(system, "api")
    wait_until_serving(system.settings)
    assert told.cut_off == []
    assert told.answered > 0
    assert told.ended_after < 10


def test_the_generator_goes_nowhere_but_to_this_machine():
    with pytest.raises(AssertionError, match="this machine alone"):
        Load("http://192.0.2.1:8000", "token")
