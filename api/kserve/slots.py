"""The limit of requests for predictions in progress, each of which holds its images in memory."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final
from uuid import UUID

from api.options import PredictionLimits
from domain.errors import TooMany, Unavailable

RETRY_AFTER_SECONDS: Final = 1


class PredictionSlots:
    """Slots of this process, to be used on one event loop.

    `idle` is entered while a request waits for the model, so that admission control does not count it.
    """

    def __init__(self, limits: PredictionLimits, idle: AbstractContextManager[None]) -> None:
        self.limits, self.idle = limits, idle
        self._held: Counter[UUID] = Counter()

    @contextmanager
    def held(self, account_id: UUID) -> Iterator[None]:
        """Hold a slot during the block. Raises TooMany if the account holds too many, Unavailable if no slot is free."""
        if self._held[account_id] >= self.limits.max_requests_per_account:
            most = self.limits.max_requests_per_account
            raise TooMany(f"An account may have {most} requests for predictions in progress; try again", retry_after=RETRY_AFTER_SECONDS)
        if self._held.total() >= self.limits.max_requests:
            raise Unavailable("Too many predictions are in progress; try again", retry_after=RETRY_AFTER_SECONDS)
        self._held[account_id] += 1
        try:
            yield
        finally:
            self._held[account_id] -= 1
            self._held += Counter()  # removes zero counts
