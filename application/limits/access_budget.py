"""Budgets of the trail of access, so that a flood of requests does not become a flood of records."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from application.history.access_records import REFUSALS, Access, AccessKind

OTHERS: Final = ""
"""The network under which all are counted that are too many to be counted one by one."""


class BudgetLimits(NamedTuple):
    """Records per `seconds`: of one network and kind, and of all networks together and one kind. Few for refusals, which anybody can cause.

    At most `networks` are counted one by one.
    """

    seconds: float = 60.0
    refusals: int = 60
    all_refusals: int = 600
    accesses: int = 6000
    all_accesses: int = 60_000
    networks: int = 1000


DEFAULT_LIMITS: Final = BudgetLimits()


class AccessBudget:
    """Counts accesses by kind and network. Not thread-safe: the caller holds a lock."""

    def __init__(self, limits: BudgetLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._ends = 0.0
        self._taken: dict[tuple[AccessKind, str], int] = {}
        self._of_kind: dict[AccessKind, int] = {}
        self._exceeded: dict[tuple[AccessKind, str], Access] = {}

    def admits(self, access: Access, now: float) -> bool:
        """Whether the access gets a record of its own. Otherwise it is counted. `now` is in seconds, and does not go back."""
        if now >= self._ends and not self._exceeded:
            self._begin(now)
        own, together = self._maxima(access.kind)
        key = self._key(access.kind, access.network)
        taken, of_kind = self._taken.get(key, 0), self._of_kind.get(access.kind, 0)
        self._taken[key] = taken + 1
        if taken < own and of_kind < together:
            self._of_kind[access.kind] = of_kind + 1
            return True
        self._count(key, access)
        return False

    def summaries(self, now: float) -> Iterator[Access]:
        """At the end of each period, one record for each kind and network that exceeded its budget, with the number of its accesses."""
        if self._exceeded and now >= self._ends:
            yield from self.drained()
            self._begin(now)

    def drained(self) -> Iterator[Access]:
        """The same, before the end of the period."""
        summaries, self._exceeded = list(self._exceeded.values()), {}
        yield from summaries

    def _begin(self, now: float) -> None:
        self._ends = now + self._limits.seconds
        self._taken.clear()
        self._of_kind.clear()

    def _maxima(self, kind: AccessKind) -> tuple[int, int]:
        limits = self._limits
        return (limits.refusals, limits.all_refusals) if kind in REFUSALS else (limits.accesses, limits.all_accesses)

    def _key(self, kind: AccessKind, network: str) -> tuple[AccessKind, str]:
        key = kind, network
        return key if key in self._taken or len(self._taken) < self._limits.networks else (kind, OTHERS)

    def _count(self, key: tuple[AccessKind, str], access: Access) -> None:
        known = self._exceeded.get(key)
        if known is not None:
            self._exceeded[key] = msgspec.structs.replace(known, count=known.count + access.count)
            return
        _, network = key
        address = access.address if network and access.person is None else ""  # it could not be erased with the person
        self._exceeded[key] = Access(
            at=access.at,
            kind=access.kind,
            outcome=access.outcome,
            route=access.route,
            address=address,
            network=network,
            count=access.count,
        )
