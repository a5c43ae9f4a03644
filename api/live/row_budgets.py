"""Limits the rows that the subscriptions of an account read per second. Beyond the limit they wait; nothing is rejected or lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar
from uuid import UUID

BURST_SECONDS: Final = 1.0  # of the budget that may be used at once
ROWS_PER_QUERY: Final = 20  # charged for each query, in addition to the rows that it visits

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class QueryResult(Protocol):
    """The result of a query. `visited` is the number of rows that it read."""

    @property
    def visited(self) -> int: ...


Q = TypeVar("Q", bound=QueryResult)


class AccountBudget:
    """`paid_at` is the time at which the budget covers all rows visited so far; `users` counts subscriptions that read or wait."""

    def __init__(self) -> None:
        self.lock, self.paid_at, self.users = asyncio.Lock(), 0.0, 0


class RowBudgets:
    """An account reads one page at a time for all its subscriptions together, so that it never holds all connections."""

    def __init__(self, rows_per_second: int, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._rate, self._clock, self._sleep = rows_per_second, clock, sleep
        self._accounts: dict[UUID, AccountBudget] = {}

    async def read(self, account_id: UUID, query: Callable[[], Awaitable[Q]]) -> Q:
        """Run `query` when it is this subscription's turn and the budget allows it."""
        async with self._used(account_id) as account, account.lock:
            if (wait := account.paid_at - self._clock() - BURST_SECONDS) > 0:
                await self._sleep(wait)
            self._charge(account, ROWS_PER_QUERY)
            page = await query()
            self._charge(account, page.visited)
            return page

    def try_query(self, account_id: UUID) -> bool:
        """Whether the budget allows one small query now. If so, it is charged."""
        account = self._account(account_id)
        if account.paid_at > self._clock() + BURST_SECONDS:
            return False
        self._charge(account, ROWS_PER_QUERY)
        return True

    def _charge(self, account: AccountBudget, rows: int) -> None:
        account.paid_at = max(account.paid_at, self._clock()) + rows / self._rate

    @asynccontextmanager
    async def _used(self, account_id: UUID) -> AsyncIterator[AccountBudget]:
        account = self._account(account_id)
        account.users += 1
        try:
            yield account
        finally:
            account.users -= 1

    def _account(self, account_id: UUID) -> AccountBudget:
        if account_id not in self._accounts:
            self._forget_paid()
            self._accounts[account_id] = AccountBudget()
        return self._accounts[account_id]

    def _forget_paid(self) -> None:
        now = self._clock()
        for account_id in [key for key, account in self._accounts.items() if not account.users and account.paid_at <= now]:
            del self._accounts[account_id]
