"""The rate limit for predictions, which cost a processor and leave no trace that could be counted."""

from typing import Final
from uuid import UUID

import msgspec

from application.ports import RateLimit, RateLimiter
from domain.errors import TooMany

MINUTE_SECONDS: Final = 60


class PredictionLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `per_minute` requests for predictions of one account or service."""

    limits: RateLimiter
    per_minute: int

    def count(self, account_id: UUID) -> None:
        """Count one request. Blocks. Raises TooMany."""
        try:
            self.limits.take(RateLimit(key=f"predictions/{account_id}", maximum=self.per_minute, seconds=MINUTE_SECONDS))
        except TooMany as error:
            wait = error.retry_after or 1
            message = f"More than {self.per_minute} requests for predictions within a minute; try again in {wait} s"
            raise TooMany(message, retry_after=wait) from None
