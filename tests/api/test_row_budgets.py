"""The row budget of an account's subscriptions: its queries wait, one at a time, and other accounts do not."""

import asyncio
from uuid import uuid4

import pytest

from api.live.row_budgets import BURST_SECONDS, ROWS_PER_QUERY, RowBudgets
from projections.activity import ActivityPage

pytestmark = pytest.mark.anyio
RATE = 1000


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self):
        self.now, self.sleeping = 100.0, 0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def budgets(clock):
    return RowBudgets(RATE, clock=clock, sleep=clock.sleep)


def page(visited, *, during=None):
    async def query():
        if during is not None:
            await during()
        return ActivityPage(items=[], position=0, more=False, visited=visited)

    return query


async def test_all_pages_come_and_no_more_than_the_budget_is_visited(budgets, clock):
    account, began, pages, rows = uuid4(), clock.now, 50, 700
    found = await asyncio.gather(*(budgets.read(account, page(rows)) for _ in range(pages)))
    assert len(found) == pages
    cost = rows + ROWS_PER_QUERY
    allowed = (clock.now - began + BURST_SECONDS) * RATE + cost  # the last page is paid after it was read
    assert pages * cost <= allowed + 1e-6
    assert clock.now - began <= pages * cost / RATE


async def test_queries_that_find_nothing_cost_too(budgets, clock):
    account, began = uuid4(), clock.now
    for _ in range(100):
        await budgets.read(account, page(0))
    assert clock.now - began >= 100 * ROWS_PER_QUERY / RATE - BURST_SECONDS - 1


async def test_one_account_reads_one_page_at_a_time_and_another_is_not_kept(budgets, clock):
    mine, theirs, open_now, maximum = uuid4(), uuid4(), 0, 0

    async def during():
        nonlocal open_now, maximum
        open_now += 1
        maximum = max(maximum, open_now)
        await asyncio.sleep(0.001)
        open_now -= 1

    await asyncio.gather(*(budgets.read(mine, page(10, during=during)) for _ in range(5)))
    assert maximum == 1
    await budgets.read(mine, page(100 * RATE))
    began = clock.now
    await budgets.read(theirs, page(1))
    assert clock.now == began


async def test_who_is_in_debt_may_not_look_and_may_again_later(budgets, clock):
    account = uuid4()
    assert budgets.try_query(account)
    await budgets.read(account, page(10 * RATE))
    assert not budgets.try_query(account)
    clock.now += 10
    assert budgets.try_query(account)


async def test_a_debt_outlives_its_sockets_and_is_forgotten_when_paid(budgets, clock):
    account = uuid4()
    await budgets.read(account, page(10 * RATE))
    budgets.try_query(uuid4())
    assert not budgets.try_query(account)
    clock.now += 100
    budgets.try_query(uuid4())
    assert account not in budgets._accounts


async def test_a_subscription_that_ends_while_it_waits_lets_the_next_one_read(budgets, clock):
    account, gate = uuid4(), asyncio.Event()
    first = asyncio.create_task(budgets.read(account, page(1, during=gate.wait)))
    await asyncio.sleep(0)
    second, third = (asyncio.create_task(budgets.read(account, page(1))) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()
    assert (await asyncio.wait_for(third, 5)).visited == 1
