"""Admission control: limits the requests in progress. The limit is high for a burst and low under lasting overload, to keep latency low.

A share of the limit is reserved for requests with a credential, so that anonymous clients cannot use it up.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from api.options import AdmissionLimits

NEVER: Final = float("-inf")


class Admission:
    """Counts the requests in progress. As a context manager it wraps a wait for the client, during which the request does not count.

    A request is first counted (`count`), then admitted or not.
    """

    def __init__(self, limits: AdmissionLimits = AdmissionLimits()) -> None:  # noqa: B008 - it is immutable
        self.count = 0
        self._limits = limits
        self._overload_started = self._last_rejection = self._limited_since = NEVER

    def admits(self, now: float, *, has_credential: Callable[[], bool]) -> bool:
        """Whether the last request counted may proceed. `now` is in seconds, by any clock.

        `has_credential` is called only if the result depends on it.
        """
        limits = self._limits
        has_recovered = now - self._last_rejection > limits.recovered_after_seconds
        is_limited = not has_recovered and now - self._limited_since < limits.probe_interval_seconds
        maximum = limits.overloaded if is_limited else limits.normal
        if self.count <= maximum:
            return self.count <= maximum - maximum // limits.credentials_share or has_credential()
        if has_recovered:
            self._overload_started, self._limited_since = now, NEVER
        if not is_limited and now - self._overload_started > limits.overloaded_after_seconds:
            self._limited_since = now
        self._last_rejection = now
        return False

    def __enter__(self) -> None:
        self.count -= 1

    def __exit__(self, *_: object) -> None:
        self.count += 1

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the request again, for work within a wait."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
