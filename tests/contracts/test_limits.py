"""The contract of rate limits: Redis and the in-process twin."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from application.ports import RateLimit
from domain.errors import TooMany
from infrastructure.embedded.redis import Redis
from infrastructure.security.keys import RootKey
from infrastructure.security.rate_limits import MAX_KEYS, LocalRateLimiter, RedisRateLimiter, RedisTimeouts

ROOT = RootKey(os.urandom(32))


@pytest.fixture(params=["process", "redis"])
def limits(request):
    if request.param == "process":
        yield LocalRateLimiter()
        return
    limits = RedisRateLimiter(request.getfixturevalue("redis_url"), ROOT)
    yield limits
    limits.close()


def taken(limits, key="login/account/ada@example.org", *, maximum=5, seconds=60):
    try:
        limits.take(RateLimit(key=key, maximum=maximum, seconds=seconds))
    except TooMany as refused:
        wait = refused.retry_after
    else:
        return True
    assert 1 <= wait <= seconds
    return False


def test_so_many_calls_are_taken_and_no_more(limits):
    assert [taken(limits) for _ in range(8)] == [True] * 5 + [False] * 3


def test_each_key_is_counted_apart(limits):
    assert all(taken(limits, f"login/address/10.0.0.{number}", maximum=1) for number in range(20))
    assert not taken(limits, "login/address/10.0.0.0", maximum=1)


def test_the_window_slides(limits):
    assert taken(limits, maximum=2, seconds=2)
    time.sleep(1.1)
    assert taken(limits, maximum=2, seconds=2)
    assert not taken(limits, maximum=2, seconds=2)
    time.sleep(1.0)
    assert [taken(limits, maximum=2, seconds=2) for _ in range(2)] == [True, False]


def test_a_refused_call_makes_nobody_wait_longer(limits):
    taken(limits, maximum=1, seconds=1)
    until = time.monotonic() + 0.9
    while time.monotonic() < until:
        assert not taken(limits, maximum=1, seconds=1)
        time.sleep(0.05)
    time.sleep(0.2)
    assert taken(limits, maximum=1, seconds=1)


def test_of_fifty_calls_at_once_only_so_many_pass(limits):
    with ThreadPoolExecutor(50) as threads:
        assert sum(threads.map(lambda _: taken(limits, maximum=20), range(50))) == 20


@pytest.mark.parametrize("odd", ["", "x" * 10_000, "a b\r\nflushall\r\n", "\0", "\ud800", "🧫"])
def test_any_key_is_a_key(limits, odd):
    assert [taken(limits, odd, maximum=1) for _ in range(2)] == [True, False]


@given(steps=st.lists(st.floats(0, 30)), maximum=st.integers(1, 5))
def test_no_window_ever_holds_more(steps, maximum):
    now, times = 0.0, []
    limits = LocalRateLimiter(clock=lambda: now)
    for step in steps:
        now += step
        if taken(limits, maximum=maximum, seconds=10):
            times.append(now)
        assert sum(moment + 10 > now for moment in times) <= maximum
    assert not steps or times


def test_two_processes_count_together(redis_url):
    one, other = RedisRateLimiter(redis_url, ROOT), RedisRateLimiter(redis_url, ROOT)
    assert [taken(limits, maximum=3) for limits in (one, other, one, other, one)] == [True] * 3 + [False] * 2
    one.close()
    other.close()


FAR = 10**18  # microseconds, some thirty thousand years ahead
FORGED = {
    "a time to come": ["lpush", *[FAR] * 5],
    "an endless time": ["lpush", *["inf"] * 5],
    "no number": ["lpush", *["nan"] * 5],
    "words": ["lpush", *["garbage"] * 5],
    "a long list": ["lpush", *range(100_000)],
    "a text": ["set", "garbage"],
    "a large text": ["set", "x" * 10**6],
    "a set": ["sadd", "garbage"],
    "a hash": ["hset", "garbage", "1"],
}


@pytest.mark.parametrize("written", FORGED.values(), ids=FORGED)
def test_what_somebody_wrote_into_a_counter_locks_nobody_out_and_opens_no_door(redis_url, written):
    limits = RedisRateLimiter(redis_url, ROOT)
    taken(limits, maximum=5)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys()
        client.delete(key)
        client.execute_command(written[0], key, *written[1:])
        assert [taken(limits, maximum=5) for _ in range(6)] == [True] * 4 + [False] * 2, "the first was taken before the forgery"
        assert 0 < client.ttl(key) <= 60
    limits.close()


def test_a_counter_that_says_now_locks_out_for_one_window_at_most(redis_url):
    limits = RedisRateLimiter(redis_url, ROOT)
    taken(limits, maximum=2, seconds=1)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys()
        seconds, micros = client.time()
        client.lpush(key, *[seconds * 10**6 + micros] * 2)
        client.persist(key)
    assert not taken(limits, maximum=2, seconds=1)
    time.sleep(1.1)
    assert taken(limits, maximum=2, seconds=1)
    limits.close()


@pytest.mark.parametrize("answer", ["-1", "0", f"{10**18}", "'garbage'", "{}", "nil", "redis.error_reply('no')"])
def test_a_redis_that_answers_anything_opens_the_door_no_further_than_one_that_is_away(redis_url, answer):
    """A forger of Redis itself: its script says what it likes."""
    limits = RedisRateLimiter(redis_url, ROOT)
    limits._take_script = limits._redis.register_script(f"return {answer}")
    wanted = [False] * 5 if answer == f"{10**18}" else [True] * 3 + [False] * 2
    assert [taken(limits, maximum=3) for _ in range(5)] == wanted
    limits.close()


def test_redis_learns_no_names_and_forgets_in_time(redis_url):
    limits = RedisRateLimiter(redis_url, ROOT)
    taken(limits, seconds=60)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys()
        assert b"ada@" not in key
        assert 0 < client.ttl(key) <= 60
    limits.close()


def test_without_redis_the_process_counts_and_asks_it_only_once_in_a_while(tmp_path):
    with Redis(tmp_path) as server:
        limits = RedisRateLimiter(server.url, ROOT, clock=lambda: 100.0)
        assert taken(limits)
    tries, script = [], limits._take_script
    limits._take_script = lambda **given: (tries.append("one"), script(**given))
    assert [taken(limits) for _ in range(7)] == [True] * 4 + [False] * 3, "what Redis took counts on"
    assert tries == ["one"], "a Redis that is away is left alone for a while"
    limits.close()


def test_a_redis_that_came_back_counts_again(tmp_path):
    server, now = Redis(tmp_path), 100.0
    with server:
        limits = RedisRateLimiter(server.url, ROOT, clock=lambda: now)
        taken(limits)
    taken(limits)
    with server:
        now += RedisTimeouts().retry_seconds
        taken(limits)
        with redis.Redis.from_url(server.url) as client:
            assert client.keys()
    limits.close()


def test_the_process_keeps_only_so_many_keys():
    limits = LocalRateLimiter()
    for number in range(MAX_KEYS + 100):
        limits.take(RateLimit(key=str(number), maximum=1, seconds=60))
    assert len(limits._calls) == MAX_KEYS


# ---- several limits, and calls that are given back -------------------------------------------------------------------------------------
MOST = {"account": 2, "address": 3, "strangers": 4}
WINDOW = 10


def of(*names, prefix="", seconds=WINDOW):
    return [RateLimit(key=prefix + name, maximum=MOST[name], seconds=seconds) for name in names]


class Model:
    """The contract in the simplest words: all calls with their times, those that were given back taken out."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def take(self, *limits):
        for limit in limits:
            if sum(limit.key in keys and at + limit.seconds > self.now for at, keys in self.calls) >= limit.maximum:
                return None
        call = (self.now, {limit.key for limit in limits})
        self.calls.append(call)
        return lambda: self.calls.remove(call)


names = st.lists(st.sampled_from(list(MOST)), min_size=1, unique=True)
steps = st.lists(names | st.integers(0, 9), max_size=40)
steps_in_time = st.lists(names | st.integers(0, 9) | st.floats(0, WINDOW), max_size=60)


def agree(limits, model, steps, prefix=""):
    """The same calls are taken by both; a number gives back one of those that were, once."""
    back = []
    for step in steps:
        if isinstance(step, float):
            model.now += step
        elif isinstance(step, int):
            for give_back in back.pop(step % len(back)) if back else ():
                give_back()
        else:
            wanted = model.take(*of(*step, prefix=prefix))
            try:
                back.append((limits.take(*of(*step, prefix=prefix)), wanted))
            except TooMany:
                assert wanted is None
            else:
                assert wanted is not None


@given(steps_in_time)
def test_the_process_counts_like_the_model(steps):
    model = Model()
    agree(LocalRateLimiter(clock=lambda: model.now), model, steps)


class InTurn:
    """Many processes, each of which counts too few calls by itself to refuse any."""

    def __init__(self, url):
        self.processes = [RedisRateLimiter(url, ROOT) for _ in range(4)]
        self._turns = cycle(self.processes)

    def take(self, *limits):
        return next(self._turns).take(*limits)


def test_redis_counts_like_the_model_for_all_processes_together(redis_url):
    together = InTurn(redis_url)

    @given(steps)
    def check(steps):
        agree(together, Model(), steps, prefix=os.urandom(8).hex())

    check()
    for process in together.processes:
        process.close()


def test_a_call_that_was_given_back_is_free_for_every_process_and_only_once(redis_url):
    one, other = RedisRateLimiter(redis_url, ROOT), RedisRateLimiter(redis_url, ROOT)
    give_back = one.take(RateLimit(key="a", maximum=2, seconds=60))
    assert taken(one, "a", maximum=2)
    assert not taken(other, "a", maximum=2)
    give_back()
    give_back()
    assert [taken(other, "a", maximum=2) for _ in range(2)] == [True, False]
    one.close()
    other.close()


def test_of_fifty_calls_at_once_no_limit_of_several_is_passed(limits):
    def called(number):
        try:
            return bool(limits.take(*of("account", "address"), RateLimit(key=str(number % 2), maximum=1, seconds=60)))
        except TooMany:
            return False

    with ThreadPoolExecutor(50) as threads:
        assert sum(threads.map(called, range(50))) == 2


def test_what_cannot_be_given_back_counts_until_its_window_ends(tmp_path):
    with Redis(tmp_path) as server:
        limits = RedisRateLimiter(server.url, ROOT)
        give_back = limits.take(RateLimit(key="a", maximum=1, seconds=60))
    give_back()
    assert taken(limits, "a", maximum=1), "in the process it was given back"
    limits.close()


def test_a_redis_that_forgets_frees_no_call_of_the_last_hour(redis_url):
    limits = RedisRateLimiter(redis_url, ROOT)
    assert all(taken(limits, maximum=100, seconds=3600) for _ in range(100))
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert not taken(limits, maximum=100, seconds=3600)
    limits.close()


def test_a_call_that_the_process_refuses_is_not_counted_in_redis(redis_url):
    limits = RedisRateLimiter(redis_url, ROOT)
    assert taken(limits, maximum=1)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        assert not taken(limits, maximum=1)
        assert client.keys() == []
    limits.close()


def test_a_process_that_starts_anew_finds_what_redis_counted(redis_url):
    before, after = RedisRateLimiter(redis_url, ROOT), RedisRateLimiter(redis_url, ROOT)
    assert all(taken(before, maximum=3) for _ in range(3))
    before.close()
    assert not taken(after, maximum=3)
    after.close()
