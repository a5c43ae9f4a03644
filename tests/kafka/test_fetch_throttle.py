"""The fetch throttle before the embedded broker: fetches run after a wake-up, and at long intervals."""

import asyncio

import pytest

from infrastructure.kafka.fetch_throttle import FetchThrottle

pytestmark = pytest.mark.anyio


@pytest.fixture
async def gate():
    """Past its first fetch, which nothing holds back; without a hint it stays shut."""
    one = FetchThrottle(idle_interval_seconds=3600.0)
    await asyncio.wait_for(one.fetch(nothing, of_all=True), 5)
    return one


async def nothing():
    return False


async def something():
    return True


async def passes(gate):
    """Whether a fetch is let through without a further hint."""
    try:
        await asyncio.wait_for(gate.fetch(nothing, of_all=True), 0.05)
    except TimeoutError:
        return False
    return True


async def test_a_hint_lets_one_fetch_through(gate):
    assert not await passes(gate)
    gate.wake()
    await asyncio.wait_for(gate.fetch(nothing, of_all=True), 5)
    assert not await passes(gate)


async def test_a_hint_during_a_fetch_is_for_the_next_one(gate):
    async def hinted_meanwhile():
        gate.wake()
        await asyncio.sleep(0)
        return False

    gate.wake()
    await asyncio.wait_for(gate.fetch(hinted_meanwhile, of_all=True), 5)
    await asyncio.wait_for(gate.fetch(nothing, of_all=True), 5)
    assert not await passes(gate)


async def test_where_something_came_or_was_not_asked_for_there_may_be_more(gate):
    gate.wake()
    await asyncio.wait_for(gate.fetch(something, of_all=True), 5)
    await asyncio.wait_for(gate.fetch(nothing, of_all=False), 5)
    await asyncio.wait_for(gate.fetch(nothing, of_all=True), 5)
    assert not await passes(gate)


async def test_without_a_hint_it_looks_now_and_then():
    gate, fetched = FetchThrottle(idle_interval_seconds=0.01), []

    async def noted():
        fetched.append("one")
        return False

    for _ in range(3):
        await asyncio.wait_for(gate.fetch(noted, of_all=True), 5)
    assert len(fetched) == 3
