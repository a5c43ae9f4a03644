"""One contract, kept by the limits in Redis and by their in-process twin."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import TooMany
from infrastructure.embedded.redis import Redis
from infrastructure.keys import RootKey
from infrastructure.limits import KEYS_MOST, REST, LocalLimits, RedisLimits

ROOT = RootKey(os.urandom(32))


@pytest.fixture(params=["process", "redis"])
def limits(request):
    if request.param == "process":
        yield LocalLimits()
        return
    limits = RedisLimits(request.getfixturevalue("redis_url"), ROOT)
    yield limits
    limits.close()


def taken(limits, key="login/account/ada@example.org", *, most=5, seconds=60):
    try:
        limits.take(key, most=most, seconds=seconds)
    except TooMany as refused:
        wait = refused.more["retry_after"]
    else:
        return True
    assert 1 <= wait <= seconds
    return False


def test_so_many_calls_are_taken_and_no_more(limits):
    assert [taken(limits) for _ in range(8)] == [True] * 5 + [False] * 3


def test_each_key_is_counted_apart(limits):
    assert all(taken(limits, f"login/address/10.0.0.{number}", most=1) for number in range(20))
    assert not taken(limits, "login/address/10.0.0.0", most=1)


def test_the_window_slides(limits):
    assert taken(limits, most=2, seconds=2)
    time.sleep(1.1)
    assert taken(limits, most=2, seconds=2)
    assert not taken(limits, most=2, seconds=2)
    time.sleep(1.0)
    assert [taken(limits, most=2, seconds=2) for _ in range(2)] == [True, False]


def test_a_refused_call_makes_nobody_wait_longer(limits):
    taken(limits, most=1, seconds=1)
    until = time.monotonic() + 0.9
    while time.monotonic() < until:
        assert not taken(limits, most=1, seconds=1)
        time.sleep(0.05)
    time.sleep(0.2)
    assert taken(limits, most=1, seconds=1)


def test_of_fifty_calls_at_once_only_so_many_pass(limits):
    with ThreadPoolExecutor(50) as threads:
        assert sum(threads.map(lambda _: taken(limits, most=20), range(50))) == 20


@pytest.mark.parametrize("odd", ["", "x" * 10_000, "a b\r\nflushall\r\n", "\0", "\ud800", "🧫"])
def test_any_key_is_a_key(limits, odd):
    assert [taken(limits, odd, most=1) for _ in range(2)] == [True, False]


@given(steps=st.lists(st.floats(0, 30)), most=st.integers(1, 5))
def test_no_window_ever_holds_more(steps, most):
    now, times = 0.0, []
    limits = LocalLimits(clock=lambda: now)
    for step in steps:
        now += step
        if taken(limits, most=most, seconds=10):
            times.append(now)
        assert sum(moment + 10 > now for moment in times) <= most
    assert not steps or times


def test_two_processes_count_together(redis_url):
    one, other = RedisLimits(redis_url, ROOT), RedisLimits(redis_url, ROOT)
    assert [taken(limits, most=3) for limits in (one, other, one, other, one)] == [True] * 3 + [False] * 2
    one.close()
    other.close()


def test_redis_learns_no_names_and_forgets_in_time(redis_url):
    limits = RedisLimits(redis_url, ROOT)
    taken(limits, seconds=60)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys()
        assert b"ada@" not in key
        assert 0 < client.ttl(key) <= 60
    limits.close()


def test_without_redis_the_process_counts_and_it_costs_little_time(tmp_path):
    with Redis(tmp_path) as server:
        limits = RedisLimits(server.url, ROOT)
        assert taken(limits)
    began = time.monotonic()
    assert [taken(limits) for _ in range(7)] == [True] * 5 + [False] * 2
    assert time.monotonic() - began < 1
    limits.close()


def test_a_redis_that_came_back_counts_again(tmp_path):
    server = Redis(tmp_path)
    with server:
        limits = RedisLimits(server.url, ROOT)
        taken(limits)
    taken(limits)
    with server:
        time.sleep(REST)
        taken(limits)
        with redis.Redis.from_url(server.url) as client:
            assert client.keys()
    limits.close()


def test_the_process_keeps_only_so_many_keys():
    limits = LocalLimits()
    for number in range(KEYS_MOST + 100):
        limits.take(str(number), most=1, seconds=60)
    assert len(limits._calls) == KEYS_MOST
