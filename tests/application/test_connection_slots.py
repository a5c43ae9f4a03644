"""Connection slots: no client can use all of them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.limits.connection_slots import ConnectionSlots, network_of

ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::/64"])
STEPS = st.lists(st.tuples(st.sampled_from(["take", "leave", "touch"]), ADDRESSES, st.integers(0, 20)), max_size=60)


@given(STEPS, st.integers(1, 6), st.integers(0, 4))
def test_there_are_never_more_than_may_be_and_each_place_is_given_back_once(steps, total, each):
    places, held = ConnectionSlots(total=total, each=each), []

    def take(address):
        holder = places.acquire(address, lambda: held.remove(holder))
        held.append(holder)

    for what, address, number in steps:
        if what == "take":
            take(address)
        elif held and what == "leave":
            held.pop(number % len(held)).release()
        elif held:
            held[number % len(held)].touch()
        assert places.count == len(held) <= total
        assert not each or all(count <= each for count in Counter(one.address for one in held).values())
        assert not any(one.is_lost for one in held)


def test_the_least_recently_active_of_the_address_that_holds_most_gives_way():
    places, evicted = ConnectionSlots(total=4, each=4), []
    places.acquire("192.0.2.1", lambda: evicted.append("the only one"))
    many = [places.acquire("192.0.2.2", lambda number=number: evicted.append(number)) for number in range(3)]
    many[0].touch()
    places.acquire("192.0.2.3", lambda: None)
    assert evicted == [1]


def test_an_address_that_holds_as_many_as_it_may_gives_way_to_itself():
    places, evicted = ConnectionSlots(total=100, each=2), []
    for number in range(4):
        places.acquire("192.0.2.1", lambda number=number: evicted.append(number))
    assert evicted == [0, 1]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
        ("/run/socket", "/run/socket"),
    ],
)
def test_an_ipv6_customer_is_a_whole_network(address, network):
    assert network_of(address) == network


@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_addresses_of_different_networks_differ(one, other):
    if one.ipv4_mapped is None and other.ipv4_mapped is None:
        assert (network_of(str(one)) == network_of(str(other))) == (one.packed[:8] == other.packed[:8])
