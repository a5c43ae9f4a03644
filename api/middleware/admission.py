"""Admission control: a limit of requests at once, high for a burst and low under lasting overload, so that accepted ones are answered soon.

A part of it is kept for requests with a credential, so that clients without one cannot use up the limit.
"""

from collections.abc import Callable
from typing import Final

CONCURRENCY_LIMIT = 96  # requests worked on; more are told to come back. Those that wait for their client are not among them
OVERLOAD_LIMIT = 32  # as many do as much work in a second, and each waits a third as long
CREDENTIALS_SHARE: Final = 3  # one place in three is kept for requests with a credential
OVERLOAD_AFTER_SECONDS: Final = 0.25  # seconds for which requests were turned away until it is a crowd that stays
OVERLOAD_ENDS_AFTER_SECONDS: Final = 0.5  # seconds without one turned away until it is gone
PROBE_INTERVAL_SECONDS: Final = 30.0  # seconds until it is tried again whether so many are too many: now they may come one after the other
NEVER: Final = float("-inf")


class Admission:
    """How many requests are worked on. Entered by one that waits for its client: it is not counted until it goes on.

    Who arrives is counted first, and asks then to be let in.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first = self._last = NEVER  # when one of the crowd was turned away
        self._thinned = NEVER  # when the crowd was found to stay

    def admits(self, now: float, *, has_credential: Callable[[], bool]) -> bool:
        """Whether the last one counted may be worked on; `now` in seconds, on any clock.

        `has_credential` is called only where the answer depends on it.
        """
        gone = now - self._last > OVERLOAD_ENDS_AFTER_SECONDS
        thin = not gone and now - self._thinned < PROBE_INTERVAL_SECONDS
        maximum = OVERLOAD_LIMIT if thin else CONCURRENCY_LIMIT
        if self.count <= maximum:
            return self.count <= maximum - maximum // CREDENTIALS_SHARE or has_credential()
        if gone:
            self._first, self._thinned = now, NEVER
        if not thin and now - self._first > OVERLOAD_AFTER_SECONDS:
            self._thinned = now
        self._last = now
        return False

    def __enter__(self) -> None:
        self.count -= 1

    def __exit__(self, *_: object) -> None:
        self.count += 1
