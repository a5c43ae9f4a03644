"""The limits of connections."""

import pytest

from infrastructure.configuration.settings import Settings
from infrastructure.http.limits import ConnectionLimits


class Connections:
    """Those that are open, by the names under which they were entered."""

    def __init__(self, **limits):
        self.limits, self.open = ConnectionLimits(Settings(**limits)), {}

    def enter(self, name, address):
        self.open[name] = self.limits.enter(address, lambda: self.open.pop(name))
        return self.open[name]


def test_anonymous_clients_push_out_each_other_and_no_user():
    connections = Connections(anonymous_connections=3)
    connections.enter("user", "192.0.2.1").recognised()
    for number in range(5):
        connections.enter(number, "192.0.2.1")
    assert list(connections.open) == ["user", 2, 3, 4]


def test_users_push_out_no_anonymous_client():
    connections = Connections(connections_per_address=2)
    for number in range(2):
        connections.enter(number, "192.0.2.1")
    for name in "abc":
        connections.enter(name, "192.0.2.2").recognised()
    assert list(connections.open) == [0, 1, "b", "c"]


def test_it_makes_no_difference_to_be_recognised_again_or_too_late():
    connections = Connections(connections_per_address=1)
    first = connections.enter("first", "192.0.2.1")
    second = connections.enter("second", "192.0.2.1")
    first.recognised()
    second.recognised()
    second.recognised()
    assert list(connections.open) == ["second"]
    assert (connections.limits.anonymous.count, connections.limits.users.count) == (0, 1)


@pytest.mark.parametrize(("addresses", "left"), [(("2001:db8::1", "2001:db8::2"), [1]), (("2001:db8::1", "2001:db8:0:1::1"), [0, 1])])
def test_an_ipv6_network_counts_as_one_address(addresses, left):
    connections = Connections(connections_per_address=1)
    for number, address in enumerate(addresses):
        connections.enter(number, address)
    assert list(connections.open) == left


def test_all_who_come_through_a_trusted_proxy_are_not_one_address():
    connections = Connections(connections_per_address=2, anonymous_connections=3, trusted_proxies=("10.0.0.0/8",))
    for number in range(10):
        connections.enter(number, "10.0.0.1")
    assert len(connections.open) == 10
