"""The limits of requests for predictions in progress, each of which holds its images in memory."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final
from uuid import UUID

from api.options import PredictionLimits
from domain.errors import TooMany, Unavailable

RETRY_AFTER_SECONDS: Final = 1


class PredictionSlot:
    """One request in progress. `body_bytes` is the size of its body, as far as it is known."""

    def __init__(self, account_id: UUID) -> None:
        self.account_id, self.body_bytes = account_id, 0


class PredictionSlots:
    """Slots of this process, to be used on one event loop.

    `idle` is entered while a request waits for the model, so that admission control does not count it.
    """

    def __init__(self, limits: PredictionLimits, idle: AbstractContextManager[None]) -> None:
        self.limits, self.idle = limits, idle
        self._held: list[PredictionSlot] = []

    @contextmanager
    def held(self, account_id: UUID) -> Iterator[PredictionSlot]:
        """Hold a slot during the block. Raises TooMany if the account holds too many, Unavailable if no slot is free."""
        if len(self._of(account_id)) >= self.limits.max_requests_per_account:
            raise _too_many(f"An account may have {self.limits.max_requests_per_account} requests for predictions in progress")
        if len(self._held) >= self.limits.max_requests:
            raise _unavailable()
        slot = PredictionSlot(account_id)
        self._held.append(slot)
        try:
            yield slot
        finally:
            self._held.remove(slot)

    def reserve(self, slot: PredictionSlot, body_bytes: int) -> None:
        """Let the body of a request have at least `body_bytes`.

        Raises TooMany if the bodies of the account, and Unavailable if those of all accounts would be too large together.
        """
        if body_bytes <= slot.body_bytes:
            return
        others = [other for other in self._held if other is not slot]
        if not _fits(
            body_bytes, [other for other in others if other.account_id == slot.account_id], self.limits.max_body_bytes_per_account
        ):
            most = self.limits.max_body_bytes_per_account
            raise _too_many(f"The requests for predictions that an account has in progress may have {most:,} bytes together")
        if not _fits(body_bytes, others, self.limits.max_body_bytes):
            raise _unavailable()
        slot.body_bytes = body_bytes

    def _of(self, account_id: UUID) -> list[PredictionSlot]:
        return [slot for slot in self._held if slot.account_id == account_id]


def _fits(body_bytes: int, others: list[PredictionSlot], maximum: int) -> bool:
    """Whether one more body is within `maximum`, or the only one."""
    present = sum(other.body_bytes for other in others)
    return not present or present + body_bytes <= maximum


def _too_many(what: str) -> TooMany:
    return TooMany(f"{what}; try again", retry_after=RETRY_AFTER_SECONDS)


def _unavailable() -> Unavailable:
    return Unavailable("Too many predictions are in progress; try again", retry_after=RETRY_AFTER_SECONDS)
